//! Following the status of a build, and the bounded wait for its end.

use super::client::Client;
use super::failure::Class;
use super::translate::Translator;
use super::warnings::Warnings;
use crate::event::Events;
use crate::pb::moby::buildkit::v1::{StatusRequest, StatusResponse};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

/// How long to go on reading once the build has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The end of the wait for the next message.
    pub(super) quiet: Duration,
    /// The end of it all.
    pub(super) limit: Duration,
}

/// Tells the events of build `reference` until the daemon has told everything or, once `ended` says that the
/// build is over, until the drain's time is up. Runs beside the solve, on its own: a solve that fails or is
/// cancelled still has its last words here.
///
/// A status that can't be read only costs the progress, never the build.
pub(super) async fn follow(
    client: Client,
    reference: String,
    events: Events,
    told: (Pushing, Warnings),
    ended: oneshot::Receiver<Drain>,
) {
    let mut translator = Translator::default();
    let patience = Patience { ended: Some(ended), drain: None, last: Instant::now() };
    if let Err(status) = read(&client, reference, &events, &mut translator, (patience, told)).await {
        // The solve reports a lost connection, and old daemons have no status.
        let failure = client.answered(&status);
        let failure =
            failure.ok().filter(|it| it.class != Class::Unsupported && it.class != Class::Cancelled);
        if let Some(failure) = failure.filter(|it| it.code != tonic::Code::NotFound) {
            events.note(format!("the progress of the build cannot be shown any more: {failure}"));
        }
    }
    for event in translator.finish(SystemTime::now()) {
        events.send(event);
    }
}

async fn read(
    client: &Client,
    reference: String,
    events: &Events,
    translator: &mut Translator,
    (mut patience, (pushing, warnings)): (Patience, (Pushing, Warnings)),
) -> Result<(), Status> {
    let mut control = client.control();
    let call = control.status(StatusRequest { r#ref: reference });
    let Some(reply) = patience.wait(call).await else { return Ok(()) };
    let reply = reply?;
    if let Some(clock) = daemon_clock(reply.metadata()) {
        translator.set_daemon_clock(clock, SystemTime::now());
    }
    let mut messages: Streaming<StatusResponse> = reply.into_inner();
    while let Some(message) = patience.wait(messages.message()).await {
        let Some(message) = message? else { break };
        pushing.note(&message);
        warnings.note(&message);
        for event in translator.apply(message, SystemTime::now()) {
            events.send(event);
        }
    }
    Ok(())
}

/// The daemon's clock at the time of its reply (moby/buildkit control/control.go, `sendTimestampHeader`).
fn daemon_clock(headers: &MetadataMap) -> Option<SystemTime> {
    let text = headers.get("buildkit-current-timestamp")?.to_str().ok()?;
    Some(text.parse::<jiff::Timestamp>().ok()?.into())
}

/// Waits without end while the build runs, and within the drain's limits afterwards.
struct Patience {
    ended: Option<oneshot::Receiver<Drain>>,
    drain: Option<(Drain, Instant)>,
    last: Instant,
}

impl Patience {
    /// Returns what `next` gives, or `None` when the patience is over.
    async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let mut next = std::pin::pin!(next);
        if let Some(ended) = &mut self.ended {
            tokio::select! {
                biased;
                value = &mut next => return Some(value),
                drain = ended => {
                    // Nobody holds the other end any more: the build was dropped.
                    let drain = drain.ok()?;
                    self.ended = None;
                    self.last = Instant::now();
                    self.drain = Some((drain, self.last + drain.limit));
                }
            }
        }
        let (drain, end) = self.drain?;
        let deadline = end.min(self.last + drain.quiet);
        tokio::select! {
            // The clock first: a status that never pauses must end too.
            biased;
            () = sleep_until(deadline) => None,
            value = next => {
                self.last = Instant::now();
                Some(value)
            }
        }
    }
}

/// Since when a push has told nothing new. The daemon has no limit of its own for a registry that takes its
/// requests and never answers.
#[derive(Clone, Debug, Default)]
pub struct Pushing(watch::Sender<Standing>);

#[derive(Debug, Default)]
struct Standing {
    /// What is being pushed, by the daemon's words for it.
    active: BTreeSet<String>,
    /// When it was last heard of.
    last: Option<Instant>,
}

impl Pushing {
    fn note(&self, message: &StatusResponse) {
        self.0.send_modify(|standing| {
            // `pushing layers`, `pushing manifest for NAME` (moby/buildkit util/push/push.go), and of a cache `writing layer
            // DIGEST` and so on (cache/remotecache/export.go).
            let pushes = |id: &str| id.starts_with("pushing ") || id.starts_with("writing ");
            for status in message.statuses.iter().filter(|status| pushes(&status.id)) {
                match status.completed {
                    Some(_) => standing.active.remove(&status.id),
                    None => standing.active.insert(status.id.clone()),
                };
            }
            standing.last = (!standing.active.is_empty()).then(Instant::now);
        });
    }

    /// Returns once a push is under way of which nothing has been heard for so long.
    pub async fn stands_still(&self, patience: Duration) {
        let mut changes = self.0.subscribe();
        loop {
            let last = changes.borrow_and_update().last;
            let quiet = async {
                match last {
                    Some(last) => sleep_until(last + patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = quiet => return,
                // The sender is ours, so it is there.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::moby::buildkit::v1::VertexStatus;

    fn status(id: &str, completed: bool) -> StatusResponse {
        let completed = completed.then(prost_types::Timestamp::default);
        let status = VertexStatus { id: id.to_owned(), completed, ..VertexStatus::default() };
        StatusResponse { statuses: vec![status], ..StatusResponse::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_push_that_tells_nothing_stands_still() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let pushing = Pushing::default();
        let still = async |pushing: &Pushing, wait: u64| {
            tokio::time::timeout(Duration::from_secs(wait), pushing.stands_still(PATIENCE)).await.is_ok()
        };
        pushing.note(&status("exporting layers", false));
        assert!(!still(&pushing, 3600).await, "nothing is pushed");
        pushing.note(&status("pushing layers", false));
        assert!(!still(&pushing, 19).await);
        pushing.note(&status("sha256:abc", false));
        assert!(!still(&pushing, 19).await, "something was heard");
        assert!(still(&pushing, 2).await);
        pushing.note(&status("pushing layers", true));
        assert!(!still(&pushing, 3600).await, "it is done");
    }
}
