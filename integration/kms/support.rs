//! A registry with an image, the tool in a home of its own, and cosign beside it.

use crate::peers::peer;
use crate::registries::Registry;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kubectl_build::registry::credentials::Resolver;
use kubectl_build::registry::{Client, Descriptor, Digest, Options, Repository};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A plugin as cosign's protocol has it, with OpenSSL behind: publicKey, signMessage and verifySignature.
pub(crate) const PLUGIN: &str = r#"#!/bin/sh
[ "$1" = v1 ] || { echo "protocol $1" >&2; exit 1; }
echo "a line for people" >&2
case "$2" in *'"keyResourceID":"slot/1"'*) ;; *) echo '{"errorMessage":"no such slot"}'; exit 1 ;; esac
case "$2" in
  *'"methodName":"publicKey"'*) printf '{"publicKey":{"publicKeyPEM":"%s"}}' "$(base64 -w0 plugin.pub)" ;;
  *'"methodName":"signMessage"'*)
    printf '{"signMessage":{"signature":"%s"}}' "$(openssl dgst -sha256 -sign plugin.key | base64 -w0)" ;;
  *'"methodName":"verifySignature"'*)
    echo "$2" | sed 's/.*"signature":"\([^"]*\)".*/\1/' | base64 -d >signature.$$
    if openssl dgst -sha256 -verify plugin.pub -signature signature.$$ >/dev/null; then echo '{"verifySignature":{}}'
    else echo '{"errorMessage":"not mine"}'; fi ;;
  *) echo '{"errorMessage":"unknown method"}' ;;
esac
"#;

/// Makes the keys that it signs with.
pub(crate) const PLUGIN_KEYS: &str = "openssl ecparam -name prime256v1 -genkey -noout | \
    openssl pkcs8 -topk8 -nocrypt -out plugin.key && openssl pkey -in plugin.key -pubout -out plugin.pub";

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(mut command: Command) -> Self {
        Self::of_output(&command.stdin(Stdio::null()).output().expect("it starts"))
    }

    pub(crate) fn of_output(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts this exit code and that all of these words were said.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in:\n{}", self.stderr);
        }
        self
    }

    /// Asserts that every signature was there before.
    #[track_caller]
    pub(crate) fn adds_nothing(self) -> Self {
        let by = |line: &&str| line.contains("signed by ");
        let (old, new): (Vec<_>, Vec<_>) =
            self.stderr.lines().filter(by).partition(|line| line.contains("already signed by "));
        assert!(!old.is_empty() && new.is_empty(), "{}", self.stderr);
        self
    }

    /// Asserts that none of these was said, not even in the log.
    #[track_caller]
    pub(crate) fn never_says(self, secrets: &[&str]) -> Self {
        for secret in secrets {
            assert!(!secret.is_empty() && !self.stderr.contains(secret) && !self.stdout.contains(secret));
        }
        self
    }
}

/// The tool, as a user has it: a home, variables, a registry with an image.
pub(crate) struct Bench {
    registry: Registry,
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Bench {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a home");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        std::os::unix::fs::symlink(binary(), bin.join("kubectl-buildkit")).expect("a link");
        for (generation, name) in [("cosign3", "cosign"), ("cosign2", "cosign2")] {
            std::fs::create_dir(home.path().join(generation)).expect("a folder");
            let link = home.path().join(generation).join("cosign");
            std::os::unix::fs::symlink(peer(name), link).expect("a link");
        }
        let mut bench = Self { registry: Registry::with_referrers(), home, variables: Vec::new() };
        for (name, value) in variables {
            bench.set(name, value);
        }
        bench
    }

    #[allow(dead_code, reason = "not every suite looks at two registries")]
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Sets a variable for all that runs.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    /// Writes a file into the home and returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Puts a `sigstore-kms-NAME` program on the PATH.
    pub(crate) fn plugin(&self, name: &str, text: &str) {
        let path = self.file(&format!("bin/sigstore-kms-{name}"), text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Pushes an image without layers and returns `REPOSITORY@DIGEST`.
    pub(crate) async fn image(&self, name: &str) -> String {
        let repository: Repository = format!("{}/kms/{name}", self.registry.host).parse().unwrap();
        let manifest = push_image(&client(), &repository, name).await;
        format!("{repository}@{}", manifest.digest)
    }

    /// Returns whether anything signs an image: neither a tag nor a referrer.
    pub(crate) async fn is_signed(&self, image: &str) -> bool {
        let client = client();
        let (repository, digest) = image.split_once('@').unwrap();
        let (repository, digest): (Repository, Digest) =
            (repository.parse().unwrap(), digest.parse().unwrap());
        let mut tagged = false;
        for tag in [format!("{}.sig", digest.tag()), digest.tag()] {
            tagged |= client.get_manifest(&repository, &tag).await.unwrap().is_some();
        }
        let referrers = client.referrers(&repository, &digest).await.unwrap().unwrap_or_default();
        tagged || !referrers.is_empty()
    }

    fn environment(&self, command: &mut Command, first: &str) {
        let home = self.home.path().display();
        command.current_dir(self.home.path()).env_clear().env("HOME", self.home.path());
        command.env("PATH", format!("{home}/{first}:{home}/bin:/usr/local/bin:/usr/bin:/bin"));
        // What passes here passes without the rest of the world.
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("NO_PROXY", "127.0.0.1,localhost");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Runs `kubectl-buildkit sign` with this key.
    pub(crate) fn sign(&self, image: &str, key: &str) -> Ran {
        self.tool(&["sign", image, "--cosign-key", key, "-vv", "--progress", "plain"])
    }

    /// Signs an image of its own in each mode of progress, `tty` on a terminal (by `script`), with all that the log can
    /// say, and asserts that none of these secrets is in any of it, as it is or as base64.
    pub(crate) async fn tells_nothing(&self, name: &str, key: &str, secrets: &[&str]) {
        for mode in ["plain", "rawjson", "quiet", "tty"] {
            let image = self.image(&format!("{name}-{mode}")).await;
            let line = format!("kubectl-buildkit sign {image} --cosign-key '{key}' -vv --progress {mode}");
            let line = match mode {
                "tty" => format!("TERM=xterm script -qec \"{line}\" /dev/null"),
                _ => line,
            };
            let mut ran = self.shell("cosign 3", &line).ok();
            let log = if mode == "tty" { &ran.stdout } else { &ran.stderr };
            assert!(log.contains("DEBUG"), "{name} {mode}: no log proves nothing:\n{log}");
            for secret in secrets {
                ran = ran.never_says(&[secret, &STANDARD.encode(secret)]);
            }
        }
    }

    /// Runs our own `verify` with this key.
    pub(crate) fn verify(&self, image: &str, key: &str) -> Ran {
        self.tool(&["verify", "--key", key, image, "-vv"])
    }

    /// Runs a verb of our own.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("timeout");
        command.args(["100", "kubectl-buildkit"]).args(arguments);
        self.environment(&mut command, "bin");
        Ran::of(command)
    }

    /// Runs a shell line with one generation of cosign.
    pub(crate) fn shell(&self, generation: &str, line: &str) -> Ran {
        Ran::of(self.shell_command(generation, line))
    }

    pub(crate) fn shell_command(&self, generation: &str, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["100", "sh", "-c", line]);
        self.environment(&mut command, &generation.replace(' ', ""));
        command
    }

    /// Signs an image, runs each line that the report prints with the cosign that it is for, and returns what the
    /// tool said.
    pub(crate) async fn sign_and_verify(&self, name: &str, key: &str) -> (String, Ran) {
        let image = self.image(name).await;
        let signed = self.sign(&image, key).ok();
        let lines = signed.stderr.lines().filter_map(|line| line.strip_prefix("verify with "));
        let lines: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        assert_eq!(lines.len(), 2, "{}", signed.stderr);
        for (generation, line) in lines {
            let ran = self.shell(generation, line);
            assert_eq!(ran.code, Some(0), "{generation}: {line}\n{}", ran.stderr);
        }
        (image, signed)
    }

    /// Asserts that both generations of cosign accept the signature with this key.
    pub(crate) fn accept(&self, image: &str, key: &str) {
        let root = self.file(
            "trusted-root.json",
            r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#,
        );
        for (generation, more) in
            [("cosign 3", String::new()), ("cosign 2", format!("--trusted-root {root}"))]
        {
            let line = format!("cosign verify --key {key} --insecure-ignore-tlog {more} {image}");
            let ran = self.shell(generation, &line);
            assert_eq!(ran.code, Some(0), "{generation}: {line}\n{}", ran.stderr);
        }
    }
}

/// Returns a client of registries without a password.
pub(crate) fn client() -> Client {
    Client::new(Options::new(Arc::new(Resolver::anonymous()))).unwrap()
}

/// Pushes an image without layers, by digest; the name makes its digest its own.
pub(crate) async fn push_image(client: &Client, repository: &Repository, name: &str) -> Descriptor {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","author":"{name}","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[]}}"#,
        Digest::of(config.as_bytes()),
        config.len()
    );
    let descriptor = Descriptor::of(MANIFEST_TYPE, manifest.as_bytes());
    let place = descriptor.digest.to_string();
    client.put_blob(repository, config.into()).await.unwrap();
    client.put_manifest(repository, &place, MANIFEST_TYPE, manifest.into()).await.unwrap();
    descriptor
}

fn binary() -> std::path::PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
    let path =
        std::env::var_os("KUBECTL_BUILD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kubectl-build").into());
    std::path::absolute(path).expect("a path")
}
