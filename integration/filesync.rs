//! The session against a real buildkitd: for one tree, what it builds from our transfer is what it builds from
//! buildctl's, to the digest.

#[path = "support/buildkitd.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod buildkitd;
#[path = "support/tree.rs"]
mod tree;

use buildkitd::{Buildkitd, peer};
use kubectl_build::buildkit::Client;
use kubectl_build::buildkit::solve::{self, DOCKERFILE, Exporter, SolveError, SolveRequest};
use kubectl_build::event::{Event, Events};
use kubectl_build::session::filesync::{FileSync, LocalDir, SyncError};
use kubectl_build::session::{Session, SessionOptions};
use kubectl_build::task::Cancel;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tree::every_kind;

const EPOCH: &str = "1700000000";

/// What one build of ours gave.
struct Built {
    reply: Result<BTreeMap<String, String>, SolveError>,
    failed: Option<SyncError>,
    /// Bytes of packets, as the daemon counts them.
    transferred: u64,
}

impl Built {
    fn digest(self) -> String {
        let reply = self.reply.unwrap_or_else(|error| panic!("{error:?}, {:?}", self.failed));
        reply["containerimage.digest"].clone()
    }
}

async fn ours(daemon: &Buildkitd, context: &Path, shared_key: &str) -> Built {
    let client = Client::unix(&daemon.socket()).await.expect("its socket");
    client.wait_ready(Duration::from_secs(30)).await.expect("an answer");
    let (events, mut received) = Events::channel();
    let local = |name: &str| LocalDir { name: name.to_owned(), root: context.to_owned() };
    let sync = FileSync::new(vec![local("context"), local("dockerfile")], events.clone());
    let report = sync.report();
    let options = SessionOptions {
        shared_key: shared_key.to_owned(),
        attachables: vec![Box::new(sync)],
        events: events.clone(),
    };
    let mut session = Session::open(client.control(), options).await.expect("a session");
    let attrs = [("build-arg:SOURCE_DATE_EPOCH", EPOCH), ("no-cache", "")];
    let exporter = [("name", "ours"), ("rewrite-timestamp", "true")];
    let owned = |attrs: &[(&str, &str)]| -> BTreeMap<String, String> {
        attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let request = SolveRequest {
        reference: solve::random_reference(),
        session_id: session.id().to_owned(),
        frontend: DOCKERFILE.to_owned(),
        attrs: owned(&attrs),
        exporters: vec![Exporter { kind: "image".to_owned(), attrs: owned(&exporter) }],
        ..SolveRequest::default()
    };
    let cancel = Cancel::new();
    let reply = tokio::select! {
        reply = solve::solve(&client, request, &events, &cancel) => reply,
        reason = session.closed() => panic!("{reason}"),
        () = tokio::time::sleep(Duration::from_secs(120)) => panic!("the build does not end:\n{}", daemon.log()),
    };
    session.close().await;
    let mut counts = BTreeMap::new();
    while let Ok(event) = received.try_recv() {
        if let Event::Counter { item, done, .. } = event
            && item.starts_with("transferring context")
        {
            counts.insert(item, done);
        }
    }
    Built { reply, failed: report.take(), transferred: counts.into_values().sum() }
}

fn buildctl(daemon: &Buildkitd, context: &Path) -> String {
    let metadata = tempfile::NamedTempFile::new().expect("a file");
    let directory = |name: &str| {
        let mut argument = std::ffi::OsString::from(format!("--local={name}="));
        argument.push(context);
        argument
    };
    let output = Command::new(peer("buildctl"))
        .arg(format!("--addr=unix://{}", daemon.socket().display()))
        .args(["build", "--progress=plain", "--frontend=dockerfile.v0", "--no-cache"])
        .args([directory("context"), directory("dockerfile")])
        .arg(format!("--opt=build-arg:SOURCE_DATE_EPOCH={EPOCH}"))
        .args(["--output=type=image,name=theirs,rewrite-timestamp=true", "--metadata-file"])
        .arg(metadata.path())
        .output()
        .expect("buildctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = fs::read(metadata.path()).expect("its metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn the_digest_is_that_of_buildctl() {
    let context = every_kind();
    let daemon = Buildkitd::start();
    // Another shared key than buildctl's, so that the daemon takes the whole tree from both.
    let built = ours(&daemon, context.path(), "ours").await.digest();
    assert_eq!(built, buildctl(&daemon, context.path()));

    // Again, after changes: now the daemon compares with what it has.
    fs::remove_file(context.path().join("empty")).expect("to remove");
    fs::write(context.path().join("dir.txt"), "changed").expect("to change");
    fs::create_dir(context.path().join("empty")).expect("a directory in its place");
    fs::write(context.path().join("empty/new"), "new").expect("a file");
    fs::remove_file(context.path().join("link")).expect("to remove");
    symlink("dir", context.path().join("link")).expect("another target");
    let rebuilt = ours(&daemon, context.path(), "ours").await.digest();
    assert_ne!(rebuilt, built);
    assert_eq!(rebuilt, buildctl(&daemon, context.path()));
    let fresh = Buildkitd::start();
    assert_eq!(rebuilt, buildctl(&fresh, context.path()), "as if it had never had the old tree");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn only_what_is_copied_is_transferred() {
    let context = tempfile::tempdir().expect("a folder");
    let at = |path: &str| context.path().join(path);
    fs::create_dir_all(at("real/deep")).expect("directories");
    fs::write(at("Dockerfile"), "FROM scratch\nCOPY link/file w*d /\n").expect("a Dockerfile");
    fs::write(at("real/deep/file"), "contents").expect("a file");
    fs::write(at("wild"), "card").expect("a file");
    fs::write(at("large"), vec![1; 8 << 20]).expect("a file that nobody wants");
    symlink("real/deep", at("link")).expect("a link");
    let daemon = Buildkitd::start();
    let built = ours(&daemon, context.path(), "ours").await;
    assert!(built.transferred < 100_000, "{} bytes", built.transferred);
    assert_eq!(built.digest(), buildctl(&daemon, context.path()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn what_cannot_be_read_fails_by_name() {
    let context = tempfile::tempdir().expect("a folder");
    fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY . /\n").expect("a Dockerfile");
    // A sysfs file that not even root may read, at the place of an ordinary one.
    fs::write(context.path().join("secret"), "").expect("a file");
    let secret = context.path().join("secret");
    let mounted = |arguments: &[&OsStr]| {
        let done = Command::new(arguments[0]).args(&arguments[1..]).status().expect("it runs");
        assert!(done.success(), "{arguments:?}");
    };
    let write_only = OsStr::new("/sys/bus/platform/drivers_probe");
    mounted(&[OsStr::new("mount"), OsStr::new("--bind"), write_only, secret.as_os_str()]);
    let daemon = Buildkitd::start();
    let built = ours(&daemon, context.path(), "ours").await;
    mounted(&[OsStr::new("umount"), secret.as_os_str()]);
    let Err(SolveError::Failed(failure)) = built.reply else { panic!("{:?}", built.reply) };
    let expected = format!("cannot open {}: Permission denied (os error 13)", secret.display());
    assert!(failure.message.contains(&expected), "{}", failure.message);
    let Some(SyncError::Io { path, .. }) = built.failed else { panic!("{:?}", built.failed) };
    assert_eq!(path, secret);
}
