//! Keys and passwords from every place that they can come from, and each format by itself.

use super::signing::cosign_accepts;
use crate::rig::{Rig, text};
use crate::running::Pty;
use crate::seen::Seen;
use crate::tool::{Ran, Tool, run};
use crate::{Local, fresh, hello};
use kubectl_build::sign::key::KeyFile;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A daemon, a registry without the referrers API, and the image's name in it.
struct Site<'a> {
    local: Local,
    seen: Seen<'a>,
    registry: &'a str,
    name: String,
}

impl<'a> Site<'a> {
    fn new(rig: &'a Rig, purpose: &str) -> Self {
        let (local, seen) = (Local::start(rig), Seen::plain(rig));
        Self { local, seen, registry: rig.get("REGISTRY"), name: fresh(purpose) }
    }

    /// Returns the command of a signed push of an image that is the tag's own.
    fn command(&self, tag: &str, more: &[&str]) -> Command {
        let reference = format!("{}/{}:{tag}", self.registry, self.name);
        let label = format!("tag={tag}");
        let context = hello();
        let arguments =
            ["--push", "--sign", "-t", &reference, "--label", &label, "--registry-http", self.registry];
        let context = [context.to_str().expect("UTF-8")];
        self.local.command(&[&arguments[..], more, &context].concat())
    }

    /// Asserts what of the two formats is there beside a tag, and returns the image.
    #[track_caller]
    fn formats(&self, tag: &str, legacy: bool, bundle: bool) -> String {
        let digest = self.seen.digest(&self.name, tag).expect("the tag is there");
        let place = digest.replace(':', "-");
        let there = |tag: &str| self.seen.manifest(&self.name, tag).is_some();
        assert_eq!((there(&format!("{place}.sig")), there(&place)), (legacy, bundle), "{tag}");
        format!("{}/{}@{digest}", self.registry, self.name)
    }
}

/// Returns the path of a plain key of the fixtures.
fn plain_key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("integration/fixtures/signing/keys/{name}.pem"))
}

/// Returns an image that nobody has signed, by its digest.
fn unsigned(rig: &Rig, purpose: &str) -> String {
    let (registry, name) = (rig.get("REGISTRY"), fresh(purpose));
    let base = format!("{registry}/base:busybox");
    let tag = format!("{registry}/{name}:1");
    let copied = rig.command(rig.peer("crane")).args(["copy", "--insecure", &base, &tag]).output();
    assert!(copied.expect("crane runs").status.success());
    let digest = Seen::plain(rig).digest(&name, "1").expect("it was copied");
    format!("{registry}/{name}@{digest}")
}

#[test]
#[ignore = "needs the rig"]
fn plain_keys_from_files_and_the_environment_sign_in_the_format_that_is_asked_for() {
    let rig = Rig::load();
    let site = Site::new(&rig, "plain");
    let path = plain_key("p256-pkcs8");
    let pem = std::fs::read_to_string(&path).expect("a fixture");
    let KeyFile::Plain(key) = KeyFile::parse(pem.as_bytes()).expect("a key") else { panic!("it is plain") };
    let public = site.local.tool.file("plain.pub", key.public().to_pem());
    let path = path.to_str().expect("UTF-8");
    let cases: [(&str, &[&str], bool, bool); 3] = [
        ("legacy", &["--cosign-key", "env://PEM", "--signature-format", "legacy"], true, false),
        ("bundle", &["--cosign-key", path, "--signature-format=bundle"], false, true),
        ("both", &["--key", "env://PEM"], true, true),
    ];
    for (tag, arguments, legacy, bundle) in cases {
        let mut command = site.command(tag, arguments);
        command.env("PEM", &pem);
        run(command).ok();
        let image = site.formats(tag, legacy, bundle);
        cosign_accepts(&site.local.tool, "cosign", &public, &image);
        if legacy {
            cosign_accepts(&site.local.tool, "cosign2", &public, &image);
        }
    }
    run(site.command("unset", &["--cosign-key", "env://UNSET"])).fails(2, &["env://UNSET", "is not set"]);
}

#[test]
#[ignore = "needs the rig"]
fn passwords_come_from_a_file_or_from_who_is_asked() {
    let rig = Rig::load();
    let site = Site::new(&rig, "password");
    let (key, public) = site.local.tool.key_pair("k", "s3cret!");
    let key = key.to_str().expect("UTF-8");
    // As `echo` writes it. The file wins over the variable.
    site.local.tool.file("right", "s3cret!\n");
    site.local.tool.file("wrong", "not it\n");
    let from = |tag: &str, file: &str| {
        let mut command = site.command(tag, &["--cosign-key", key, "--cosign-password-file", file]);
        command.env("COSIGN_PASSWORD", if file == "right" { "not it" } else { "s3cret!" });
        run(command)
    };
    from("file", "right").ok();
    cosign_accepts(&site.local.tool, "cosign", &public, &site.formats("file", true, true));
    from("wrong", "wrong")
        .fails(2, &["the password does not decrypt the key", "came from --cosign-password-file"]);
    from("absent", "absent").fails(2, &["--cosign-password-file", "absent"]);

    for (tag, password, code) in [("asked", "s3cret!", 0), ("mistaken", "not it", 2)] {
        let mut pty = Pty::start(site.command(tag, &["--cosign-key", key]));
        pty.until("k.key: ");
        pty.type_in(format!("{password}\n").as_bytes());
        assert_eq!(pty.ends(Instant::now(), Duration::from_secs(60)), code, "{}", pty.screen().contents());
        pty.assert_in_order();
        let screen = pty.screen().contents();
        assert!(!screen.contains(password), "nobody else reads it: {screen}");
        let expected = if code == 0 { "cosign verify --key" } else { "the password came from the prompt" };
        assert!(screen.contains(expected), "{screen}");
    }
    cosign_accepts(&site.local.tool, "cosign", &public, &site.formats("asked", true, true));
    assert_eq!(site.seen.digest(&site.name, "mistaken"), None);
}

/// Standard input may be a context, or the rest of the script that calls: who has no terminal isn't asked.
#[test]
#[ignore = "needs the rig"]
fn a_password_is_never_read_from_standard_input() {
    let rig = Rig::load();
    let site = Site::new(&rig, "stdin");
    let (key, _) = site.local.tool.key_pair("k", "s3cret!");
    let command = site.command("piped", &["--cosign-key", key.to_str().expect("UTF-8")]);
    let (stdin, mut pipe) = std::io::pipe().expect("a pipe");
    pipe.write_all(b"s3cret!\n").expect("there is room in it");
    drop(pipe);
    // Without a controlling terminal, whoever runs the tests.
    let mut session = Command::new("setsid");
    session.arg("--wait").arg(command.get_program()).args(command.get_args()).env_clear();
    session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    session.current_dir(command.get_current_dir().expect("it is set"));
    let ran = Ran::of(&session.stdin(stdin).output().expect("setsid is there"));
    ran.fails(2, &["there is no password"]);
    assert_eq!(site.seen.digest(&site.name, "piped"), None);
}

/// The Secret that we make is the one that cosign makes: both tools sign and verify with it, and it can't be changed.
#[test]
#[ignore = "needs the rig"]
fn a_key_is_made_in_a_secret() {
    let rig = Rig::load();
    let space = rig.namespace("key-secret");
    let tool = Tool::new(&rig, space.name());
    let reference = format!("k8s://{}/signing", space.name());
    let generate = || {
        let mut command = tool.command("kubectl-buildkit", &["key", "generate", &reference]);
        command.env("COSIGN_PASSWORD", "s3cret!");
        run(command)
    };
    assert_eq!(generate().ok(), format!("{reference}\ncosign.pub\n"));
    std::fs::remove_file(tool.home().join("cosign.pub")).expect("it was written");
    generate().fails(2, &["is there already", "no key is replaced"]);
    assert!(!tool.home().join("cosign.pub").exists(), "nothing is half written");
    let mut cosign = rig.command(rig.peer("cosign"));
    cosign.args(["generate-key-pair", &format!("k8s://{}/cosigns", space.name())]);
    let output =
        cosign.env("COSIGN_PASSWORD", "s3cret!").current_dir(tool.home()).output().expect("cosign runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shape = |name: &str| {
        let secret = space.kubectl(&["get", "secret", name, "-o", "json"]);
        let secret: serde_json::Value = serde_json::from_str(&secret).expect("JSON");
        let keys: Vec<String> = secret["data"].as_object().expect("entries").keys().cloned().collect();
        let password = secret["data"]["cosign.password"].clone();
        (secret["type"].clone(), secret["immutable"].clone(), keys, password)
    };
    assert_eq!(shape("signing"), shape("cosigns"));

    let registry = rig.get("REGISTRY");
    let image = unsigned(&rig, "key-secret");
    tool.buildkit(&["sign", "--cosign-key", &reference, "--registry-http", registry, &image]).ok();
    let lines = [
        format!("cosign verify --key {reference} --insecure-ignore-tlog {image}"),
        format!(
            "cosign sign --key {reference} --new-bundle-format=false --use-signing-config=false --tlog-upload=false -y -a by=cosign {image}"
        ),
    ];
    let reached = [rig.get("APISERVER").trim_start_matches("https://"), registry];
    let reached = reached.map(|address| address.rsplit_once(':').expect("a port").0).join(",");
    for line in lines {
        let mut cosign = rig.command(rig.peer("cosign"));
        cosign
            .args(line.split(' ').skip(1))
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", &reached);
        let output = cosign.output().expect("cosign runs");
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    let found = tool
        .buildkit(&["verify", "--key", &reference, "--registry-http", registry, "-a", "by=cosign", &image])
        .ok();
    assert_eq!(found.matches("cosign container image signature").count(), 1, "{found}");
    // A verifier may know no more than the public half.
    let public = space.kubectl(&["get", "secret", "signing", "-o", "jsonpath={.data.cosign\\.pub}"]);
    let patch = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"public"}},"data":{{"cosign.pub":"{public}"}}}}"#
    );
    let file = tool.file("public.json", patch);
    space.kubectl(&["create", "-f", file.to_str().expect("UTF-8")]);
    let half = format!("k8s://{}/public", space.name());
    tool.buildkit(&["verify", "--key", &half, "--registry-http", registry, &image]).ok();
    tool.buildkit(&["sign", "--cosign-key", &half, "--registry-http", registry, &image])
        .fails(2, &["no entry `cosign.key`", "it has `cosign.pub`"]);
}

/// The variable may be of another key; the entry belongs to the key beside it.
#[test]
#[ignore = "needs the rig"]
fn a_secrets_own_password_goes_before_the_variable_which_counts_without_it() {
    let rig = Rig::load();
    let space = rig.namespace("key-password");
    let tool = Tool::new(&rig, space.name());
    let registry = rig.get("REGISTRY");
    let image = unsigned(&rig, "key-password");
    let with = |password: &str, arguments: &[&str]| {
        let mut command = tool.command("kubectl-buildkit", arguments);
        command.env("COSIGN_PASSWORD", password);
        run(command)
    };
    let sign = |secret: &str, password: &str| {
        let key = format!("k8s://{}/{secret}", space.name());
        with(password, &["sign", "--cosign-key", &key, "--registry-http", registry, &image])
    };
    with("s3cret!", &["key", "generate", &format!("k8s://{}/whole", space.name())]).ok();
    sign("whole", "not it").ok();
    // Made by hand, of the key alone.
    let key = space.kubectl(&["get", "secret", "whole", "-o", "jsonpath={.data.cosign\\.key}"]);
    let bare = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"bare"}},"data":{{"cosign.key":"{key}"}}}}"#
    );
    let file = tool.file("bare.json", bare);
    space.kubectl(&["create", "-f", file.to_str().expect("UTF-8")]);
    sign("bare", "not it").fails(2, &["the password does not decrypt the key", "COSIGN_PASSWORD"]);
    sign("bare", "s3cret!").ok();
}

/// Who makes a key types its password twice, and the same.
#[test]
#[ignore = "needs the rig"]
fn a_new_keys_password_is_asked_for_twice() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let generate = |answers: [&str; 2], code: i32| {
        let mut pty = Pty::start(tool.command("kubectl-buildkit", &["key", "generate"]));
        pty.until("Password for the new key: ");
        pty.type_in(format!("{}\n", answers[0]).as_bytes());
        pty.until("The same again: ");
        pty.type_in(format!("{}\n", answers[1]).as_bytes());
        assert_eq!(pty.ends(Instant::now(), Duration::from_secs(30)), code, "{}", pty.screen().contents());
        pty.assert_in_order();
        assert!(!pty.screen().contents().contains("s3cret!"), "nobody else reads it");
    };
    generate(["s3cret!", "s3cret"], 2);
    assert!(!tool.home().join("cosign.key").exists());
    generate(["s3cret!", "s3cret!"], 0);
    let pem = std::fs::read(tool.home().join("cosign.key")).expect("a key");
    let KeyFile::Encrypted(key) = KeyFile::parse(&pem).expect("a key") else { panic!("it is encrypted") };
    assert!(key.decrypt(&"s3cret!".into()).is_ok());
    // One that is there is replaced for a yes alone.
    for (answer, replaced) in [("n\n", false), ("y\n", true)] {
        let mut command = tool.command("kubectl-buildkit", &["key", "generate"]);
        command.env("COSIGN_PASSWORD", "");
        let mut pty = Pty::start(command);
        pty.until("Replace? [y/N]");
        pty.type_in(answer.as_bytes());
        assert_eq!(pty.ends(Instant::now(), Duration::from_secs(30)), if replaced { 0 } else { 2 });
        assert_eq!(std::fs::read(tool.home().join("cosign.key")).expect("a key") != pem, replaced);
    }
}
