//! Builds by a real buildkitd, pushed, signed and attested.

use crate::buildkitd::{Buildkitd, peer};
use crate::fake_front;
use crate::strict_registry::{Access, Fault, Referrers, Seen, StrictRegistry, Switches};
use crate::{Home, Said, until};
use base64::Engine as _;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ROBOT: &str = "org+robot$ci";
const NEVER: Duration = Duration::from_secs(300);

/// A home with a context and a daemon of its own.
struct Bench {
    home: Home,
    daemon: Buildkitd,
    /// The daemon's, or that of somebody in front of it.
    socket: PathBuf,
    registry: StrictRegistry,
}

impl Bench {
    fn new(switches: Switches) -> Self {
        let home = Home::new();
        fs::create_dir(home.path().join("ctx")).expect("a folder");
        fs::write(home.path().join("ctx/Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").expect("a file");
        let daemon = Buildkitd::start();
        Self { home, socket: daemon.socket(), daemon, registry: StrictRegistry::start(switches) }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Returns the arguments that build for two platforms and push as `1` to these repositories.
    fn arguments(&self, paths: &[&str], more: &[&str]) -> Vec<String> {
        let (address, host) = (self.address(), self.registry.host());
        let mut arguments = vec!["--builder", &address, "--push", "--registry-http", host];
        arguments.extend(["--progress", "plain", "--platform", "linux/amd64,linux/arm64", "--cross"]);
        let tags: Vec<String> = paths.iter().map(|path| format!("{host}/{path}:1")).collect();
        arguments.extend(tags.iter().flat_map(|tag| ["-t", tag]));
        arguments.extend(more);
        arguments.push("ctx");
        arguments.into_iter().map(str::to_owned).collect()
    }

    fn build(&self, paths: &[&str], more: &[&str]) -> Said {
        let arguments = self.arguments(paths, more);
        self.home.run("kubectl-build", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn buildx(&self, arguments: &[&str]) {
        self.buildx_with(arguments, &[]);
    }

    fn buildx_with(&self, arguments: &[&str], variables: &[(&str, &str)]) {
        let mut command = Command::new(peer("buildx"));
        command.args(arguments).current_dir(self.home.path()).env_clear().env("HOME", self.home.path());
        command.env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
        let output = command.output().expect("buildx runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.home.path().join(name)).expect("a file")).expect("JSON")
    }

    /// Starts the same as a process that may be killed, its words going to a file.
    fn start(&self, paths: &[&str], more: &[&str], log: &Path) -> Child {
        let tool = self.home.path().join("kubectl-build");
        let mut command = self.home.bare(tool.to_str().expect("UTF-8"), &[]);
        command.args(self.arguments(paths, more)).stdout(Stdio::null());
        command.stderr(fs::File::create(log).expect("a file")).spawn().expect("it starts")
    }
}

const SIGNED: [&str; 4] = ["--sign", "--cosign-key", "one.pem", "--provenance"];

fn bearer() -> Switches {
    Switches { access: Access::Bearer(ROBOT.into(), "p".into()), ..Switches::default() }
}

#[rstest]
#[case::open(Switches::default())]
#[case::anonymous(Switches { access: Access::AnonymousPush, ..Switches::default() })]
#[case::basic_and_stored_elsewhere(Switches {
    access: Access::Basic(ROBOT.into(), "p".into()), blobs_elsewhere: true, uploads_elsewhere: true,
    ..Switches::default()
})]
#[case::tokens_that_end(Switches {
    token_life: Some(Duration::from_secs(2)), announced_life: Some(2), slow: Some(Duration::from_millis(150)),
    ..bearer()
})]
#[case::rate_limited(Switches {
    limited: Some(19), referrers: Referrers::Missing(404), ..Switches::default()
})]
#[case::immutable(Switches { immutable: true, referrers: Referrers::Missing(303), ..Switches::default() })]
#[ignore = "needs buildkitd"]
fn a_build_is_pushed_signed_and_attested(#[case] switches: Switches) {
    let bench = Bench::new(switches);
    let Bench { home, registry, .. } = &bench;
    if registry.switches().access != Access::AnonymousPush {
        home.log_in(&[(registry.host(), ROBOT, "p")]);
    }
    let tokens_end = registry.switches().token_life.is_some();
    if tokens_end {
        // Longer than a token lives: that of the first manifest ends on the way.
        let pushes = AtomicUsize::new(0);
        registry.set(move |method, path| {
            let is = method == "PUT" && path.contains("/manifests/");
            (is && pushes.fetch_add(1, Ordering::Relaxed) == 0).then_some(Fault::Late(Duration::from_secs(3)))
        });
    }
    bench.build(&["team/app"], &SIGNED).ok();
    registry.switches().slow = None;
    let attested = |call: &Seen| {
        call.method == "GET" && attestations(registry).iter().any(|it| call.target.ends_with(it))
    };
    let seen = registry.take_seen();
    assert!(!seen.iter().any(attested), "the builder has it: {seen:?}");
    came_from_the_daemon(registry, &seen);
    if tokens_end {
        went_on_with_another_token(&seen);
    }
    home.verifies(registry, "team/app", "one.pem", &[]);
    let tags = registry.tags("team/app");
    assert!(tags.values().all(|writes| *writes == 1), "each tag is written once: {tags:?}");
    assert_eq!(registry.breaches(), [""; 0]);
    let strayed = seen.into_iter().chain(registry.take_seen()).filter(|seen| seen.host == registry.storage());
    assert!(strayed.into_iter().all(|seen| seen.authorization.is_none()));
}

/// Asserts that layers and configs went from the daemon to the registry, and no way that leads through us.
#[track_caller]
fn came_from_the_daemon(registry: &StrictRegistry, seen: &[Seen]) {
    let is_ours = |call: &Seen| call.agent.starts_with("kubectl-build/");
    assert!(seen.iter().any(is_ours), "nobody says who he is: {seen:?}");
    let index = registry.json("team/app", "1");
    let entries = index["manifests"].as_array().expect("entries").iter();
    let images: Vec<_> = entries.filter(|entry| entry["platform"]["os"] == "linux").collect();
    assert_eq!(images.len(), 2, "{index:#}");
    for image in images {
        let manifest = registry.json("team/app", image["digest"].as_str().expect("a digest"));
        let layers = manifest["layers"].as_array().expect("layers");
        assert!(!layers.is_empty(), "{manifest:#}");
        for part in layers.iter().chain([&manifest["config"]]) {
            let digest = part["digest"].as_str().expect("a digest");
            // In the query that ends an upload its colon is an escape.
            let (_, hex) = digest.split_once(':').expect("an algorithm");
            let calls: Vec<&Seen> = seen.iter().filter(|call| call.target.contains(hex)).collect();
            assert!(calls.iter().any(|call| call.method == "PUT"), "nobody pushed {digest}: {seen:?}");
            assert!(!calls.iter().any(|call| is_ours(call)), "{digest} passed through us: {calls:?}");
        }
    }
}

/// Asserts that the push of the first manifest was refused for its token, and repeated with a new one.
#[track_caller]
fn went_on_with_another_token(seen: &[Seen]) {
    let is_push = |call: &Seen| call.method == "PUT" && call.target.contains("/manifests/");
    let first = seen.iter().position(is_push).expect("a manifest was pushed");
    let (first, later) = seen[first..].split_first().expect("it was found");
    let again = later.iter().position(|call| is_push(call) && call.target == first.target);
    let again = again.expect("the token had not ended");
    let asks = |call: &Seen| {
        let query = call.target.strip_prefix("/token?").unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.any(|(key, value)| key == "scope" && value == "repository:team/app:pull,push")
    };
    assert!(later[..again].iter().any(asks), "no new token: {:?}", &later[..again]);
    assert_ne!(later[again].authorization, first.authorization);
}

/// Returns the digests of BuildKit's attestation manifests of an image of ours, and of the statements in them.
fn attestations(registry: &StrictRegistry) -> Vec<String> {
    let index = registry.json("team/app", "1");
    let entries = index["manifests"].as_array().expect("entries").iter();
    let of = entries.filter(|entry| entry["platform"]["os"] == "unknown").flat_map(|entry| {
        let digest = entry["digest"].as_str().expect("a digest").to_owned();
        let manifest = registry.json("team/app", &digest);
        let layers = manifest["layers"].as_array().expect("layers").clone();
        let statements =
            layers.into_iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned());
        std::iter::once(digest).chain(statements)
    });
    let of: Vec<_> = of.collect();
    assert_eq!(of.len(), 4, "a manifest and a statement for each platform");
    of
}

/// An old daemon has no content service, and one that is short of room may have dropped what it exported.
#[rstest]
#[case::unknown("12")]
#[case::not_found("5")]
#[ignore = "needs buildkitd"]
fn what_the_builder_does_not_give_is_read_from_the_registry(#[case] status: &'static str) {
    let mut bench = Bench::new(Switches::default());
    bench.socket = bench.home.path().join("front.sock");
    let content = "/containerd.services.content.v1.Content/";
    let _front = fake_front::refusing(&bench.socket, bench.daemon.socket(), content, status);
    bench.build(&["team/app", "team/too"], &SIGNED).ok();
    let Bench { home, registry, .. } = &bench;
    for path in ["team/app", "team/too"] {
        home.verifies(registry, path, "one.pem", &[]);
    }
    let seen = registry.take_seen();
    for digest in attestations(registry) {
        let of = |call: &&Seen| {
            call.method == "GET" && call.target.starts_with("/v2/team/app/") && call.target.ends_with(&digest)
        };
        assert_eq!(seen.iter().filter(of).count(), 1, "{digest}");
    }
}

#[test]
#[ignore = "needs buildkitd"]
fn each_repository_has_credentials_of_its_own() {
    let bench = Bench::new(bearer());
    let Bench { home, registry, .. } = &bench;
    registry.switches().others.insert("other".into(), ("robot$other".into(), "q".into()));
    let other = format!("{}/other", registry.host());
    home.log_in(&[(registry.host(), ROBOT, "p"), (&other, "robot$other", "q")]);
    bench.build(&["team/app", "other/app"], &SIGNED).ok();
    for path in ["team/app", "other/app"] {
        home.verifies(registry, path, "one.pem", &[]);
    }
}

#[test]
#[ignore = "needs buildkitd"]
fn a_platform_keeps_the_version_and_features_that_it_was_asked_with() {
    let bench = Bench::new(Switches::default());
    bench.build(&["team/app"], &["--platform", "windows(10.0.17763+win32k)/x86_64"]).ok();
    let index = bench.registry.json("team/app", "1");
    let platforms = index["manifests"].as_array().expect("entries").iter().map(|entry| &entry["platform"]);
    let windows = json!({
        "os": "windows", "architecture": "amd64", "os.version": "10.0.17763", "os.features": ["win32k"],
    });
    let platforms: Vec<_> = platforms.collect();
    assert!(platforms.len() == 3 && platforms[2] == &windows, "{index:#}");
    let refused = bench.build(&["team/app"], &["--platform", "windows(10/amd64"]);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("(10.0.17763+win32k)/amd64"),
        "{}",
        refused.stderr
    );
}

/// The daemon asks for the password of a host, and docker's configuration may have those of its paths only.
#[test]
#[ignore = "needs buildkitd"]
fn passwords_of_paths_serve_a_registry_that_knows_nothing_but_passwords() {
    let bench =
        Bench::new(Switches { access: Access::Basic(ROBOT.into(), "p".into()), ..Switches::default() });
    let Bench { home, registry, .. } = &bench;
    registry.switches().others.insert("other".into(), ("robot$other".into(), "q".into()));
    let (team, other) = (format!("{}/team", registry.host()), format!("{}/other", registry.host()));
    home.log_in(&[(&team, ROBOT, "p"), (&other, "robot$other", "q")]);
    for path in ["team/app", "other/app"] {
        bench.build(&[path], &SIGNED).ok();
        home.verifies(registry, path, "one.pem", &[]);
    }
    let differ =
        format!("but those for {team}/app and {other}/app differ: push to them in builds of their own");
    bench.build(&["team/app", "other/app"], &SIGNED).fails(1, &[&differ]);

    // What is only pulled from is given the one that there is, as docker does it.
    home.log_in(&[(&team, ROBOT, "p")]);
    let base = format!("FROM {team}/app:1\nLABEL a=b\n");
    fs::write(home.path().join("ctx/Dockerfile"), base).expect("a file");
    let pulled = StrictRegistry::start(Switches::default());
    let (address, tag) = (bench.address(), format!("{}/app:1", pulled.host()));
    let push = ["--push", "--registry-http", pulled.host(), "--builder", &address, "-t", &tag, "ctx"];
    home.run("kubectl-build", &push).ok();
    assert!(pulled.digest("app", "1").is_some());
}

/// What is signed of a build is what was asked for: `mode=min` leaves out what people keep to themselves.
#[test]
#[ignore = "needs buildkitd"]
fn a_signed_predicate_is_the_exporters_own_and_tells_no_more() {
    let bench = Bench::new(Switches::default());
    let Bench { home, registry, .. } = &bench;
    let dockerfile = "FROM scratch\nARG WORD\nLABEL word=$WORD\nCOPY Dockerfile /\n";
    fs::write(home.path().join("ctx/Dockerfile"), dockerfile).expect("a file");
    let blob = |digest: &Value| {
        let digest = digest.as_str().and_then(|text| text.parse().ok()).expect("a digest");
        let bytes = registry.blob("team/app", &digest).expect("the blob is there");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    for (mode, tells) in [("min", false), ("max", true)] {
        let asked = format!("--provenance=mode={mode}");
        let sign = ["--sign", "--cosign-key", "one.pem", &asked, "--build-arg", "WORD=private-word"];
        bench.build(&["team/app"], &sign).ok();
        let statements = attestations(registry)
            .into_iter()
            .filter_map(|digest| registry.blob("team/app", &digest.parse().expect("a digest")));
        let theirs: Vec<Value> = statements
            .map(|bytes| serde_json::from_slice::<Value>(&bytes).expect("JSON")["predicate"].clone())
            .collect();
        let digest = registry.digest("team/app", "1").expect("the tag is there").to_string();
        let signed = registry.json("team/app", &format!("{}.att", digest.replace(':', "-")));
        let signed = signed["layers"].as_array().expect("layers").iter().map(|layer| {
            let payload = blob(&layer["digest"])["payload"].as_str().expect("a payload").to_owned();
            let payload = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
            serde_json::from_slice::<Value>(&payload).expect("JSON")["predicate"].clone()
        });
        let signed: Vec<Value> = signed.collect();
        assert!(signed.len() == 2 && signed.iter().all(|one| theirs.contains(one)), "{mode}");
        for predicate in signed {
            assert_eq!(predicate.to_string().contains("private-word"), tells, "{mode}: {predicate:#}");
            let steps = &predicate["buildDefinition"]["internalParameters"]["buildConfig"];
            assert_eq!(steps.is_object(), tells, "{mode}: {predicate:#}");
            assert_eq!(predicate["runDetails"]["builder"]["id"], bench.address());
        }
    }
}

/// A tag that cannot be written is the last that can go wrong: the image is pushed and signed by then.
#[test]
#[ignore = "needs buildkitd"]
fn results_are_written_only_when_everything_succeeded() {
    let bench = Bench::new(Switches::default());
    let Bench { home, registry, .. } = &bench;
    let names = ["iid", "meta.json", "url", "digest", "images"];
    for name in names.iter().chain(&["outputs"]) {
        fs::write(home.path().join(name), "before=1\n").expect("a file");
    }
    let files = [
        "--iidfile",
        "iid",
        "--metadata-file",
        "meta.json",
        "--image-url-file",
        "url",
        "--image-digest-file",
        "digest",
        "--images-file",
        "images",
    ];
    let build = || {
        let arguments = bench.arguments(&["team/app"], &[&SIGNED[..], &files].concat());
        let mut command =
            home.command("kubectl-build", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        Said::of(&command.env("GITHUB_OUTPUT", "outputs").output().expect("it runs"))
    };
    registry.set(|method, path| {
        (method == "PUT" && path.ends_with("/manifests/1")).then_some(Fault::Status(403))
    });
    let said = build().fails(4, &["team/app:1 was not moved"]);
    assert_eq!(said.stdout, "");
    let outputs = || fs::read_to_string(home.path().join("outputs")).expect("a file");
    assert!(names.iter().all(|name| !home.path().join(name).exists()) && outputs() == "before=1\n");
    registry.set(|_, _| None);
    build().ok();
    assert!(
        names.iter().all(|name| home.path().join(name).exists()) && outputs().starts_with("before=1\nimage=")
    );
}

/// The moments at which it is killed: the method, what the path holds, which of these calls is held up for it, and what
/// has happened by then.
const MOMENTS: [(&str, usize, &str); 4] = [
    ("/app/manifests/sha256:", 1, "the first platform was pushed"),
    (".sig", 0, "the index was pushed"),
    (".sig", 1, "one signature was written"),
    ("/app/manifests/1", 0, "all was signed"),
];

#[test]
#[ignore = "needs buildkitd"]
fn killed_at_any_moment_no_tag_points_at_something_unsigned_and_the_job_can_be_finished() {
    let bench = Bench::new(Switches::default());
    let Bench { home, registry, .. } = &bench;
    let host = registry.host();
    for (number, (held, nth, when)) in MOMENTS.into_iter().enumerate() {
        for again in [true, false] {
            if !again && number == 0 {
                // There is no image yet that another command could finish.
                continue;
            }
            let path = format!("{}{number}/app", if again { "again" } else { "resumed" });
            let signatures = format!("{host}/signatures/{path}");
            let more = ["--cosign-key", "two.pem", "--sign-scope", "all", "--sign-annotation", "a=b c"];
            let elsewhere = ["--signature-repository", &signatures, "--sign-container-identity", "proxy/app"];
            let more = [&SIGNED[..], &more, &elsewhere].concat();
            let log = home.path().join(path.replace('/', "-"));
            let (calls, of) = (AtomicUsize::new(0), path.clone());
            registry.take_seen();
            registry.set(move |method, at| {
                let is = method == "PUT" && at.contains(held) && at.contains(&of);
                (is && calls.fetch_add(1, Ordering::Relaxed) == nth).then_some(Fault::Late(NEVER))
            });
            let mut child = bench.start(&[&path], &more, &log);
            until(&mut child, when, || registry.count("PUT", held) > nth);
            if (held, nth) == (".sig", 1) {
                let written = || !registry.tags(&format!("signatures/{path}")).is_empty();
                until(&mut child, "the other signature is written", written);
            }
            let resume = || {
                let said = fs::read_to_string(&log).expect("a file");
                let mut lines = said.lines();
                lines.find_map(|line| Some(line.split_once("finish with: kubectl buildkit ")?.1.to_owned()))
            };
            if !again {
                until(&mut child, "the line that finishes it is printed", || resume().is_some());
            }
            child.kill().expect("it runs");
            child.wait().expect("our child");
            assert_eq!(registry.digest(&path, "1"), None, "after {when}");
            registry.set(|_, _| None);
            if again {
                bench.build(&[&path], &more).ok();
            } else {
                let resume = resume().expect("it was printed");
                let line = format!("{}/kubectl-buildkit {resume}", home.path().display());
                Said::of(&home.bare("/bin/sh", &["-c", &line]).output().expect("a shell")).ok();
            }
            let digest = registry.digest(&path, "1").expect("the tag is there");
            for key in ["one.pem", "two.pem"] {
                let verify = ["-a", "a=b c", "--signature-repository", &signatures];
                let tag = format!("{host}/{path}:1");
                let common = ["verify", "--registry-http", host, "--key", key, &tag];
                home.run("kubectl-buildkit", &[&common[..], &verify].concat()).ok();
            }
            let index = registry.json(&path, &digest.to_string());
            for entry in index["manifests"].as_array().expect("entries") {
                let entry = entry["digest"].as_str().unwrap().parse().expect("a digest");
                let bundles = registry.referrers(&format!("signatures/{path}"), &entry);
                assert!(bundles.len() >= 2, "killed when {when}: not all of it is signed: {bundles:?}");
            }
            assert_eq!(registry.tags(&path).keys().collect::<Vec<_>>(), ["1"], "signatures went elsewhere");
        }
    }
    assert_eq!(registry.breaches(), [""; 0]);
}

/// Our metadata beside buildx's own, for the same build by the same daemon.
#[test]
#[ignore = "needs buildkitd"]
fn the_metadata_file_says_what_buildx_says() {
    let bench = Bench::new(Switches::default());
    let Bench { home, registry, .. } = &bench;
    let read = |name| bench.json(name);
    bench.build(&["team/app"], &["--metadata-file", "ours.json", "--iidfile", "iid"]).ok();
    bench.buildx(&["create", "--name", "theirs", "--driver", "remote", &bench.address()]);
    let tag = format!("{}/team/theirs:1", registry.host());
    let build =
        ["build", "--builder", "theirs", "--push", "-t", &tag, "--provenance=false", "--metadata-file"];
    bench.buildx(&[&build[..], &["theirs.json", "--platform", "linux/amd64,linux/arm64", "ctx"]].concat());
    let (ours, theirs) = (read("ours.json"), read("theirs.json"));
    for key in ["containerimage.digest", "containerimage.descriptor"] {
        assert_eq!(ours[key], theirs[key], "{key}: {ours:#} {theirs:#}");
    }
    assert_eq!(ours["containerimage.digest"], fs::read_to_string(home.path().join("iid")).expect("a file"));
    assert_eq!(ours["image.name"], format!("{}/team/app:1", registry.host()));
    assert_eq!(theirs["image.name"], tag);
    let parts = |metadata: &Value| metadata["buildx.build.ref"].as_str().expect("a text").split('/').count();
    assert_eq!((parts(&ours), parts(&theirs)), (3, 3));
    assert_eq!(keys(&ours), keys(&theirs));
    for platform in ["linux/amd64", "linux/arm64"] {
        let of = |metadata: &Value| metadata[format!("buildx.build.provenance/{platform}")].clone();
        let (ours, theirs) = (of(&ours), of(&theirs));
        assert_eq!(keys(&ours), keys(&theirs));
        assert_eq!(ours["buildType"], theirs["buildType"]);
        for part in ["configSource", "environment"] {
            assert_eq!(ours["invocation"][part], theirs["invocation"][part]);
        }
    }
}

/// Returns the keys of an object but ours, in order.
fn keys(object: &Value) -> Vec<&str> {
    let keys = object.as_object().expect("a map").keys().map(String::as_str);
    keys.filter(|key| *key != "kubectl-build").collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the warnings without their steps, whose digests depend on the client; buildx has them in any order.
fn warnings_of(metadata: &Value) -> Vec<Value> {
    let mut warnings = metadata["buildx.build.warnings"].as_array().cloned().unwrap_or_default();
    for warning in &mut warnings {
        assert!(warning["vertex"].take().as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    }
    warnings.sort_by_key(|warning| warning["short"].to_string());
    warnings
}

#[rstest]
#[case::all_and_warnings("max", "1")]
#[case::neither("disabled", "false")]
#[ignore = "needs buildkitd"]
fn the_metadata_file_says_as_much_as_buildx_is_told_to(#[case] provenance: &str, #[case] warnings: &str) {
    let bench = Bench::new(Switches::default());
    fs::write(bench.home.path().join("ctx/Dockerfile"), "FROM scratch as IT\nCOPY Dockerfile /\n")
        .expect("a file");
    let variables = [("BUILDX_METADATA_PROVENANCE", provenance), ("BUILDX_METADATA_WARNINGS", warnings)];
    bench.buildx(&["create", "--name", "theirs", "--driver", "remote", &bench.address()]);
    for version in ["version=v0.2", "version=v1"] {
        let asked = format!("--provenance={version},builder-id=b");
        let common = [&asked, "ctx", "--metadata-file"];
        let address = bench.address();
        let ours = [&["--builder", &address][..], &common, &["ours.json"]].concat();
        Said::of(&bench.home.command("kubectl-build", &ours).envs(variables).output().expect("it runs")).ok();
        let theirs =
            [&["build", "--builder", "theirs", "--output", "type=image"][..], &common, &["theirs.json"]];
        bench.buildx_with(&theirs.concat(), &variables);
        let (ours, theirs) = (bench.json("ours.json"), bench.json("theirs.json"));
        assert_eq!(keys(&ours), keys(&theirs));
        assert_eq!(warnings_of(&ours), warnings_of(&theirs));
        if provenance == "max" {
            assert_eq!(warnings_of(&ours).len(), 2, "{ours:#}");
            let (ours, theirs) = (&ours["buildx.build.provenance"], &theirs["buildx.build.provenance"]);
            assert_eq!(keys(ours), keys(theirs));
            assert_eq!(keys(&ours["metadata"]), keys(&theirs["metadata"]));
            for part in ["completeness", "reproducible"] {
                assert_eq!(ours["metadata"][part], theirs["metadata"][part]);
            }
            let steps = |of: &Value| of["buildConfig"]["llbDefinition"].clone();
            assert_eq!(steps(ours), steps(theirs));
        }
    }
    let mut command =
        bench.home.command("kubectl-build", &["--builder", "unix:///x", "--metadata-file", "m", "ctx"]);
    let refused = Said::of(&command.env("BUILDX_METADATA_PROVENANCE", "all").output().expect("it runs"));
    assert!(
        refused.code == Some(2) && refused.stderr.contains("min, max and disabled"),
        "{}",
        refused.stderr
    );
}
