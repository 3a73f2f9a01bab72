//! The session: what a daemon may ask of the client while it builds.
//!
//! [`Session::open`] calls `Control.Session` and serves the [`Attachable`]s within that call, over the bytes that
//! it carries (`tunnel`, `serve`). The daemon is the client of that inner connection. Health is always
//! answered; [`filesync`] sends directories, [`auth`] answers for registries.
//!
//! This module never reads the environment, never prints, and knows nothing of clusters or of the build.

pub mod auth;
pub mod filesync;
mod health;
mod serve;
mod tunnel;

use crate::event::Events;
use crate::pb::moby::buildkit::v1::control_client::ControlClient;
use crate::task::Task;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Nothing at all comes from the daemon for so long: it is gone. It asks for our health every 5 s, so that a
/// session that lives is never silent (old daemons may wait 15 s for an answer before they ask again).
const SILENCE: Duration = Duration::from_secs(30);

/// How long closing may take.
const CLOSING: Duration = Duration::from_secs(2);

/// A service that the daemon may call back on during a build.
pub trait Attachable: Send {
    /// The methods as the session announces them: `/package.Service/Method`.
    fn methods(&self) -> &'static [&'static str];

    /// Adds the service to those served.
    fn register(self: Box<Self>, routes: &mut RoutesBuilder);
}

/// What a session is made of.
pub struct SessionOptions {
    /// Tells the daemon which earlier copy of the context this one resembles: stable per directory and machine,
    /// printable ASCII (else it is hashed).
    pub shared_key: String,
    /// What the daemon may call, besides health.
    pub attachables: Vec<Box<dyn Attachable>>,
    /// Where to tell what a person should know.
    pub events: Events,
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods: Vec<_> = self.attachables.iter().flat_map(|attachable| attachable.methods()).collect();
        formatter.debug_struct("SessionOptions").field("methods", &methods).finish_non_exhaustive()
    }
}

/// A session ended that should not have, or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The daemon does not open it.
    #[error("the builder refused the session")]
    Refused(#[source] Status),
    /// The call that carries it failed.
    #[error("the session with the builder broke")]
    Broken(#[source] Status),
    /// The daemon, or whatever is in between, spoke nonsense.
    #[error("the session with the builder broke")]
    Connection(#[source] hyper::Error),
    /// The daemon ended it.
    #[error("the builder ended the session")]
    Ended,
    /// Nothing was heard for too long.
    #[error("the builder has not been heard of for {} seconds", .0.as_secs())]
    Silent(Duration),
}

/// An open session. It must stay open until the solve that uses it has returned. Dropping it cuts it off;
/// [`close`](Self::close) ends it in order.
#[derive(Debug)]
pub struct Session {
    id: String,
    outbound: tunnel::OutboundEnd,
    task: Task<()>,
    /// Gone once it has spoken.
    over: Option<oneshot::Receiver<SessionError>>,
}

impl Session {
    /// Opens a session, without waiting for the daemon: it needs the session only when the solve asks for
    /// something, and then waits for it. Whether the daemon took it shows in [`closed`](Self::closed).
    ///
    /// # Errors
    /// None today; the result leaves room for a transport that must be asked first.
    pub async fn open(
        mut control: ControlClient<Channel>,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        let id = random_id();
        let mut methods = vec![health::METHOD];
        let mut routes = RoutesBuilder::default();
        health::register(&mut routes);
        for attachable in options.attachables {
            methods.extend_from_slice(attachable.methods());
            attachable.register(&mut routes);
        }

        let (heard, last_heard) = watch::channel(Instant::now());
        let (outbound, tunnel) = tunnel::new(heard);
        let mut request = Request::new(outbound);
        let metadata = request.metadata_mut();
        metadata.insert("x-docker-expose-session-uuid", ascii(&id));
        metadata.insert("x-docker-expose-session-sharedkey", ascii(&options.shared_key));
        for method in methods {
            metadata.append("x-docker-expose-session-grpc-method", MetadataValue::from_static(method));
        }
        let tunnel = tunnel(Box::pin(async move { control.session(request).await }));

        let (ended, over) = oneshot::channel();
        let (failure, outbound) = (tunnel.failure(), tunnel.outbound());
        let task = crate::task::spawn("session", async move {
            let reason = tokio::select! {
                served = serve::serve(tunnel, routes.routes()) => {
                    let failure = failure.lock().expect("no holder panics").take();
                    failure.unwrap_or_else(|| served.err().map_or(SessionError::Ended, SessionError::Connection))
                }
                () = silence(last_heard) => SessionError::Silent(SILENCE),
            };
            tracing::debug!(%reason, "session over");
            // The session may have been dropped meanwhile.
            let _unheard = ended.send(reason);
        });
        Ok(Self { id, outbound, task, over: Some(over) })
    }

    /// The id that a solve refers to.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Completes when the session ends by itself, with the reason: the daemon closed it, the call broke, or the
    /// daemon has been silent for 30 s. Cancel-safe; to be awaited beside the solve.
    pub async fn closed(&mut self) -> SessionError {
        let Some(over) = &mut self.over else { return SessionError::Ended };
        // The task always says why, unless it was cut off.
        let reason = over.await.unwrap_or(SessionError::Ended);
        self.over = None;
        reason
    }

    /// Ends the session in order: says that nothing more will come, and waits until the daemon has ended the call.
    /// Takes 2 s at most.
    pub async fn close(self) {
        self.outbound.close();
        if tokio::time::timeout(CLOSING, self.task.join()).await.is_err() {
            tracing::debug!(id = self.id, "session did not close in time");
        }
    }
}

/// Completes when nothing has been heard for [`SILENCE`].
async fn silence(last_heard: watch::Receiver<Instant>) {
    loop {
        let deadline = *last_heard.borrow() + SILENCE;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// Returns an id like the ones that Go clients make: 25 letters of base 36 (about 128 bits).
fn random_id() -> String {
    let mut bytes = [0_u8; 25];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    // 36 does not divide 256; the tilt costs a fraction of a bit per letter.
    bytes
        .iter()
        .map(|byte| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(byte % 36)]))
        .collect()
}

/// Returns a metadata value; what is no printable ASCII is replaced by its hash, which serves as well.
fn ascii(text: &str) -> MetadataValue<Ascii> {
    text.parse().unwrap_or_else(|_| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        hex.parse().expect("hexadecimal digits are ASCII")
    })
}

#[cfg(test)]
mod tests;
