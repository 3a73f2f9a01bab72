//! A stream into a pod as a registry's connection: its end is put into words, and an unused one ends in time.

use super::{Router, Target};
use crate::cluster::Said;
use crate::cluster::exec::{ExecEnd, ExecHandle, ExecStream};
use crate::registry::connect::{Fault, RouteError, Way};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a connection by a process is kept for the next request: nobody tells when the other side has ended it.
const UNUSED: Duration = Duration::from_secs(10);

/// Where a stream leads, and how.
pub(super) struct Passage {
    at: String,
    way: Way,
    kind: Kind,
}

enum Kind {
    Port { router: Weak<Router>, host: String, port: u16 },
    Process { host: String },
}

impl Passage {
    pub(super) fn port(at: String, way: Way, router: &Arc<Router>, to: Target<'_>) -> Self {
        let kind = Kind::Port { router: Arc::downgrade(router), host: to.host.to_owned(), port: to.port };
        Self { at, way, kind }
    }

    pub(super) fn process(at: String, host: &str, way: Way) -> Self {
        Self { at, way, kind: Kind::Process { host: host.to_owned() } }
    }

    /// Puts a stream's end into words.
    fn explain(&self, handle: &ExecHandle, spoke: bool) -> RouteError {
        let Self { at, way: Way { through, hint }, kind } = self;
        let diagnosis = handle.diagnosis();
        let said = diagnosis.stderr.trim();
        let error = |what, fault| RouteError { what, hint: Some(hint.clone()), fault, source: None };
        match (kind, &diagnosis.end) {
            (Kind::Port { router, host, port }, Some(ExecEnd::Refused { message })) => {
                // Else the pod is gone, and the Service knows of another or of none.
                if message.contains("refused")
                    && let Some(router) = router.upgrade()
                {
                    router.refused(host, *port);
                }
                RouteError {
                    source: Some(Arc::new(Said(message.clone()))),
                    ..error(format!("nobody answers for {at} {through}"), Fault::Broken)
                }
            }
            (Kind::Process { .. }, Some(end)) if lacks_program(end, said) => RouteError {
                hint: Some(
                    "make the builder from an image that has busybox, as BuildKit's own have".to_owned(),
                ),
                ..error(format!("{at} is not reached {through}: its image has no `nc`"), Fault::NoWay)
            },
            (Kind::Process { host }, Some(ExecEnd::Exited { .. })) if !spoke => {
                if said.contains("bad address") {
                    let what = format!("the host name `{host}` does not resolve, asked {through}");
                    return error(what, Fault::NoWay);
                }
                let said = if said.is_empty() { diagnosis.to_string() } else { said.to_owned() };
                error(format!("{at} is not reached {through}: {said}"), Fault::NoWay)
            }
            (_, end) => {
                let end = end.as_ref().map_or("it ended".to_owned(), ToString::to_string);
                error(format!("the connection to {at} {through} broke: {end}"), Fault::Broken)
            }
        }
    }
}

fn lacks_program(end: &ExecEnd, said: &str) -> bool {
    let of =
        |text: &str| text.contains("executable file not found") || text.contains("no such file or directory");
    match end {
        ExecEnd::Failed { message } => of(message),
        ExecEnd::Exited { code } => matches!(code, 126 | 127) || of(said),
        _ => false,
    }
}

/// The stream.
pub(super) struct Tunnel {
    io: ExecStream,
    handle: ExecHandle,
    passage: Passage,
    /// Something came from the other side.
    spoke: bool,
    /// Runs while nothing was asked since the last answer, for streams whose end nobody tells.
    unused: Option<Pin<Box<Sleep>>>,
}

impl Tunnel {
    pub(super) fn new(io: ExecStream, passage: Passage) -> Self {
        let handle = io.handle();
        Self { io, handle, passage, spoke: false, unused: None }
    }

    fn explain(&self) -> io::Error {
        self.passage.explain(&self.handle, self.spoke).into()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.spoke = true;
                    if matches!(self.passage.kind, Kind::Process { .. }) {
                        let end = Instant::now() + UNUSED;
                        match &mut self.unused {
                            Some(timer) => timer.as_mut().reset(end),
                            None => self.unused = Some(Box::pin(tokio::time::sleep_until(end))),
                        }
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(self.explain())),
            Poll::Pending => match &mut self.unused {
                Some(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    Poll::Ready(Ok(()))
                }
                None => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unused = None;
        match ready!(Pin::new(&mut self.io).poll_write(cx, bytes)) {
            Ok(taken) => Poll::Ready(Ok(taken)),
            Err(_) => Poll::Ready(Err(self.explain())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Where the protocol cannot say it, dropping the stream does.
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
