//! cosign's plugins: `sigstore-kms-NAME` programs that stand for a key service (sigstore/sigstore,
//! pkg/signature/kms/cliplugin).

use super::{Backend, Fault, Hashing, Opened, one_line};
use crate::sign::key::PublicKey;
use crate::task;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The name of these in messages.
pub const SERVICE: &str = "the KMS plugin";
/// A plugin may ask for a touch, or start a cloud's tool.
const TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_MAX: u64 = 1 << 20;
const STDERR_MAX: u64 = 64 << 10;
const PROTOCOL: &str = "v1";

/// `NAME://ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The scheme, which is the end of the program's name.
    pub scheme: String,
    /// What the program gets.
    pub id: String,
}

impl Key {
    /// Reads a reference of a scheme that is nobody else's; none if no program can have such a name.
    pub fn parse(scheme: &str, id: &str) -> Option<Self> {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let named = !scheme.is_empty() && scheme.chars().all(fits) && !scheme.starts_with(['.', '-']);
        named.then(|| Self { scheme: scheme.to_owned(), id: id.to_owned() })
    }

    /// Returns the program's name.
    pub fn program(&self) -> String {
        format!("sigstore-kms-{}", self.scheme)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the plugin knows whether its identifier holds a secret.
        write!(formatter, "{}://{}", self.scheme, self.id)
    }
}

/// A key and the program that signs with it.
pub struct Settings {
    /// The key.
    pub key: Key,
    /// The program, found on the PATH.
    pub program: PathBuf,
    /// What it runs in.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("key", &self.key)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    error_message: String,
    public_key: Option<PublicKeyAnswer>,
    default_algorithm: Option<DefaultAlgorithm>,
    create_key: Option<PublicKeyAnswer>,
    sign_message: Option<SignAnswer>,
}

/// Its Go type names the field without a tag, so both spellings occur.
#[derive(Deserialize)]
struct PublicKeyAnswer {
    #[serde(alias = "publicKeyPEM", rename = "PublicKeyPEM")]
    pem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefaultAlgorithm {
    default_algorithm: String,
}

#[derive(Deserialize)]
struct SignAnswer {
    #[serde(alias = "Signature")]
    signature: String,
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let plugin = Plugin(settings);
    match plugin.public_key().await {
        Ok(public) => {
            Ok(Opened { hashing: Hashing::usual(public.kind()), public, backend: Box::new(plugin) })
        }
        Err(fault) => {
            let hint = plugin.hint(&fault);
            Err((fault, hint))
        }
    }
}

pub(super) async fn create(settings: Settings) -> Result<PublicKey, (Fault, Option<String>)> {
    let plugin = Plugin(settings);
    plugin.create().await.map_err(|fault| {
        let hint = plugin.hint(&fault);
        (fault, hint)
    })
}

struct Plugin(Settings);

impl Plugin {
    async fn public_key(&self) -> Result<PublicKey, Fault> {
        let answer = self.call("publicKey", json!({ "publicKeyOptions": {} }), b"", Hashing::Sha256).await?;
        Self::read(answer.public_key)
    }

    /// Makes a key of the kind that the plugin thinks best, as cosign does.
    async fn create(&self) -> Result<PublicKey, Fault> {
        if self.public_key().await.is_ok() {
            return Err(Fault::Exists);
        }
        let answer = self.call("defaultAlgorithm", json!({}), b"", Hashing::Sha256).await?;
        let best = answer.default_algorithm.ok_or(Fault::Answer("its answer names no algorithm"))?;
        let answer = self
            .call("createKey", json!({ "algorithm": best.default_algorithm }), b"", Hashing::Sha256)
            .await?;
        Self::read(answer.create_key)
    }

    fn read(answer: Option<PublicKeyAnswer>) -> Result<PublicKey, Fault> {
        let answer = answer.ok_or(Fault::Answer("its answer holds no public key"))?;
        let pem = STANDARD.decode(answer.pem).map_err(|_| Fault::Answer("its public key is not base64"))?;
        Ok(PublicKey::from_pem(&pem)?)
    }

    async fn call(
        &self,
        method: &str,
        arguments: serde_json::Value,
        message: &[u8],
        hashing: Hashing,
    ) -> Result<Answer, Fault> {
        // Go's numbers of them (`crypto.Hash`).
        let hash = match hashing {
            Hashing::Sha256 | Hashing::None => 5,
            Hashing::Sha384 => 6,
            Hashing::Sha512 => 7,
        };
        let mut request = json!({
            "initOptions": {
                "protocolVersion": PROTOCOL,
                "keyResourceID": self.0.key.id,
                "hashFunc": hash,
            },
            "methodName": method,
        });
        request[method] = arguments;
        let program = self.0.key.program();
        let run = self.run(request.to_string(), message);
        let ran = tokio::time::timeout(TIMEOUT, run).await;
        let ran = ran.map_err(|_| {
            Fault::Program(format!("`{program}` gave no answer within {} s", TIMEOUT.as_secs()))
        })?;
        let (stdout, stderr, status) =
            ran.map_err(|error| Fault::Program(format!("`{program}` could not be run: {error}")))?;
        tracing::debug!(program, method, %status, "ran a KMS plugin");
        let answer: Option<Answer> = serde_json::from_slice(&stdout).ok();
        match answer {
            Some(answer) if answer.error_message.is_empty() => Ok(answer),
            Some(answer) => {
                Err(Fault::Program(format!("`{program}` says: {}", one_line(&answer.error_message))))
            }
            None => {
                let stderr = String::from_utf8_lossy(&stderr);
                let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let last = if last.is_empty() { String::new() } else { format!(": {}", one_line(last)) };
                Err(Fault::Program(format!("`{program}` ({status}) did not answer in JSON{last}")))
            }
        }
    }

    async fn run(
        &self,
        request: String,
        message: &[u8],
    ) -> std::io::Result<(Vec<u8>, Vec<u8>, std::process::ExitStatus)> {
        let mut child = Command::new(&self.0.program)
            .arg(PROTOCOL)
            .arg(request)
            .env_clear()
            .envs(self.0.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let message = message.to_vec();
        let feed = task::spawn("kms-plugin-stdin", async move {
            // One that doesn't read has no need of it.
            let _unread = stdin.write_all(&message).await;
        });
        let (stdout, stderr) = tokio::try_join!(read(stdout, ANSWER_MAX), read(stderr, STDERR_MAX))?;
        let status = child.wait().await?;
        drop(feed);
        Ok((stdout, stderr, status))
    }
}

/// Reads to the end, and keeps the beginning.
async fn read(mut from: impl AsyncRead + Unpin, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(limit).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

#[async_trait]
impl Backend for Plugin {
    async fn sign(&self, message: &[u8], _digest: &[u8], hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let answer = self.call("signMessage", json!({ "signOptions": {} }), message, hashing).await?;
        let answer = answer.sign_message.ok_or(Fault::Answer("its answer holds no signature"))?;
        STANDARD.decode(answer.signature).map_err(|_| Fault::Answer("its signature is not base64"))
    }

    fn takes_any_hash(&self) -> bool {
        true
    }

    fn hint(&self, _fault: &Fault) -> Option<String> {
        Some(format!("the plugin is {}", self.0.program.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_plain_names() {
        assert_eq!(Key::parse("my-hsm", "a/b?c").unwrap().program(), "sigstore-kms-my-hsm");
        for scheme in ["", "a/b", "..", "-x", "a b", "ä"] {
            assert_eq!(Key::parse(scheme, "id"), None, "{scheme}");
        }
    }
}
