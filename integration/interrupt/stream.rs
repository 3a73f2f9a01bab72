//! The way to the API server cut, silent, slow, or not there.

use crate::relay::{Relay, Way};
use crate::running::Running;
use crate::{BUILDER, Site, TOLD};
use std::time::Instant;

/// A site whose builds go through a relay, and the flags for that.
fn relayed(purpose: &str) -> (Site, Relay, Vec<String>) {
    let site = Site::with_builder(purpose, &[]);
    let (relay, flags) = relay_of(&site);
    (site, relay, flags)
}

/// A relay before a site's API server, and the flags that lead through it.
pub(super) fn relay_of(site: &Site) -> (Relay, Vec<String>) {
    let server =
        site.rig.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let target = server.trim().strip_prefix("https://").expect("TLS").to_owned();
    let name = target.rsplit_once(':').expect("a port").0.to_owned();
    let relay = Relay::before(&target);
    let server = format!("https://{}", relay.address());
    (relay, ["--server", &server, "--tls-server-name", &name].map(str::to_owned).to_vec())
}

fn borrowed(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[test]
#[ignore = "needs the rig"]
fn a_stream_that_is_cut_is_told_from_a_lost_pod() {
    let (site, relay, flags) = relayed("cut");
    let running = site.asleep(&borrowed(&flags));
    let (pod, node) = site.pod();
    let fault = Instant::now();
    relay.cut();
    let text = format!("pod {pod} on node {node} can no longer be reached");
    running.ends(fault, TOLD).fails(3, &[&text, "hint: "]);
    crate::tool::eventually("the daemon ends the step", TOLD, || (site.sleepers() == 0).then_some(()));
}

#[test]
#[ignore = "needs the rig"]
fn a_network_that_goes_away_is_told() {
    let (site, relay, flags) = relayed("down");
    let running = site.asleep(&borrowed(&flags));
    let (pod, node) = site.pod();
    let fault = Instant::now();
    relay.set(Way::Down);
    relay.cut();
    let stderr = running.ends(fault, TOLD).fails(3, &[&format!("pod {pod} on node {node} "), "hint: "]);
    assert!(stderr.contains("API server"), "{stderr}");
}

#[test]
#[ignore = "needs the rig"]
fn a_network_that_falls_silent_is_told() {
    let (site, relay, flags) = relayed("silent");
    let running = site.asleep(&borrowed(&flags));
    let (pod, node) = site.pod();
    let fault = Instant::now();
    relay.set(Way::Silent);
    let text = format!("pod {pod} on node {node} no longer answers");
    running.ends(fault, TOLD).fails(3, &[&text, "API server", "hint: "]);
}

/// Silence between the first call and the tunnel, too: wherever it begins, it has an end.
#[test]
#[ignore = "needs the rig"]
fn an_api_server_that_is_not_there_or_mute_from_the_start_is_told() {
    let (site, relay, flags) = relayed("start");
    let arguments = [&["--builder", BUILDER][..], &borrowed(&flags), &["quick"]].concat();
    let address = relay.address().to_string();
    for way in [Way::Down, Way::Silent] {
        relay.set(way);
        let running = Running::start(site.tool.command("kubectl-build", &arguments));
        running.ends(Instant::now(), TOLD).fails(3, &[&address, "hint: "]);
    }
    let nowhere = ["--server", "https://127.0.0.1:9", "quick"];
    let running = Running::start(site.tool.command("kubectl-build", &nowhere));
    running.ends(Instant::now(), TOLD).fails(3, &["127.0.0.1:9", "hint: "]);
}

/// Slow is not silent: an upload of half a minute through a narrow line is no reason to give up.
#[test]
#[ignore = "needs the rig"]
fn a_slow_line_is_waited_for() {
    let (site, relay, flags) = relayed("slow");
    let mut bytes = vec![0; 4 << 20];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    site.tool.file("slow/data", &bytes);
    site.tool.file("slow/Dockerfile", "FROM scratch\nCOPY data /\n");
    relay.set(Way::Slow(160 << 10));
    let arguments = [&["--builder", BUILDER][..], &borrowed(&flags), &["slow"]].concat();
    let start = Instant::now();
    site.tool.build(&arguments).ok();
    assert!(start.elapsed().as_secs() > 20, "the line was not slow: {:?}", start.elapsed());
}
