//! One build: the solve, its status beside it, and the three ways in which it ends.

use super::MESSAGE_LIMIT;
use super::client::Client;
use super::failure::{Class, Failure};
use super::link::Lost;
use super::silence::PATIENCE;
use super::status::{self, Drain};
pub use super::status::{Pushing, Still};
use super::warnings::Warnings;
use crate::event::Events;
use crate::pb::moby::buildkit::v1 as wire;
use crate::task::{self, Cancel, Cause};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::Status;

/// The Dockerfile frontend that is built into the daemon.
pub const DOCKERFILE: &str = "dockerfile.v0";

/// What a build asks of the daemon.
#[derive(Clone, Debug, Default)]
pub struct SolveRequest {
    /// The name of the build at the daemon; new for each build, see [`random_reference`].
    pub reference: String,
    /// The session that serves the context, credentials and so on; open for as long as the solve.
    pub session_id: String,
    /// Usually [`DOCKERFILE`].
    pub frontend: String,
    /// The frontend's attributes, such as `filename` and `build-arg:NAME`.
    pub attrs: BTreeMap<String, String>,
    /// What becomes of the result; nothing leaves it in the cache. Their order is their number in the session.
    pub exporters: Vec<Exporter>,
    /// The caches that the build begins from; the frontend has to be told of them, too.
    pub imports: Vec<CacheEntry>,
    /// The caches that it leaves.
    pub exports: Vec<CacheEntry>,
    /// Such as `network.host`.
    pub entitlements: Vec<String>,
    /// Is told of the push while it lasts.
    pub pushing: Pushing,
    /// Is told of warnings, as they come.
    pub warnings: Warnings,
}

/// Something that becomes of a build's result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exporter {
    /// Such as `image`.
    pub kind: String,
    /// Its attributes. The daemon takes unknown ones for metadata, silently: mind the spelling.
    pub attrs: BTreeMap<String, String>,
}

/// A cache beside the daemon's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry` or `inline`.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

/// A build that gave no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SolveError {
    /// We cancelled it, and the daemon was told.
    #[error("the build was cancelled")]
    Cancelled(Cause),
    /// The daemon is gone; it cancels the build itself when it notices.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The daemon says that it failed.
    #[error(transparent)]
    Failed(#[from] Box<Failure>),
}

/// After the end of a solve the daemon ends the status by itself; the limits are for when it doesn't.
const DRAIN: Drain = Drain { quiet: Duration::from_secs(5), limit: Duration::from_secs(15) };

/// After a cancellation a person waits.
const DRAIN_CANCELLED: Drain = Drain { quiet: Duration::from_secs(2), limit: Duration::from_secs(4) };

const DRAIN_NOTHING: Drain = Drain { quiet: Duration::ZERO, limit: Duration::ZERO };

/// Runs one build and returns the exporters' reply, such as `containerimage.digest`, flat over all exporters.
///
/// Events are told until the daemon has told everything, also after a failure: when this returns, no more come.
/// Cancelling resets the call, upon which the daemon stops the build, and waits at most 4 s for the last events.
/// Dropping the future resets the call too, without that wait. There is no limit on the build's own time, but a
/// daemon that stops answering is noticed within 15 s; the connection is cut then, so that whatever else runs
/// on it ends as well.
///
/// # Errors
/// Cancelled, connection lost, or the daemon's failure.
pub async fn solve(
    client: &Client,
    request: SolveRequest,
    events: &Events,
    cancel: &Cancel,
) -> Result<BTreeMap<String, String>, SolveError> {
    let (end, ended) = oneshot::channel();
    let (reference, told) = (request.reference.clone(), (request.pushing.clone(), request.warnings.clone()));
    let follow = status::follow(client.clone(), reference, events.clone(), told, ended);
    let progress = task::spawn("status", follow);

    let outcome = run(client, request, cancel).await;

    let drain = match &outcome {
        Ok(_) | Err(SolveError::Failed(_)) => DRAIN,
        Err(SolveError::Cancelled(_)) => DRAIN_CANCELLED,
        Err(SolveError::Lost(lost)) => {
            client.link.cut(io::Error::new(io::ErrorKind::TimedOut, lost.to_string()));
            DRAIN_NOTHING
        }
    };
    // The follower may be done already.
    let _follower_gone = end.send(drain);
    let joined = progress.join();
    if matches!(outcome, Ok(_) | Err(SolveError::Failed(_))) {
        // Impatience now only costs the last events; the outcome stands.
        let _impatient = cancel.guard(joined).await;
    } else {
        joined.await;
    }
    outcome
}

async fn run(
    client: &Client,
    request: SolveRequest,
    cancel: &Cancel,
) -> Result<BTreeMap<String, String>, SolveError> {
    let mut control = client.control();
    let request = request.into_wire();
    let size = request.encoded_len();
    // What tonic does not send looks like a lost connection afterwards.
    if size > MESSAGE_LIMIT {
        let text = format!(
            "the build's request has {size} bytes, and BuildKit takes no more than {MESSAGE_LIMIT}: build arguments and labels are part of it"
        );
        let failure = Failure::from_status(&Status::out_of_range(text));
        return Err(Box::new(Failure { class: Class::MessageTooLarge, ..failure }).into());
    }
    // The losers of this race are dropped on return; for the call that is the reset which cancels the build.
    tokio::select! {
        biased;
        cause = cancel.cancelled() => Err(SolveError::Cancelled(cause)),
        reply = control.solve(request) => match reply {
            Ok(reply) => Ok(reply.into_inner().exporter_response.into_iter().collect()),
            Err(status) => Err(Box::new(client.answered(&status)?).into()),
        },
        lost = client.silent_for(PATIENCE) => Err(lost.into()),
    }
}

impl SolveRequest {
    fn into_wire(self) -> wire::SolveRequest {
        let entries = |caches: Vec<CacheEntry>| {
            let caches = caches.into_iter();
            caches
                .map(|it| wire::CacheOptionsEntry { r#type: it.kind, attrs: it.attrs.into_iter().collect() })
                .collect()
        };
        let exporters = self.exporters.into_iter();
        wire::SolveRequest {
            r#ref: self.reference,
            session: self.session_id,
            frontend: self.frontend,
            frontend_attrs: self.attrs.into_iter().collect(),
            cache: Some(wire::CacheOptions {
                exports: entries(self.exports),
                imports: entries(self.imports),
            }),
            entitlements: self.entitlements,
            exporters: exporters
                .map(|it| wire::Exporter { r#type: it.kind, attrs: it.attrs.into_iter().collect() })
                .collect(),
        }
    }
}

/// Returns a new name for a build or a session: 25 random digits and small letters, as BuildKit's own clients
/// make them. The daemon refuses a name twice, even 10 s after the first build ended.
pub fn random_reference() -> String {
    let mut bytes = [0; 25];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    // 256 isn't a multiple of 36; the slight bias costs one of 129 bits.
    bytes.iter().map(|byte| char::from_digit(u32::from(byte % 36), 36).expect("below 36")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_base36_and_new() {
        let first = random_reference();
        assert_eq!(first.len(), 25);
        assert!(first.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()), "{first}");
        assert_ne!(first, random_reference());
    }
}
