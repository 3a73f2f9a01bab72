//! Sends local directories to the daemon: the session service `moby.filesync.v1.FileSync`, method `DiffCopy`.
//!
//! The daemon names a directory and patterns, is told of every entry in order, and asks for the contents of the
//! files that it doesn't have. What is sent is exact: what changed, vanished or can't be read while it is sent
//! fails the transfer by name, where upstream would send an empty file. Nothing here reads `.dockerignore`: the
//! daemon does, and asks accordingly.
//!
//! Pure: `lexical`, `patterns`, `expression`, `filter`, `packet`, `catalog`. The file system: `tree`,
//! `followpaths`, `prefetch`, `walk`. One transfer: `view`, `send`.

mod catalog;
mod error;
mod expression;
mod filter;
mod followpaths;
mod lexical;
mod packet;
mod patterns;
mod prefetch;
mod send;
mod tree;
mod view;
mod walk;

pub use error::SyncError;
pub use patterns::PatternError;

use super::Attachable;
use crate::event::Events;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::service::RoutesBuilder;

/// A directory that the daemon may read.
#[derive(Clone, Debug)]
pub struct LocalDir {
    /// The daemon's name for it, such as `context` or `dockerfile`.
    pub name: String,
    /// Where it is; a symlink to a directory will do.
    pub root: PathBuf,
}

/// The file sync service.
#[derive(Clone, Debug)]
pub struct FileSync {
    directories: Arc<[LocalDir]>,
    failures: send::Failures,
    events: Events,
    leave: Option<watch::Receiver<bool>>,
}

/// Keeps the first error of any transfer in full; the daemon's own error may have lost it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Report(send::Failures);

impl Report {
    /// Takes the error, if there was one.
    pub fn take(&self) -> Option<SyncError> {
        self.0.lock().expect("no holder panics").take()
    }

    /// How many hold on to it: the service, its handles, and every transfer's threads.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl FileSync {
    /// Serves these directories and no others.
    pub fn new(directories: Vec<LocalDir>, events: Events) -> Self {
        Self { directories: directories.into(), failures: Arc::new(Mutex::new(None)), events, leave: None }
    }

    /// Sends nothing before `leave` says so. A solve that was begun meanwhile has then done nothing: it waits for
    /// its Dockerfile.
    #[must_use]
    pub fn after(self, leave: watch::Receiver<bool>) -> Self {
        Self { leave: Some(leave), ..self }
    }

    /// Returns where errors are kept.
    pub fn report(&self) -> Report {
        Report(Arc::clone(&self.failures))
    }

    async fn answer(mut self, request: http::Request<Body>) -> http::Response<Body> {
        if let Some(leave) = &mut self.leave
            && leave.wait_for(|given| *given).await.is_err()
        {
            return Status::cancelled("the build was given up before it began").into_http();
        }
        self.respond(request)
    }

    fn respond(&self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != "/moby.filesync.v1.FileSync/DiffCopy" {
            return Status::unimplemented("only DiffCopy is served").into_http();
        }
        let view = view::View::read(request.headers());
        let Some(directory) = self.directories.iter().find(|directory| directory.name == view.directory)
        else {
            let text = format!("no access allowed to dir {:?}", view.directory);
            return Status::not_found(text).into_http();
        };
        tracing::debug!(?view, root = %directory.root.display(), "directory requested");
        let failures = Arc::clone(&self.failures);
        let body =
            send::start(view, directory.root.clone(), request.into_body(), failures, self.events.clone());
        let mut response = http::Response::new(Body::new(body));
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }
}

impl Attachable for FileSync {
    fn methods(&self) -> &'static [&'static str] {
        &["/moby.filesync.v1.FileSync/DiffCopy"]
    }

    fn register(self: Box<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(*self);
    }
}

impl tonic::server::NamedService for FileSync {
    const NAME: &'static str = "moby.filesync.v1.FileSync";
}

/// By hand rather than generated: the response is a stream of bytes that hold many messages each.
impl tower::Service<http::Request<Body>> for FileSync {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::Service as _;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_answered_before_leave_is_given() {
        let (give, leave) = watch::channel(false);
        let mut sync = FileSync::new(Vec::new(), Events::off()).after(leave);
        let mut ask = || sync.call(http::Request::new(Body::empty()));
        let code = |answer: http::Response<Body>| answer.headers()["grpc-status"].clone();
        let (mut first, second) = (ask(), ask());
        assert!(tokio::time::timeout(std::time::Duration::from_secs(3600), &mut first).await.is_err());
        give.send_replace(true);
        assert_eq!(code(first.await.expect("infallible")), "12", "the method is unknown");
        drop(give);
        assert_eq!(code(second.await.expect("infallible")), "12", "leave once given stays");

        let (give, leave) = watch::channel(false);
        let given_up =
            FileSync::new(Vec::new(), Events::off()).after(leave).call(http::Request::new(Body::empty()));
        drop(give);
        assert_eq!(code(given_up.await.expect("infallible")), "1", "cancelled");
    }
}
