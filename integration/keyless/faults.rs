//! The failure table of services: each of them with each fault, before anything is signed and after. Real services never
//! fail on demand, so fakes stand in front of the real ones. Whatever fails, a tag stays where it was, nothing that does
//! not verify is written, and the line that is printed finishes the job once the service is back.
//!
//! Other rows of the table: tokens in `formats.rs`, clocks in `clocks.rs`, keys in `main_job`, key services in `kms`.

use crate::bench::{Bench, Image, leaks_nothing, unsigned_token};
use crate::front::{Fault, Front};
use crate::seen::Seen;
use crate::tool::{Ran, run};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A service with the flag that names it, its setting, its name in messages, and where it is asked for what counts: after
/// how many requests of the same kind that are made before.
struct Service {
    flag: &'static str,
    setting: &'static str,
    name: &'static str,
    late: &'static str,
    after: usize,
}

const SERVICES: [Service; 3] = [
    Service {
        flag: "--fulcio-url",
        setting: "FULCIO_URL",
        name: "the certificate authority",
        late: "POST /api/v2/signingCert",
        after: 0,
    },
    Service {
        flag: "--rekor-url",
        setting: "REKOR_URL",
        name: "the transparency log",
        late: "POST /api/v2/log/entries",
        after: 0,
    },
    Service {
        flag: "--timestamp-server-url",
        setting: "TSA_URL",
        name: "the timestamp authority",
        late: "POST ",
        after: 1,
    },
];

/// Each fault with what is told of it.
const FAULTS: [(Fault, &[&str]); 7] = [
    (Fault::Closed, &["cannot be reached", "broke off"]),
    (Fault::Answer(429, ""), &["answered 429"]),
    (Fault::Answer(503, ""), &["answered 503"]),
    (Fault::Answer(200, "<html>"), &["is not the JSON", "something that is no timestamp response"]),
    (Fault::Truncated, &["broke off"]),
    (Fault::Huge, &["answered with more than"]),
    (Fault::Chunked, &["answered with more than"]),
];

/// A bench with a token that is good for all of a test.
struct Table {
    bench: Bench,
    token: String,
    path: PathBuf,
    /// More flags.
    flags: &'static [&'static str],
}

impl Table {
    fn new() -> Self {
        let bench = Bench::new("default", "REGISTRY");
        let token = bench.cluster_token("default", "default", "sigstore");
        let path = bench.tool.file("token", &token);
        Self { bench, token, path, flags: &[] }
    }

    /// Signs with one service replaced.
    fn sign(&self, image: &Image, flag: &str, url: &str) -> (Ran, String) {
        let mut flags = self.bench.service_flags();
        let at = flags.iter().position(|name| name == flag).expect("a flag") + 1;
        flags[at] = url.to_owned();
        let tag = format!("{}:signed", image.repository);
        let more = ["--identity-token", self.path.to_str().expect("UTF-8"), "--tag", &tag, "-vv"];
        let ran = run(self.bench.sign(image, &flags, &[&more, self.flags].concat()));
        leaks_nothing(&ran, &[&self.token]);
        (ran, tag)
    }

    fn tags(&self, image: &Image) -> Vec<String> {
        let mut tags = Seen::plain(&self.bench.rig).tags(image.repository.split_once('/').expect("a name").1);
        tags.sort();
        tags
    }

    /// One cell: a service with a fault from its first answer on.
    fn early(&self, image: &Image, service: &Service, fault: Fault, told: &[&str]) {
        let front = Front::new(self.bench.services.get(service.setting), "", 0, fault);
        let started = Instant::now();
        let (ran, _) = self.sign(image, service.flag, &front.url);
        let host = front.url.split('/').nth(2).expect("a host");
        let said = ran.fails(1, &[service.name, host, "hint: ", "try again when the service answers"]);
        assert!(told.iter().any(|told| said.contains(told)), "{fault:?}: none of {told:?} in:\n{said}");
        assert!(!said.contains("getting a certificate"), "{fault:?}: it went on:\n{said}");
        assert!(started.elapsed() < Duration::from_secs(60), "{fault:?} took {:?}", started.elapsed());
        assert!(front.sent() < 16 << 20, "{fault:?}: {} bytes were read", front.sent());
    }

    /// One cell: a service with a fault when it is asked for what counts, and what comes after.
    fn late(&self, service: &Service, fault: Fault, told: &[&str]) {
        let image = self.bench.image();
        let real = self.bench.services.get(service.setting);
        let front = Front::new(real, service.late, service.after, fault);
        let started = Instant::now();
        let (ran, tag) = self.sign(&image, service.flag, &front.url);
        let host = front.url.split('/').nth(2).expect("a host");
        let said = ran.fails(4, &[service.name, host, "was not moved", "finish with: "]);
        assert!(told.iter().any(|told| said.contains(told)), "{fault:?}: none of {told:?} in:\n{said}");
        assert!(started.elapsed() < Duration::from_secs(90), "{fault:?} took {:?}", started.elapsed());
        assert!(front.sent() < 16 << 20, "{fault:?}: {} bytes were read", front.sent());
        let published = said.contains("recording the signature in the log");
        assert_eq!(published, service.flag == "--rekor-url", "{fault:?}: published for nothing:\n{said}");
        assert_eq!(self.tags(&image), ["base"], "{} {fault:?}: half of it was written", service.name);
        // The same line, once the service is back.
        front.mend();
        let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
        let line = line.replace("kubectl buildkit", "kubectl-buildkit");
        self.bench.tool.shell(&line, &[]).ok();
        assert!(self.tags(&image).contains(&tag.rsplit_once(':').expect("a tag").1.to_owned()));
    }
}

/// Runs the cells of a table, several at a time: most of them wait.
fn at_once<T: Sync>(cells: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(cell);
                }
            });
        }
    });
}

fn cells<'a>(faults: &'a [(Fault, &'a [&'a str])]) -> Vec<(&'static Service, Fault, &'a [&'a str])> {
    SERVICES
        .iter()
        .flat_map(|service| faults.iter().map(move |(fault, told)| (service, *fault, *told)))
        .collect()
}

/// Known before anything is signed, and before a build: `sign` and `build` ask the services by the same lines.
#[test]
#[ignore = "needs the rig"]
fn a_service_that_does_not_work_is_told_before_anything_starts() {
    let table = Table::new();
    let image = table.bench.image();
    at_once(&cells(&FAULTS), |(service, fault, told)| table.early(&image, service, *fault, told));
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for Service { flag, name, .. } in &SERVICES {
        let (ran, _) = table.sign(&image, flag, &format!("http://{closed}"));
        ran.fails(1, &[name, &closed.to_string(), "cannot be reached", "check the address"]);
    }
    assert_eq!(table.tags(&image), ["base"], "something was written");
}

/// What fails only after the push leaves no tag, says what to run, and that line finishes the job.
#[test]
#[ignore = "needs the rig"]
fn a_service_that_fails_later_leaves_no_tag_and_a_line_that_finishes() {
    let table = Table::new();
    at_once(&cells(&FAULTS), |(service, fault, told)| table.late(service, *fault, told));
    // In the service's own words, and an answer that is JSON and nothing else.
    let log = &SERVICES[1];
    let full = Fault::Answer(500, r#"{"code":13,"message":"no space left"}"#);
    table.late(log, full, &["answered 500 Internal Server Error: no space left"]);
    table.late(log, Fault::Answer(201, r#"{"logIndex":"1"}"#), &["is not a log entry"]);
}

/// Waiting has an end, at each service, at any time, and `--sign-timeout` sets it. What is waited for is that alone.
#[test]
#[ignore = "needs the rig"]
fn a_service_that_is_silent_is_not_waited_for_without_end() {
    let table = Table { flags: &["--sign-timeout", "6s"], ..Table::new() };
    let image = table.bench.image();
    let told: &[&str] = &["did not answer within 6s"];
    let silent = [(Fault::Silent, told)];
    let cells: Vec<_> = cells(&silent).into_iter().flat_map(|cell| [(true, cell), (false, cell)]).collect();
    at_once(&cells, |(early, (service, fault, told))| match early {
        true => table.early(&image, service, *fault, told),
        false => table.late(service, *fault, told),
    });
}

/// A build asks before it begins.
#[test]
#[ignore = "needs the rig"]
fn a_build_with_a_log_that_is_down_builds_nothing() {
    let table = Table::new();
    let bench = &table.bench;
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let tag = format!("{}/keyless-unbuilt:1", bench.host());
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let arguments = ["-t", &tag, "--push", "--sign", "--registry-http", bench.host(), "--identity-token"];
    let mut flags = bench.service_flags();
    flags[3] = format!("http://{closed}");
    let mut command = bench.tool.command("kubectl-build", &arguments);
    command.arg(&table.path).args(&flags).arg(context);
    let said = run(command).fails(1, &["the transparency log", &closed.to_string(), "nothing was built"]);
    // The Dockerfile may have been looked at meanwhile; nothing was run.
    assert!(!said.contains("load .dockerignore") && !said.contains("COPY"), "{said}");
    assert!(Seen::plain(&bench.rig).tags("keyless-unbuilt").is_empty());
}

/// A token that is good before the push and not after: the certificate authority is not even asked.
#[test]
#[ignore = "needs the rig"]
fn a_token_that_expires_on_the_way_is_told_with_a_line_that_finishes() {
    let table = Table::new();
    let bench = &table.bench;
    let image = bench.image();
    let expired = unsigned_token(&serde_json::json!({
        "iss": bench.services.get("OIDC_ISSUER"), "aud": "sigstore", "sub": "s", "exp": 1_000_000_000,
    }));
    let path = table.path.clone();
    let swap = expired.clone();
    // The token is read while the authority is asked whose it takes; the answer comes when that is over.
    let front = Front::watching(bench.services.get("FULCIO_URL"), "GET /api/v2/configuration", move || {
        std::thread::sleep(Duration::from_millis(700));
        std::fs::write(&path, &swap).expect("a file");
    });
    let (ran, tag) = table.sign(&image, "--fulcio-url", &front.url);
    leaks_nothing(&ran, &[&expired]);
    let said = ran.fails(4, &["expired", "get a new token", "was not moved", "finish with: "]);
    assert_eq!(table.tags(&image), ["base"]);
    std::fs::write(&table.path, &table.token).expect("a file");
    let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
    let line = line.replace("kubectl buildkit", "kubectl-buildkit");
    let line = line.replace(&front.url, bench.services.get("FULCIO_URL"));
    bench.tool.shell(&line, &[]).ok();
    assert!(table.tags(&image).contains(&tag.rsplit_once(':').expect("a tag").1.to_owned()));
}

/// A key's signature goes without the log where that was asked for, and says so.
#[test]
#[ignore = "needs the rig"]
fn a_log_that_fails_is_done_without_where_that_was_asked_for() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, _) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let entries = "POST /api/v2/log/entries";
    let rekor = Front::new(bench.services.get("REKOR_URL"), entries, 0, Fault::Answer(400, "{}"));
    let more = ["--cosign-key", key.to_str().expect("UTF-8"), "--rekor-url", &rekor.url];
    let with = |how: &[&str]| {
        let mut command = bench.sign(&image, &[], &[&more, how].concat());
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    with(&[]).fails(4, &["answered 400"]);
    let ran = with(&["--rekor=best-effort"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("is not in the log"), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
}

/// Nobody is there even when it is asked which protocol it speaks.
#[test]
#[ignore = "needs the rig"]
fn a_log_that_is_down_is_done_without_where_that_was_asked_for() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, public) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let log = format!("http://{closed}");
    let more = ["--cosign-key", key.to_str().expect("UTF-8"), "--rekor-url", &log];
    let with = |how: &[&str]| {
        let mut command = bench.sign(&image, &[], &[&more[..], how].concat());
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    with(&[]).fails(1, &["the transparency log", &closed.to_string(), "cannot be reached"]);
    let ran = with(&["--rekor=best-effort"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let unrecorded = format!("the signature is not in the log {log}");
    for told in [unrecorded.as_str(), "(--rekor=best-effort)", "cannot be reached"] {
        assert!(ran.stderr.contains(told), "{told:?} is not in:\n{}", ran.stderr);
    }
    bench.verifies(&ran, "cosign 3");
    let verify = |more: &[&str]| {
        let by = ["--key", public.to_str().expect("UTF-8")];
        let trusted = ["--trusted-root", bench.services.get("TRUSTED_ROOT")];
        let arguments = ["verify", "--registry-http", bench.host(), &image.reference];
        bench.tool.buildkit(&[&arguments[..], &by, &trusted, more].concat())
    };
    verify(&[]).ok();
    verify(&["--insecure-ignore-tlog=false"]).fails(12, &[]);
}
