//! The signing services, images to sign, tokens, and cosign.

use crate::rig::{Rig, text};
use crate::services::Services;
use crate::tool::{Ran, Tool, run};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kubectl_build::sign::key::KeyFile;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A home, the services, and a repository.
pub struct Bench {
    pub rig: Rig,
    pub services: Services,
    pub tool: Tool,
    repository: String,
}

/// An image in the registry that nobody has signed.
pub struct Image {
    pub reference: String,
    pub repository: String,
    pub digest: String,
}

impl Bench {
    /// `registry` is a setting of the cluster, `REGISTRY` or `REGISTRY_REFERRERS`.
    pub fn new(namespace: &str, registry: &str) -> Self {
        let rig = Rig::load();
        let tool = Tool::new(&rig, namespace);
        let repository = format!("{}/keyless", rig.get(registry));
        Self { services: Services::load(), tool, rig, repository }
    }

    /// Puts an image of its own into the registry, without a tag.
    pub fn image(&self) -> Image {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let repository = format!("{}-{now}-{}", self.repository, COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = self.rig.command(self.rig.peer("crane"));
        command.args(["copy", "--insecure", self.rig.get("BASE_REF"), &format!("{repository}:base")]);
        let output = command.output().expect("crane runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut command = self.rig.command(self.rig.peer("crane"));
        let output = command
            .args(["digest", "--insecure", &format!("{repository}:base")])
            .output()
            .expect("crane runs");
        let digest = text(&output.stdout).trim().to_owned();
        Image { reference: format!("{repository}@{digest}"), repository, digest }
    }

    /// Returns a token of the cluster for one of its service accounts.
    pub fn cluster_token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let arguments =
            ["-n", namespace, "create", "token", account, "--audience", audience, "--duration", "10m"];
        self.rig.kubectl(&arguments).trim().to_owned()
    }

    /// Returns the flags that name services and trust.
    pub fn service_flags(&self) -> Vec<String> {
        self.services.service_flags()
    }

    /// Returns the same as the files that cosign made.
    pub fn config_flags(&self) -> Vec<String> {
        self.services.config_flags()
    }

    /// Returns a `sign` command for this image.
    pub fn sign(&self, image: &Image, flags: &[String], more: &[&str]) -> Command {
        let mut command = self.tool.command("kubectl-buildkit", &["sign", "--registry-http", self.host()]);
        command.args(flags).args(more).arg(&image.reference);
        command
    }

    /// Returns the registry's host.
    pub fn host(&self) -> &str {
        self.repository.split('/').next().expect("a host")
    }

    /// Runs a line that was printed to verify with, with the peers on the PATH.
    #[track_caller]
    pub fn verifies(&self, ran: &Ran, generation: &str) {
        let prefix = format!("verify with {generation}: ");
        let lines: Vec<_> = ran.stderr.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        assert!(!lines.is_empty(), "no line for {generation}:\n{}", ran.stderr);
        for line in lines {
            let peer = if generation == "cosign 2" { "cosign2" } else { "cosign" };
            let line = line.replace("cosign verify", &format!("{} verify", self.rig.peer(peer).display()));
            let verified = self.tool.shell(&line, &[]);
            assert_eq!(verified.code, 0, "{line}\n{}", verified.stderr);
        }
    }

    /// Puts what the printed lines call `cosign.pub` and `trusted-root.json` where they are run.
    pub fn has_halves(&self, key: &str) {
        let pem = std::fs::read(key).expect("a key");
        let KeyFile::Plain(key) = KeyFile::parse(&pem).expect("a key") else { panic!("it is plain") };
        self.tool.file("cosign.pub", key.public().to_pem());
        let root = std::fs::read(self.services.get("TRUSTED_ROOT")).expect("a trust root");
        self.tool.file("trusted-root.json", root);
    }

    /// Returns the flags by which a verifier asks for an identity, ours and cosign's alike.
    pub fn asked<'a>(&'a self, name: &'a str, issuer: &'a str) -> [&'a str; 7] {
        [
            "--certificate-identity",
            name,
            "--certificate-oidc-issuer",
            issuer,
            "--trusted-root",
            self.services.get("TRUSTED_ROOT"),
            "--insecure-ignore-sct",
        ]
    }

    /// Runs cosign's verification and returns what came of it.
    pub fn cosign(&self, peer: &str, arguments: &[&str], image: &str) -> Ran {
        let mut command = self.rig.command(self.rig.peer(peer));
        command.arg("verify").args(arguments).arg(image);
        command.current_dir(self.tool.home()).env("HOME", self.tool.home());
        run(command)
    }
}

/// Returns the claims of a token.
pub fn claims(token: &str) -> serde_json::Value {
    let claims = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

/// Returns a token with these claims that nobody signed: for what is checked before anybody is asked.
pub fn unsigned_token(claims: &serde_json::Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(&claims.to_string()), part("no signature"))
}

/// Asserts that no secret stands in what was printed.
#[track_caller]
pub fn leaks_nothing(ran: &Ran, secrets: &[&str]) {
    for secret in secrets {
        for part in secret.split('.').filter(|part| part.len() > 20) {
            assert!(!ran.stderr.contains(part) && !ran.stdout.contains(part), "a secret in:\n{}", ran.stderr);
        }
    }
}
