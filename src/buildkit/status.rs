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

/// Since when a push, or the reading of a cache, has told nothing new. The daemon has no limit of its own for a registry
/// that takes its requests and never answers.
#[derive(Clone, Debug, Default)]
pub struct Pushing(watch::Sender<Standing>);

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// An image or a cache is being pushed.
    Push,
    /// A cache is being read, and nothing pushed.
    Import,
}

#[derive(Debug, Default)]
struct Standing {
    /// What is being pushed: the step, and the daemon's words for it.
    active: BTreeSet<(String, String)>,
    /// The steps that read caches.
    imports: BTreeSet<String>,
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
                let it = (status.vertex.clone(), status.id.clone());
                match status.completed {
                    Some(_) => standing.active.remove(&it),
                    None => standing.active.insert(it),
                };
            }
            // solver/llbsolver/bridge.go
            let imports = |name: &str| name.starts_with("importing cache manifest from ");
            for vertex in message.vertexes.iter().filter(|vertex| imports(&vertex.name)) {
                match (&vertex.started, &vertex.completed) {
                    (_, Some(_)) => standing.imports.remove(&vertex.digest),
                    (Some(_), None) => standing.imports.insert(vertex.digest.clone()),
                    (None, None) => false,
                };
            }
            let idle = standing.active.is_empty() && standing.imports.is_empty();
            standing.last = (!idle).then(Instant::now);
        });
    }

    /// Returns once something is under way of which nothing has been heard for so long.
    pub async fn stands_still(&self, patience: Duration) -> Still {
        let mut changes = self.0.subscribe();
        loop {
            let (last, still) = {
                let standing = changes.borrow_and_update();
                (standing.last, if standing.active.is_empty() { Still::Import } else { Still::Push })
            };
            let quiet = async {
                match last {
                    Some(last) => sleep_until(last + patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = quiet => return still,
                // The sender is ours, so it is there.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::moby::buildkit::v1::{Vertex, VertexStatus};

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
        assert_eq!(pushing.stands_still(PATIENCE).await, Still::Push);
        pushing.note(&status("pushing layers", true));
        assert!(!still(&pushing, 3600).await, "it is done");

        let vertex = |completed: bool| {
            let time = Some(prost_types::Timestamp::default());
            let completed = time.filter(|_| completed);
            let name = "importing cache manifest from r.example/c:1".to_owned();
            let vertex = Vertex { name, started: time, completed, ..Vertex::default() };
            StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
        };
        pushing.note(&vertex(false));
        assert_eq!(pushing.stands_still(PATIENCE).await, Still::Import);
        pushing.note(&vertex(true));
        assert!(!still(&pushing, 3600).await, "it is read");
    }
}
