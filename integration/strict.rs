//! The binary that users get against a strict registry of ours, in each way in which registries differ: what it writes,
//! what it says of it, and what verifiers find there. Builds are those of a real buildkitd, which pushes for itself.

#[path = "strict/build.rs"]
mod build;
#[path = "support/buildkitd.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod buildkitd;
#[path = "support/fake_front.rs"]
mod fake_front;
#[path = "support/fake_proxy.rs"]
mod fake_proxy;
#[path = "strict/index.rs"]
mod index;
#[path = "strict/rules.rs"]
mod rules;
#[path = "strict/sign.rs"]
mod sign;
#[path = "support/strict_registry.rs"]
mod strict_registry;
#[path = "support/tls.rs"]
mod tls;

use kubectl_build::registry::Descriptor;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use strict_registry::StrictRegistry;
use tempfile::TempDir;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SLSA: &str = "https://slsa.dev/provenance/v1";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A person's home, with the commands and two keys, `one.pem` and `two.pem`.
struct Home(TempDir);

/// What a command said.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a home"));
        for name in ["kubectl-build", "kubectl-buildkit"] {
            std::os::unix::fs::symlink(binary(), home.path().join(name)).expect("a link");
        }
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/signing/keys");
        for (name, key) in [("one.pem", "p256-pkcs8.pem"), ("two.pem", "rsa2048-pkcs8.pem")] {
            fs::copy(keys.join(key), home.path().join(name)).expect("a key");
        }
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Logs in: at a registry, or below a path of it.
    fn log_in(&self, logins: &[(&str, &str, &str)]) {
        let auths: serde_json::Map<String, Value> = logins
            .iter()
            .map(|(at, user, password)| ((*at).to_owned(), json!({ "username": user, "password": password })))
            .collect();
        fs::create_dir_all(self.path().join(".docker")).expect("a folder");
        let config = json!({ "auths": auths }).to_string();
        fs::write(self.path().join(".docker/config.json"), config).expect("a file");
    }

    /// Returns a command of ours, without a terminal to ask on.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.path().join(program);
        self.bare(
            "setsid",
            &[&["--wait", "timeout", "90", program.to_str().expect("UTF-8")], arguments].concat(),
        )
    }

    /// Returns a command as a process of its own, which may be killed.
    fn bare(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path()).env_clear();
        command.env("HOME", self.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Said {
        Said::of(&self.command(program, arguments).output().expect("it runs"))
    }

    /// Signs an image and what was attested of it, and tags it `1`.
    fn sign(&self, registry: &StrictRegistry, path: &str, image: &Descriptor, more: &[&str]) -> Said {
        let at = format!("{}/{path}", registry.host());
        let (tag, image) = (format!("{at}:1"), format!("{at}@{}", image.digest));
        let sign = ["sign", "--attestations", "--registry-http", registry.host(), "--tag", &tag, &image];
        self.run("kubectl-buildkit", &[&sign[..], more].concat())
    }

    /// Asserts that the tag `1` and its provenance verify by this key.
    #[track_caller]
    fn verifies(&self, registry: &StrictRegistry, path: &str, key: &str, more: &[&str]) {
        let tag = format!("{}/{path}:1", registry.host());
        for kind in [&[][..], &["--type", "slsaprovenance1"]] {
            let verify = ["verify", "--registry-http", registry.host(), "--key", key, &tag];
            self.run("kubectl-buildkit", &[&verify[..], kind, more].concat()).ok();
        }
    }
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts this exit code and that standard error holds all of these texts.
    #[track_caller]
    fn fails(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.says(texts)
    }

    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        }
        self
    }
}

fn binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
    let path = std::env::var_os("KUBECTL_BUILD_BIN");
    path.unwrap_or_else(|| env!("CARGO_BIN_EXE_kubectl-build").into()).into()
}

/// Waits until something has happened; whatever else, `child` is killed in the end.
#[track_caller]
fn until(child: &mut Child, what: &str, happened: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !happened() {
        let ended = child.try_wait().expect("our child");
        if ended.is_some() || Instant::now() > end {
            let _gone_already = child.kill();
            panic!("it ended, or 60 s went by, before this: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Puts an image for two platforms with their provenance into a repository, as BuildKit pushes it, and returns the index.
fn built(registry: &StrictRegistry, path: &str) -> Descriptor {
    let empty = registry.add_blob(path, b"{}");
    let (mut images, mut attestations) = (Vec::new(), Vec::new());
    for architecture in ["amd64", "arm64"] {
        let config = json!({ "os": "linux", "architecture": architecture }).to_string();
        let image = registry.add_manifest(
            path,
            &json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
                    "digest": registry.add_blob(path, config.as_bytes()).to_string(),
                },
            }),
        );
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": SLSA,
            "subject": [{ "name": "pkg:docker/app", "digest": { "sha256": image.digest.hex() } }],
            "predicate": { "buildDefinition": { "buildType": "https://example.com" }, "runDetails": {} },
        })
        .to_string();
        let subject =
            json!({ "mediaType": MANIFEST, "digest": image.digest.to_string(), "size": image.size });
        let attestation = registry.add_manifest(
            path,
            &json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "subject": subject,
                "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.to_string(), "size": 2,
                },
                "layers": [{
                    "mediaType": "application/vnd.in-toto+json", "size": statement.len(),
                    "digest": registry.add_blob(path, statement.as_bytes()).to_string(),
                    "annotations": { "in-toto.io/predicate-type": SLSA },
                }],
            }),
        );
        let entry = |of: &Descriptor, os: &str, architecture: &str, annotations: Value| {
            json!({
                "mediaType": MANIFEST, "digest": of.digest.to_string(), "size": of.size,
                "annotations": annotations, "platform": { "os": os, "architecture": architecture },
            })
        };
        images.push(entry(&image, "linux", architecture, json!({})));
        let about = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image.digest.to_string(),
        });
        attestations.push(entry(&attestation, "unknown", "unknown", about));
    }
    images.append(&mut attestations);
    registry.add_manifest(path, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images }))
}
