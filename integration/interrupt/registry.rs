//! Registries that refuse, have trouble or say nothing: to the daemon, which pushes, and to ourselves, who sign.

use crate::faulty_registry::{Fault, FaultyRegistry};
use crate::rig::Rig;
use crate::running::Running;
use crate::seen::Seen;
use crate::tool::Ran;
use crate::{BUILDER, Site};
use std::time::{Duration, Instant};

/// The daemon tries again for a while before it gives up.
const PUSH: Duration = Duration::from_secs(90);

struct Registry {
    site: Site,
    proxy: FaultyRegistry,
    key: String,
}

impl Registry {
    fn new(purpose: &str) -> Self {
        let rig = Rig::load();
        let proxy = FaultyRegistry::before(rig.get("REGISTRY"), rig.get("CLIENT_ADDRESS"));
        let site = Site::with_builder(purpose, &[proxy.host()]);
        let key = site.tool.key_pair("k", "").0.to_str().expect("UTF-8").to_owned();
        Self { site, proxy, key }
    }

    fn push(&self, name: &str, sign: bool) -> Ran {
        let (host, site) = (self.proxy.host(), &self.site);
        let tag = format!("{host}/{name}:1");
        let mut arguments =
            vec!["--builder", BUILDER, "-t", &tag, "--push", "--registry-http", host, "quick"];
        if sign {
            arguments.extend(["--sign", "--cosign-key", &self.key]);
        }
        let mut command = site.tool.command("kubectl-build", &arguments);
        command.env("COSIGN_PASSWORD", "");
        let running = Running::start(command);
        let ran = running.ends(Instant::now(), PUSH);
        assert_eq!(Seen::plain(&site.rig).digest(name, "1"), None, "no tag was written");
        ran
    }
}

/// The statuses, and words of the hint for each.
const REFUSALS: [(u16, &str); 5] = [
    (401, "docker login"),
    (403, "right"),
    (404, "repository"),
    (429, "try again"),
    (500, "try again later"),
];

#[test]
#[ignore = "needs the rig"]
fn what_the_daemon_is_told_when_it_pushes_is_told_with_a_hint() {
    let registry = Registry::new("refused");
    for (status, hint) in REFUSALS {
        let name = crate::fresh("refused");
        registry.proxy.set(move |method, _| (method != "HEAD").then_some(Fault::Status(status)));
        let ran = registry.push(&name, false);
        ran.fails(1, &[registry.proxy.host(), &name, "hint: ", hint]);
    }
}

#[test]
#[ignore = "needs the rig"]
fn what_preflight_is_told_stops_the_build() {
    let registry = Registry::new("preflight");
    for (status, hint) in REFUSALS {
        let name = crate::fresh("preflight");
        registry.proxy.set(move |_, _| Some(Fault::Status(status)));
        let ran = registry.push(&name, true);
        ran.fails(1, &[registry.proxy.host(), &name, "hint: ", hint]);
        assert!(!registry.proxy.was_asked("PUT", &name), "nothing was pushed");
    }
}

/// After the push: exit 4, and the line that finishes it.
#[test]
#[ignore = "needs the rig"]
fn what_signing_is_told_leaves_the_tag_alone() {
    let registry = Registry::new("unsigned");
    let faults = [
        (Fault::Status(403), "ask for that right"),
        (Fault::Status(429), "try again in 600 s"),
        (Fault::Status(503), "try again later"),
        (Fault::Broken, "try again later"),
    ];
    for (fault, hint) in faults {
        let name = crate::fresh("unsigned");
        registry.proxy.set(move |method, path| (method == "PUT" && path.ends_with(".sig")).then_some(fault));
        let ran = registry.push(&name, true);
        ran.fails(4, &[registry.proxy.host(), &name, "was not moved", "finish with: ", hint]);
    }
}

#[test]
#[ignore = "needs the rig"]
fn a_registry_that_never_answers_is_given_up() {
    let registry = Registry::new("never");
    registry.proxy.set(|_, _| Some(Fault::Late(Duration::from_secs(300))));
    let name = crate::fresh("never");
    registry.push(&name, true).fails(1, &[registry.proxy.host(), &name, "no answer", "hint: "]);
}
