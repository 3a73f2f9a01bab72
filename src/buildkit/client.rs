//! A channel over one stream, and the questions that are asked before a build.

use super::MESSAGE_LIMIT;
use super::failure::{Class, Failure};
use super::link::{Link, Lost};
use crate::pb::containerd::services::content::v1::content_client::ContentClient;
use crate::pb::moby::buildkit::v1::control_client::ControlClient;
use crate::pb::moby::buildkit::v1::{InfoRequest, ListWorkersRequest};
use crate::pb::pb::Platform;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// How long one question before or after a build may take.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The pause between two questions whether the daemon is ready.
const READY_PAUSE: Duration = Duration::from_millis(250);

/// A daemon at the other end of one stream. Cheap to clone; the stream closes when the last clone, the last
/// [`Client::control`] and the last call are gone, or at once with [`Client::cut`].
#[derive(Clone, Debug)]
pub struct Client {
    control: ControlClient<Channel>,
    pub(super) content: ContentClient<Channel>,
    pub(super) link: Arc<Link>,
}

/// A question that got no good answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon didn't come up in time.
    #[error("BuildKit was not ready within {} s", waited.as_secs())]
    NotReady {
        /// How long.
        waited: Duration,
        /// What it said last, if anything.
        #[source]
        last: Option<Box<Failure>>,
    },
    /// The stream is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The daemon refused.
    #[error("BuildKit refused the call `{call}`")]
    Refused {
        /// The name of the call.
        call: &'static str,
        /// The refusal.
        #[source]
        failure: Box<Failure>,
    },
}

/// A worker of the daemon: what executes steps. The first one is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Random, kept with the daemon's state.
    pub id: String,
    /// What it can run, natively or emulated, such as `linux/arm64/v8`; the native one first.
    pub platforms: Vec<String>,
    /// The daemon's version, such as `v0.32.2`; unknown before v0.11.
    pub version: Option<String>,
    /// Such as `org.mobyproject.buildkit.worker.executor=oci`.
    pub labels: BTreeMap<String, String>,
}

impl Client {
    /// Speaks to the daemon at the other end of `io`. Nothing is sent before the first call. Needs a runtime.
    pub fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (tapped, link) = Link::tap(io);
        let once = Arc::new(Mutex::new(Some(TokioIo::new(tapped))));
        let fault = Arc::clone(&link);
        let connector = tower::service_fn(move |_| {
            let io = once.lock().expect("no holder of the lock panics").take();
            let error = fault.fault().unwrap_or_else(|| Arc::new(io::ErrorKind::NotConnected.into()));
            std::future::ready(io.ok_or_else(|| io::Error::new(error.kind(), error)))
        });
        // No HTTP/2 pings: grpc-go counts them and hangs up (ENHANCE_YOUR_CALM) when they come without traffic
        // of its own in between. `silent_for` asks a question instead. The windows are fixed for the same
        // reason: hyper measures adaptive ones with pings. They are wide because the session, the status and
        // the solve share one connection, where a slow reader of one would stall the others.
        let channel = Endpoint::from_static("http://localhost")
            .http2_max_header_list_size(u32::try_from(MESSAGE_LIMIT).expect("16 MiB fits"))
            .initial_connection_window_size(16 << 20)
            .initial_stream_window_size(8 << 20)
            .connect_with_connector_lazy(connector);
        let content = ContentClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        let control = ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        Self { control, content, link }
    }

    /// Returns a client of the control service on the same connection, as a session needs it.
    pub fn control(&self) -> ControlClient<Channel> {
        self.control.clone()
    }

    /// Returns when a byte last came from the daemon.
    pub fn last_heard(&self) -> Instant {
        self.link.heard()
    }

    /// Ends the stream at once; everything that runs on it fails with [`Lost::Broken`] and `why`.
    pub fn cut(&self, why: &str) {
        self.link.cut(io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned()));
    }

    /// Waits until the daemon answers, for at most `limit`, and returns its version where it tells.
    ///
    /// # Errors
    /// The stream is gone, or the time is up.
    pub async fn wait_ready(&self, limit: Duration) -> Result<Option<String>, ClientError> {
        let mut last = None;
        let asking = async {
            loop {
                let status = match self.control().info(InfoRequest {}).await {
                    Ok(reply) => return Ok(reply.into_inner().buildkit_version.map(|it| it.version)),
                    Err(status) => status,
                };
                let failure = self.answered(&status)?;
                match failure.class {
                    // A daemon before v0.11 doesn't know the question, but it is there.
                    Class::Unsupported => return Ok(None),
                    Class::Unavailable => last = Some(Box::new(failure)),
                    _ => return Err(refused("Info", failure)),
                }
                tokio::time::sleep(READY_PAUSE).await;
            }
        };
        match tokio::time::timeout(limit, asking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::NotReady { waited: limit, last }),
        }
    }

    /// Asks for the daemon's workers.
    ///
    /// # Errors
    /// The stream is gone, the daemon refuses, or it takes more than 30 s.
    pub async fn workers(&self) -> Result<Vec<Worker>, ClientError> {
        let mut control = self.control();
        let call = control.list_workers(ListWorkersRequest::default());
        let status = match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner().record.into_iter().map(Worker::from).collect()),
            Ok(Err(status)) => status,
            Err(_) => return Err(Lost::Silent(CALL_LIMIT).into()),
        };
        Err(refused("ListWorkers", self.answered(&status)?))
    }

    /// Tells an answer of the daemon from a broken connection.
    pub(super) fn answered(&self, status: &Status) -> Result<Failure, Lost> {
        // tonic keeps a source only with statuses that it made itself out of a local error.
        let Some(local) = status.source() else { return Ok(Failure::from_status(status)) };
        if is_reset_by_daemon(local) {
            let mut failure = Failure::from_status(status);
            failure.message = format!("BuildKit broke off the call: {}", status.message());
            return Ok(failure);
        }
        let why = self.link.fault();
        Err(Lost::Broken(why.unwrap_or_else(|| Arc::new(io::Error::other(deepest(local))))))
    }
}

pub(super) fn refused(call: &'static str, failure: Failure) -> ClientError {
    ClientError::Refused { call, failure: Box::new(failure) }
}

/// Whether the daemon reset this one stream while the connection itself lives on.
fn is_reset_by_daemon(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|error| error.is_reset() && error.is_remote())
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

fn chain(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |error: &Cause<'_>| (*error).source())
}

impl From<crate::pb::moby::buildkit::v1::types::WorkerRecord> for Worker {
    fn from(record: crate::pb::moby::buildkit::v1::types::WorkerRecord) -> Self {
        Self {
            id: record.id,
            platforms: record.platforms.iter().map(platform).collect(),
            version: record.buildkit_version.map(|version| version.version).filter(|text| !text.is_empty()),
            labels: record.labels.into_iter().collect(),
        }
    }
}

fn platform(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_spelled_as_on_the_command_line() {
        let mut arm =
            Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), ..Platform::default() };
        assert_eq!(platform(&arm), "linux/arm64");
        arm.variant = "v8".to_owned();
        assert_eq!(platform(&arm), "linux/arm64/v8");
    }

    #[tokio::test]
    async fn a_stream_that_is_gone_is_not_waited_for() {
        let (near, far) = tokio::io::duplex(64);
        drop(far);
        let client = Client::over(near);
        for _ in 0..2 {
            let error = client.wait_ready(Duration::from_secs(60)).await.expect_err("nobody is there");
            assert!(matches!(error, ClientError::Lost(Lost::Broken(_))), "{error:?}");
        }
    }
}
