//! Spawning and cancelling: the one place that starts tasks and the one type that says why work must stop.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Why everything must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Ctrl-C: exit code 130.
    Interrupt,
    /// SIGTERM (or SIGHUP): exit code 143.
    Terminate,
}

/// A cancellation that remembers its first cause. Clones share one fate.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    cause: Arc<OnceLock<Cause>>,
    parent: Option<Arc<Self>>,
}

impl Cancel {
    /// Returns one that nothing has cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns one that ends with this one, and can be cancelled alone.
    pub fn child(&self) -> Self {
        let parent = Some(Arc::new(self.clone()));
        Self { token: self.token.child_token(), cause: Arc::default(), parent }
    }

    /// Cancels; only the first cause is kept.
    pub fn cancel(&self, cause: Cause) {
        let _first_wins = self.cause.set(cause);
        self.token.cancel();
    }

    /// Returns the cause, once cancelled.
    pub fn cause(&self) -> Option<Cause> {
        self.parent.as_ref().and_then(|parent| parent.cause()).or(self.cause.get().copied())
    }

    /// Completes when cancelled, with the cause.
    pub async fn cancelled(&self) -> Cause {
        self.token.cancelled().await;
        self.cause().expect("the cause is set before the token is cancelled")
    }

    /// Runs `work` until it ends or everything is cancelled, whichever comes first; `work` is dropped then.
    ///
    /// # Errors
    /// The cause of the cancellation.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Cause> {
        tokio::select! {
            biased;
            cause = self.cancelled() => Err(cause),
            value = work => Ok(value),
        }
    }
}

/// A spawned task that is aborted when its handle is dropped: nothing is ever detached.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// Waits for the task; a panic in it goes on here.
    pub async fn join(mut self) -> T {
        match (&mut self.0).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only `abort` cancels, and it takes the handle away.
                Err(_) => unreachable!("a joined task is never aborted"),
            },
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Ends the task at its next await; the same as dropping the handle.
    pub fn abort(self) {
        drop(self);
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Spawns `future` under a span of this name.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let span = tracing::debug_span!("task", name);
    #[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
    Task(tokio::spawn(future.instrument(span)))
}

/// Runs blocking work on the runtime's pool of threads. It can't be aborted once it runs: keep it short, or
/// let it look at a flag.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    #[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
    Task(tokio::task::spawn_blocking(work))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_first_cause_wins() {
        let cancel = Cancel::new();
        cancel.cancel(Cause::Terminate);
        cancel.cancel(Cause::Interrupt);
        assert_eq!(cancel.guard(std::future::pending::<()>()).await, Err(Cause::Terminate));
    }

    #[tokio::test]
    async fn a_child_ends_alone_or_with_its_parent() {
        let parent = Cancel::new();
        let (one, other) = (parent.child(), parent.child());
        one.cancel(Cause::Terminate);
        assert_eq!(one.cancelled().await, Cause::Terminate);
        assert_eq!((parent.cause(), other.cause()), (None, None));
        parent.cancel(Cause::Interrupt);
        assert_eq!(other.cancelled().await, Cause::Interrupt);
    }

    #[tokio::test]
    async fn a_dropped_task_ends() {
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let task = spawn("test", async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(alive);
        });
        drop(task);
        assert!(gone.await.is_err(), "the sender is dropped with the task");
    }
}
