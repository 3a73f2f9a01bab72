//! Starts a process in a pod, again where the failure is one that passes.

use super::pump::Channels;
use super::{Diagnosis, ExecEnd, ExecStream, Liveness};
use crate::cluster::api::{self, ApiError, Operation, Said};
use crate::cluster::connect::Connection;
use kube::api::AttachParams;
use kube::client::UpgradeConnectionError;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

/// How often a dial is tried: 0, 0.5, 1, 2 and 4 s apart, as buildx does.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The end of the wait for all attempts: the WebSocket, and the first byte of a process that writes before it reads. A
/// loss is to be told within 15 s, what becomes known of the pod included.
const TIMEOUT: Duration = Duration::from_secs(12);

/// A process to start in a running container.
#[derive(Clone, Debug)]
pub struct Command {
    /// The pod's name; its namespace is the connection's unless `namespace` says otherwise.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The container's name.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The API server refused or could not be asked.
    #[error("cannot open a stream into pod `{pod}`")]
    Api {
        /// The pod.
        pod: String,
        /// Why not.
        #[source]
        source: Box<ApiError>,
    },
    /// The process ended before it said anything, or could not be started.
    #[error("`{command}` does not run in pod `{pod}`")]
    Ended {
        /// The pod.
        pod: String,
        /// The command.
        command: String,
        /// How it ended and what it said.
        #[source]
        source: Said,
        /// Whether another try might go better.
        transient: bool,
    },
    /// The process neither spoke nor ended.
    #[error("`{command}` in pod `{pod}` did not answer within {} s", TIMEOUT.as_secs())]
    Mute {
        /// The pod.
        pod: String,
        /// The command.
        command: String,
    },
    /// Something between us and the API server does not let WebSockets through.
    #[error(
        "no WebSocket into pod `{pod}`: a proxy or load balancer before the API server refuses the upgrade"
    )]
    Upgrade {
        /// The pod.
        pod: String,
        /// What it answered.
        #[source]
        source: Said,
    },
}

impl DialError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Api { source, .. } => source.hint(),
            Self::Ended { pod, .. } | Self::Mute { pod, .. } => {
                Some(format!("`kubectl logs {pod}` may say why"))
            }
            Self::Upgrade { .. } => Some(
                "let WebSocket upgrades through, or talk to the builder directly with `--builder tcp://…`"
                    .to_owned(),
            ),
        }
    }

    /// Whether the pod may be the reason, so that what is known of it belongs to the message.
    pub fn is_about_pod(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                source.is_transient() || matches!(**source, ApiError::NotFound { .. })
            }
            Self::Ended { .. } | Self::Mute { .. } => true,
            Self::Upgrade { .. } => false,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Api { source, .. } => source.is_transient(),
            Self::Ended { transient, .. } => *transient,
            Self::Mute { .. } | Self::Upgrade { .. } => false,
        }
    }
}

/// Opens a stream to a new process in a pod.
///
/// # Errors
/// The last failure, when all attempts failed or one is not worth repeating.
pub async fn dial(connection: &Connection, command: &Command) -> Result<ExecStream, DialError> {
    repeat(&command.pod, |end| attempt_dial(connection, command, end)).await
}

/// Opens a stream to a process that writes before it reads, as a gRPC server does (its SETTINGS), and speaks over it at
/// once: what the process is to read is there when it starts. Its first byte shows that it runs; until then a failure
/// is one of dialling, and whoever `speak`s does so again with the next stream.
///
/// # Errors
/// As [`dial`].
pub async fn converse<F: Future>(
    connection: &Connection,
    command: &Command,
    speak: impl Fn(ExecStream) -> F,
) -> Result<F::Output, DialError> {
    let speak = &speak;
    repeat(&command.pod, |end| async move {
        let stream = attempt_dial(connection, command, end).await?;
        let handle = stream.handle();
        let (mut speaking, mut spoken) = (pin!(speak(stream)), None);
        let mut greeting = pin!(tokio::time::timeout_at(end, handle.greeted()));
        let greeted = loop {
            tokio::select! {
                biased;
                greeted = &mut greeting => break greeted.is_ok(),
                outcome = &mut speaking, if spoken.is_none() => spoken = Some(outcome),
            }
        };
        let (pod, words) = (command.pod.clone(), command.command.join(" "));
        let diagnosis = handle.diagnosis();
        match &diagnosis.end {
            _ if !greeted => Err(DialError::Mute { pod, command: words }),
            Some(end) => Err(DialError::Ended {
                pod,
                command: words,
                transient: passes(end),
                source: Said(diagnosis.to_string()),
            }),
            None => Ok(match spoken {
                Some(outcome) => outcome,
                None => speaking.await,
            }),
        }
    })
    .await
}

/// Opens a stream to a port of a pod. That somebody listens there shows with the first bytes: the stream ends with
/// [`ExecEnd::Refused`] otherwise.
///
/// # Errors
/// As [`dial`].
pub async fn forward(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<ExecStream, DialError> {
    repeat(pod, |end| async move {
        let operation = Operation::one("create", "pods/portforward", namespace, pod);
        let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = request.portforward(pod, &[port]);
        let socket = connect(connection, pod, operation, request, end).await?;
        // No end of ours can be told alone: HTTP needs none.
        Ok(ExecStream::start(socket.into_stream(), Channels::Port, false, Liveness::default()))
    })
    .await
}

async fn repeat<T, F>(pod: &str, mut attempt_once: impl FnMut(Instant) -> F) -> Result<T, DialError>
where
    F: Future<Output = Result<T, DialError>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    let end = Instant::now() + TIMEOUT;
    loop {
        match attempt_once(end).await {
            Err(error) if error.is_transient() && attempt < ATTEMPTS && Instant::now() + pause < end => {
                tracing::debug!(pod, attempt, error = %error, "dialling again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt_dial(
    connection: &Connection,
    command: &Command,
    end: Instant,
) -> Result<ExecStream, DialError> {
    let Command { pod, namespace, container, command: words } = command;
    let operation = Operation::one("create", "pods/exec", namespace, pod);
    let parameters = AttachParams::default().container(container).stdin(true).stdout(true).stderr(true);
    let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
    let request = request.exec(pod, words, &parameters);
    let socket = connect(connection, pod, operation, request, end).await?;
    let closes = socket.supports_stream_close();
    Ok(ExecStream::over(socket.into_stream(), closes, Liveness::default()))
}

async fn connect(
    connection: &Connection,
    pod: &str,
    operation: Operation,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    end: Instant,
) -> Result<kube::client::Connection, DialError> {
    let api = |error| DialError::Api { pod: pod.to_owned(), source: Box::new(error) };
    let request = request
        .map_err(|error| api(connection.explain(operation.clone(), kube::Error::BuildRequest(error))))?;
    match tokio::time::timeout_at(end, connection.client().connect(request)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(kube::Error::UpgradeConnection(error))) => Err(match error {
            UpgradeConnectionError::ProtocolSwitch(status) if status.is_server_error() => {
                let source = Said(format!("it answered {status}"));
                api(ApiError::Server { operation, code: status.as_u16(), source })
            }
            error => DialError::Upgrade { pod: pod.to_owned(), source: Said(api::root(&error)) },
        }),
        Ok(Err(error)) => Err(api(connection.explain(operation, error))),
        Err(_) => {
            let server = connection.server().to_owned();
            Err(api(ApiError::Timeout { server, operation, after: TIMEOUT }))
        }
    }
}

/// Whether a stream that ended before it was of use may be opened again. A v5 API server connects to the kubelet
/// only after the upgrade, so failures of that connection come this way.
fn passes(end: &ExecEnd) -> bool {
    match end {
        ExecEnd::Failed { message } => api::is_transient_text(message),
        ExecEnd::Closed { .. } | ExecEnd::Cut { .. } => true,
        ExecEnd::Exited { .. } | ExecEnd::Refused { .. } | ExecEnd::Silent { .. } => false,
    }
}

/// What a finished process left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its standard output, at most 1 MiB of it.
    pub stdout: Vec<u8>,
    /// How it ended, and its standard error.
    pub diagnosis: Diagnosis,
}

/// Runs a short process to its end, with nothing on its stdin.
///
/// # Errors
/// When it cannot be started or does not end in `timeout`; that it failed is in the output.
pub async fn run(connection: &Connection, command: &Command, timeout: Duration) -> Result<Output, DialError> {
    let mute = || DialError::Mute { pod: command.pod.clone(), command: command.command.join(" ") };
    let work = async {
        let mut stream = dial(connection, command).await?;
        // Some servers cannot close stdin alone; the process is not expected to read it.
        let _closed = stream.shutdown().await;
        let mut stdout = Vec::new();
        let _failed = (&mut stream).take(1 << 20).read_to_end(&mut stdout).await;
        Ok(Output { stdout, diagnosis: stream.diagnosis() })
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(mute()))
}
