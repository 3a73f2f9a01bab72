//! Keys and passwords from every place that they can come from, and each format by itself.

use super::signing::cosign_accepts;
use crate::rig::Rig;
use crate::running::Pty;
use crate::seen::Seen;
use crate::tool::run;
use crate::{Local, fresh, hello};
use kubectl_build::sign::key::KeyFile;
use std::path::{Path, PathBuf};
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
    fn command(&self, tag: &str, more: &[&str]) -> std::process::Command {
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
