//! Who we are to the API server: fixed tokens, token files that rotate, and credential plugins.
//!
//! Plugins follow the ExecCredential contract of `client.authentication.k8s.io/v1`. One run serves the whole
//! command until the credential expires: some plugins take seconds or ask the person.

use super::Said;
use crate::event::Events;
use base64::Engine as _;
use http::HeaderValue;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The longest a plugin may take: it may be a login in a browser.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(300);
/// How long half a line of a plugin waits for the rest of it: a question ends without a newline.
const HALF_A_LINE: Duration = Duration::from_millis(200);
/// A credential this close to its end is fetched anew.
const MARGIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// How long a token file's content is trusted (client-go: one minute).
const FILE_LIFETIME: Duration = Duration::from_secs(60);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The plugin could not be started.
    #[error("cannot run the credential plugin `{command}`")]
    Start {
        /// Its command.
        command: String,
        /// What the kubeconfig says about getting it.
        install: Option<String>,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The plugin ended badly.
    #[error("the credential plugin `{command}` failed ({status})")]
    Failed {
        /// Its command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        #[source]
        source: Said,
    },
    /// The plugin did not end.
    #[error("the credential plugin `{command}` did not end within {} s", PLUGIN_TIMEOUT.as_secs())]
    Endless {
        /// Its command.
        command: String,
    },
    /// The plugin's answer is no credential.
    #[error("the credential plugin `{command}` gave no usable credential")]
    Answer {
        /// Its command.
        command: String,
        /// What is wrong with it.
        #[source]
        source: Said,
    },
    /// The plugin wants to ask, and there is nobody to ask.
    #[error("the credential plugin `{command}` needs a terminal")]
    Terminal {
        /// Its command.
        command: String,
    },
    /// A token file could not be read.
    #[error("cannot read the token file {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A token holds characters that no HTTP header can carry.
    #[error("the token cannot be sent in an HTTP header")]
    Header,
}

impl CredentialError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Start { install: Some(text), .. } => Some(text.trim().to_owned()),
            Self::Start { command, .. } => {
                Some(format!("install `{command}` or put it on PATH; the kubeconfig's user needs it"))
            }
            Self::Failed { command, .. } | Self::Endless { command } | Self::Answer { command, .. } => {
                Some(format!(
                    "log in with the tool behind `{command}` and try again; `kubectl auth whoami` runs it too"
                ))
            }
            Self::Terminal { .. } => {
                Some("run in a terminal, with the build context not on standard input".to_owned())
            }
            Self::TokenFile { .. } | Self::Header => None,
        }
    }
}

/// A source of `Authorization` headers.
#[derive(Debug)]
pub(super) enum Credential {
    /// Nothing to say, or a client certificate says it.
    None,
    Fixed(HeaderValue),
    File(TokenFile),
    Plugin(Box<Plugin>),
}

/// A client certificate that a plugin issued.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: SecretString,
}

impl Credential {
    /// Chooses the source that client-go would, running a plugin once.
    pub(super) async fn choose(
        user: &AuthInfo,
        interactive: bool,
        events: &Events,
    ) -> Result<(Self, Option<Identity>), CredentialError> {
        if let (Some(name), Some(password)) = (&user.username, &user.password) {
            let pair = format!("{name}:{}", password.expose_secret());
            let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
            return Ok((Self::Fixed(sensitive(&value)?), None));
        }
        if let Some(token) = &user.token {
            return Ok((Self::Fixed(bearer(token.expose_secret())?), None));
        }
        if let Some(path) = &user.token_file {
            let file = TokenFile { path: PathBuf::from(path), read: Mutex::new(None) };
            file.header().await?;
            return Ok((Self::File(file), None));
        }
        if let Some(exec) = &user.exec {
            let plugin =
                Plugin { exec: exec.clone(), interactive, events: events.clone(), issued: Mutex::new(None) };
            let issued = plugin.run().await?;
            if let Some(identity) = issued.identity {
                return Ok((Self::None, Some(identity)));
            }
            *plugin.issued.lock().await = Some((issued.header, issued.expires));
            return Ok((Self::Plugin(Box::new(plugin)), None));
        }
        Ok((Self::None, None))
    }

    /// Returns the header for a request that is sent now.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, CredentialError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::File(file) => file.header().await.map(Some),
            Self::Plugin(plugin) => plugin.header().await,
        }
    }

    /// Forgets a credential that the server did not accept, so that the next request fetches another.
    pub(super) async fn rejected(&self) {
        match self {
            Self::None | Self::Fixed(_) => {}
            Self::File(file) => *file.read.lock().await = None,
            Self::Plugin(plugin) => *plugin.issued.lock().await = None,
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, CredentialError> {
    sensitive(&format!("Bearer {}", token.trim()))
}

fn sensitive(text: &str) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CredentialError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A file whose token is replaced from time to time, as a service account's is.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<(HeaderValue, Instant)>>,
}

impl TokenFile {
    async fn header(&self) -> Result<HeaderValue, CredentialError> {
        let mut read = self.read.lock().await;
        if let Some((value, at)) = read.as_ref().filter(|(_, at)| at.elapsed() < FILE_LIFETIME) {
            tracing::trace!(age = ?at.elapsed(), "token file is fresh");
            return Ok(value.clone());
        }
        match tokio::fs::read_to_string(&self.path).await {
            Ok(token) => {
                let value = bearer(&token)?;
                *read = Some((value.clone(), Instant::now()));
                Ok(value)
            }
            // The last token serves on when the file is taken away after the start (kubernetes#68164).
            Err(source) => match read.as_ref() {
                Some((value, _)) => Ok(value.clone()),
                None => Err(CredentialError::TokenFile { path: self.path.clone(), source }),
            },
        }
    }
}

/// A credential plugin, and what it issued last.
#[derive(Debug)]
pub(super) struct Plugin {
    exec: ExecConfig,
    interactive: bool,
    events: Events,
    issued: Mutex<Option<(Option<HeaderValue>, Option<jiff::Timestamp>)>>,
}

struct Issued {
    header: Option<HeaderValue>,
    identity: Option<Identity>,
    expires: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct Answer {
    status: Option<AnswerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerStatus {
    expiration_timestamp: Option<String>,
    token: Option<SecretString>,
    client_certificate_data: Option<String>,
    client_key_data: Option<SecretString>,
}

impl Plugin {
    async fn header(&self) -> Result<Option<HeaderValue>, CredentialError> {
        let mut issued = self.issued.lock().await;
        let fresh = |expires: &Option<jiff::Timestamp>| {
            expires.is_none_or(|expires| jiff::Timestamp::now() + MARGIN < expires)
        };
        if let Some((value, _)) = issued.as_ref().filter(|(_, expires)| fresh(expires)) {
            return Ok(value.clone());
        }
        let next = self.run().await?;
        *issued = Some((next.header.clone(), next.expires));
        Ok(next.header)
    }

    fn command_name(&self) -> String {
        self.exec.command.clone().unwrap_or_default()
    }

    async fn run(&self) -> Result<Issued, CredentialError> {
        let command = self.command_name();
        let wrong = |text: String| CredentialError::Answer { command: command.clone(), source: Said(text) };
        let wants_terminal = self.exec.interactive_mode == Some(ExecInteractiveMode::Always);
        if wants_terminal && !self.interactive {
            return Err(CredentialError::Terminal { command });
        }
        let interactive = self.interactive && self.exec.interactive_mode != Some(ExecInteractiveMode::Never);
        let version = self.exec.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
        let mut spec = serde_json::json!({ "interactive": interactive });
        if let Some(cluster) = &self.exec.cluster {
            spec["cluster"] = serde_json::to_value(cluster).map_err(|error| wrong(error.to_string()))?;
        }
        let info = serde_json::json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec });

        let mut process = Command::new(&command);
        process.args(self.exec.args.iter().flatten());
        for variable in self.exec.env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                process.env(name, value);
            }
        }
        process.env("KUBERNETES_EXEC_INFO", info.to_string());
        process.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
        process.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = process.spawn().map_err(|source| CredentialError::Start {
            command: command.clone(),
            install: self.exec.install_hint.clone(),
            source,
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut answer = Vec::new();
        let work = async {
            let read = async {
                match stdout {
                    Some(mut stdout) => stdout.read_to_end(&mut answer).await.map(|_| ()),
                    None => Ok(()),
                }
            };
            // A device-code login says on standard error where to go: it must be seen while it waits.
            let listen = async {
                match stderr {
                    Some(stderr) => listen(stderr, |line| self.events.note(line)).await,
                    None => String::new(),
                }
            };
            let (read, said) = tokio::join!(read, listen);
            read?;
            Ok::<_, std::io::Error>((child.wait().await?, said))
        };
        let (status, said) = match tokio::time::timeout(PLUGIN_TIMEOUT, work).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Err(wrong(error.to_string())),
            Err(_) => return Err(CredentialError::Endless { command }),
        };
        if !status.success() {
            let tail: Vec<_> = said.lines().rev().take(5).collect();
            let text = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let text = if text.is_empty() { "it said nothing on standard error".to_owned() } else { text };
            return Err(CredentialError::Failed { command, status, source: Said(text) });
        }
        // Plugins may answer in YAML, as client-go reads it; JSON is YAML too.
        let answer: Answer = serde_saphyr::from_slice(&answer).map_err(|error| wrong(error.to_string()))?;
        let status = answer.status.ok_or_else(|| wrong("it has no `status`".to_owned()))?;
        let expires = match &status.expiration_timestamp {
            Some(text) => Some(text.parse().map_err(|_| wrong(format!("`{text}` is no timestamp")))?),
            None => None,
        };
        let header = status.token.as_ref().map(|token| bearer(token.expose_secret())).transpose()?;
        let identity = match (status.client_certificate_data, status.client_key_data) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            _ => None,
        };
        if header.is_none() && identity.is_none() {
            return Err(wrong("it has neither a token nor a client certificate with its key".to_owned()));
        }
        Ok(Issued { header, identity, expires })
    }
}

/// Tells what a plugin says, line by line as it comes, and returns all of it.
async fn listen(mut stderr: impl AsyncRead + Unpin, tell: impl Fn(&str)) -> String {
    let (mut said, mut told) = (Vec::<u8>::new(), 0);
    loop {
        let read = tokio::time::timeout(HALF_A_LINE, stderr.read_buf(&mut said)).await;
        let end = match read {
            Ok(Ok(1..)) => said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            _ => said.len(),
        };
        if end > told {
            String::from_utf8_lossy(&said[told..end]).lines().for_each(&tell);
            told = end;
        }
        if matches!(read, Ok(Ok(0) | Err(_))) {
            return String::from_utf8_lossy(&said).into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn plugin(script: &str) -> (tempfile::TempDir, AuthInfo) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", directory.path().display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let exec: ExecConfig = serde_json::from_value(serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": path,
            "env": [{ "name": "WHO", "value": "jane" }],
            "interactiveMode": "IfAvailable",
        }))
        .unwrap();
        (directory, AuthInfo { exec: Some(exec), ..AuthInfo::default() })
    }

    #[tokio::test]
    async fn a_plugin_runs_once_until_its_token_is_refused() {
        let (directory, user) = plugin(
            r#"echo run >> runs
            case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) ;; *) exit 9;; esac
            echo "{\"kind\":\"ExecCredential\",\"status\":{\"token\":\"for-$WHO-$(wc -l < runs)\"}}""#,
        );
        let (credential, identity) = Credential::choose(&user, false, &Events::off()).await.unwrap();
        assert!(identity.is_none());
        for _ in 0..3 {
            assert_eq!(credential.header().await.unwrap().unwrap(), "Bearer for-jane-1");
        }
        credential.rejected().await;
        assert_eq!(credential.header().await.unwrap().unwrap(), "Bearer for-jane-2");
        assert_eq!(std::fs::read_to_string(directory.path().join("runs")).unwrap(), "run\nrun\n");
    }

    #[tokio::test]
    async fn an_expiring_token_is_fetched_anew() {
        let (_directory, user) = plugin(
            r#"echo run >> runs
            echo "{\"status\":{\"token\":\"t$(wc -l < runs)\",\"expirationTimestamp\":\"2001-01-01T00:00:00Z\"}}""#,
        );
        let (credential, _) = Credential::choose(&user, false, &Events::off()).await.unwrap();
        assert_eq!(credential.header().await.unwrap().unwrap(), "Bearer t2");
        assert!(credential.header().await.unwrap().unwrap().is_sensitive());
    }

    #[tokio::test]
    async fn a_plugin_may_issue_a_certificate() {
        let (_directory, user) =
            plugin(r#"printf 'status:\n  clientCertificateData: CERT\n  clientKeyData: KEY\n'"#);
        let (credential, identity) = Credential::choose(&user, false, &Events::off()).await.unwrap();
        assert!(credential.header().await.unwrap().is_none());
        assert_eq!(identity.unwrap().certificate, "CERT");
    }

    #[tokio::test]
    async fn a_failing_plugin_is_quoted_and_what_it_says_is_shown() {
        let (_directory, user) = plugin("echo 'session expired, run login' >&2; exit 3");
        let (events, mut seen) = Events::channel();
        let error = Credential::choose(&user, false, &events).await.unwrap_err();
        assert!(error.to_string().contains("failed (exit status: 3)"), "{error}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "session expired, run login");
        assert!(
            matches!(seen.try_recv(), Ok(crate::event::Event::Note(text)) if text.contains("session expired"))
        );
    }

    #[tokio::test]
    async fn a_question_is_told_while_the_plugin_waits_for_its_answer() {
        let script = r#"printf 'open the page\377\nCode: ' >&2; while [ ! -e answered ]; do sleep 0.05; done
            echo '{"status":{"token":"t"}}'"#;
        let (directory, user) = plugin(script);
        let (events, mut seen) = Events::channel();
        let asked = async {
            for expected in ["open the page\u{fffd}", "Code: "] {
                let Some(crate::event::Event::Note(text)) = seen.recv().await else {
                    panic!("nothing is told")
                };
                assert_eq!(text, expected);
            }
            std::fs::write(directory.path().join("answered"), "").unwrap();
        };
        let (credential, ()) = tokio::join!(Credential::choose(&user, false, &events), asked);
        assert_eq!(credential.unwrap().0.header().await.unwrap().unwrap(), "Bearer t");
    }

    #[tokio::test]
    async fn an_absent_plugin_says_how_to_get_it() {
        let exec: ExecConfig = serde_json::from_value(serde_json::json!({
            "command": "/nonexistent/plugin", "installHint": "get it from example.com\n",
        }))
        .unwrap();
        let user = AuthInfo { exec: Some(exec), ..AuthInfo::default() };
        let error = Credential::choose(&user, false, &Events::off()).await.unwrap_err();
        assert_eq!(error.hint().unwrap(), "get it from example.com");
    }
}
