//! Credential helpers: `docker-credential-NAME get` (docker/docker-credential-helpers, "development").

use super::Credential;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// Ten seconds less than docker's own five minutes, the life of the shortest tokens that helpers hand out.
const KEPT: Duration = Duration::from_secs(290);
/// Helpers that start an interpreter and call a cloud take seconds; none takes this long and lives.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers are some kilobytes of JSON.
const ANSWER_MAX: u64 = 1 << 20;

/// What helpers run with.
#[derive(Clone, Debug)]
pub struct HelperEnvironment {
    /// Where programs are looked for, as in `PATH`.
    pub path: OsString,
    /// All the variables that a helper sees, `PATH` and `HOME` included.
    pub variables: Vec<(OsString, OsString)>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl Default for HelperEnvironment {
    fn default() -> Self {
        Self { path: OsString::new(), variables: Vec::new(), timeout: TIMEOUT }
    }
}

/// What went wrong with a helper.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It is not on the PATH.
    #[error("no such program on the PATH")]
    Missing,
    /// Its name could name a program elsewhere.
    #[error("a helper's name is letters, digits, `-`, `_` and `.`")]
    Name,
    /// It could not be run.
    #[error("it could not be run")]
    Run(#[source] io::Error),
    /// It was still running at the end of its time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It said no.
    #[error("{status}: {message}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        message: String,
    },
    /// Its answer is not the JSON of the protocol.
    #[error("its answer is not the JSON that helpers give")]
    Answer(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: SecretString,
}

type Kept = HashMap<(String, String), (Instant, Option<Credential>)>;

/// Runs helpers, one at a time: some of them ask the person, or lock a key ring.
#[derive(Debug)]
pub(super) struct Helpers {
    environment: HelperEnvironment,
    kept: Mutex<Kept>,
}

/// Returns the program of a helper.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

impl Helpers {
    pub(super) fn new(environment: HelperEnvironment) -> Self {
        Self { environment, kept: Mutex::default() }
    }

    pub(super) async fn forget(&self) {
        self.kept.lock().await.clear();
    }

    /// Returns what the helper knows of a server; none if it knows nothing.
    pub(super) async fn get(&self, name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
        let mut kept = self.kept.lock().await;
        let key = (name.to_owned(), server.to_owned());
        if let Some((at, answer)) = kept.get(&key)
            && at.elapsed() < KEPT
        {
            return Ok(answer.clone());
        }
        let answer = self.run(name, server).await?;
        kept.insert(key, (Instant::now(), answer.clone()));
        Ok(answer)
    }

    async fn run(&self, name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
        let program = self.locate(name)?;
        tracing::debug!(program = %program.display(), server, "asking a credential helper");
        let child = Command::new(program)
            .arg("get")
            .env_clear()
            .envs(self.environment.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(HelperError::Run)?;
        let timeout = self.environment.timeout;
        let (status, stdout, stderr) = tokio::time::timeout(timeout, converse(child, server))
            .await
            .map_err(|_elapsed| HelperError::Timeout(timeout))?
            .map_err(HelperError::Run)?;
        if status.success() {
            return answer(stdout.expose_secret().as_bytes());
        }
        // Errors come on the standard output; helpers that crash write to the other one.
        let said = [stdout.expose_secret().trim(), stderr.trim()].into_iter().find(|text| !text.is_empty());
        let message = said.unwrap_or("it printed nothing");
        if message.contains("credentials not found") {
            return Ok(None);
        }
        Err(HelperError::Failed { status, message: message.chars().take(500).collect() })
    }

    fn locate(&self, name: &str) -> Result<PathBuf, HelperError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(HelperError::Name);
        }
        let file = format!("{}{}", program(name), std::env::consts::EXE_SUFFIX);
        std::env::split_paths(&self.environment.path)
            .map(|directory| directory.join(&file))
            .find(|path| is_program(path))
            .ok_or(HelperError::Missing)
    }
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

async fn converse(mut child: Child, server: &str) -> io::Result<(ExitStatus, SecretString, String)> {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ask = async move {
        // A helper that fails early does not read; its exit status tells more than our broken pipe.
        let _unread = stdin.write_all(server.as_bytes()).await;
    };
    let (mut stdout, mut stderr) = (stdout.take(ANSWER_MAX), stderr.take(ANSWER_MAX));
    let (_asked, read, complained) =
        tokio::join!(ask, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
    read?;
    complained?;
    // Nobody reads on: a helper that says more than it may must not wait for us.
    drop((stdout, stderr));
    let status = child.wait().await?;
    let out = SecretString::from(String::from_utf8_lossy(&out).into_owned());
    Ok((status, out, String::from_utf8_lossy(&err).into_owned()))
}

fn answer(stdout: &[u8]) -> Result<Option<Credential>, HelperError> {
    let answer: Answer = serde_json::from_slice(stdout).map_err(HelperError::Answer)?;
    if answer.secret.expose_secret().is_empty() {
        return Ok(None);
    }
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(answer.secret),
        _ => Credential::Basic { username: answer.username, password: answer.secret },
    }))
}
