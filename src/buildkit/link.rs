//! The byte stream under the channel: when the daemon was last heard, why the stream ended, and the cut.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The connection to the daemon is gone, whatever the daemon itself may be doing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Lost {
    /// The stream is open, but nothing came through it for this long, not even the answer to a question.
    #[error("BuildKit has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    /// The stream ended or failed.
    #[error("the connection to BuildKit was lost")]
    Broken(#[source] Arc<io::Error>),
}

/// What the two ends of a tapped stream share.
#[derive(Debug)]
pub(super) struct Link {
    opened: Instant,
    /// Milliseconds after `opened`.
    heard: AtomicU64,
    sent: AtomicU64,
    cut: CancellationToken,
    fault: OnceLock<Arc<io::Error>>,
}

impl Link {
    /// Returns `io` with its clock.
    pub(super) fn tap<Io>(io: Io) -> (Tapped<Io>, Arc<Self>) {
        let link = Arc::new(Self {
            opened: Instant::now(),
            heard: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            cut: CancellationToken::new(),
            fault: OnceLock::new(),
        });
        let cut = Box::pin(link.cut.clone().cancelled_owned());
        (Tapped { io, link: Arc::clone(&link), cut }, link)
    }

    fn mark(&self, clock: &AtomicU64) {
        let elapsed = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        clock.store(elapsed, Ordering::Relaxed);
    }

    fn at(&self, clock: &AtomicU64) -> Instant {
        self.opened + Duration::from_millis(clock.load(Ordering::Relaxed))
    }

    /// When a byte last came.
    pub(super) fn heard(&self) -> Instant {
        self.at(&self.heard)
    }

    /// When the stream last took a byte from us.
    pub(super) fn sent(&self) -> Instant {
        self.at(&self.sent)
    }

    /// Why the stream ended, if it did.
    pub(super) fn fault(&self) -> Option<Arc<io::Error>> {
        self.fault.get().cloned()
    }

    /// Ends the stream for both sides; every call on it fails at once.
    pub(super) fn cut(&self, why: io::Error) {
        self.record(why);
        self.cut.cancel();
    }

    fn record(&self, error: io::Error) -> io::Error {
        let error = Arc::new(error);
        let kind = error.kind();
        // The first one is the cause, the others follow from it.
        let _first_wins = self.fault.set(Arc::clone(&error));
        io::Error::new(kind, error)
    }

    fn cut_error(&self) -> io::Error {
        let why = self.fault().unwrap_or_else(|| Arc::new(io::ErrorKind::ConnectionAborted.into()));
        io::Error::new(why.kind(), why)
    }
}

/// A stream whose traffic is timed.
#[derive(Debug)]
pub(super) struct Tapped<Io> {
    io: Io,
    link: Arc<Link>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Tapped<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Polled here only: reading never ends while the connection lives, so this is always woken.
        if this.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(this.link.cut_error()));
        }
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut this.io).poll_read(context, buffer)) {
            Ok(()) if buffer.filled().len() > before => {
                this.link.mark(&this.link.heard);
                Poll::Ready(Ok(()))
            }
            Ok(()) => {
                this.link.record(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended"));
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(this.link.record(error))),
        }
    }
}

impl<Io> Tapped<Io> {
    fn wrote(&self, outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
        Poll::Ready(match outcome {
            Ok(count) => {
                self.link.mark(&self.link.sent);
                Ok(count)
            }
            Err(error) => Err(self.link.record(error)),
        })
    }

    fn is_cut(&self) -> bool {
        self.link.cut.is_cancelled()
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Tapped<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(self.link.cut_error()));
        }
        let outcome = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(self.link.cut_error()));
        }
        let outcome = ready!(Pin::new(&mut self.io).poll_write_vectored(context, slices));
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Err(self.link.cut_error()));
        }
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn reading_and_writing_move_their_own_clocks() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut near, link) = Link::tap(near);
        let opened = link.heard();
        tokio::time::advance(Duration::from_secs(3)).await;
        near.write_all(b"hello").await.expect("room in the pipe");
        assert_eq!((link.heard() - opened).as_secs(), 0);
        assert_eq!((link.sent() - opened).as_secs(), 3);
        tokio::time::advance(Duration::from_secs(2)).await;
        far.write_all(b"hi").await.expect("room in the pipe");
        near.read_exact(&mut [0; 2]).await.expect("two bytes");
        assert_eq!((link.heard() - opened).as_secs(), 5);
        assert!(link.fault().is_none());
    }

    #[tokio::test]
    async fn the_first_fault_is_kept() {
        let (near, far) = tokio::io::duplex(64);
        let (mut near, link) = Link::tap(near);
        drop(far);
        assert_eq!(near.read(&mut [0; 1]).await.expect("an orderly end"), 0);
        near.write_all(b"x").await.expect_err("nobody reads");
        assert_eq!(link.fault().expect("a fault").to_string(), "the stream ended");
    }

    #[tokio::test]
    async fn a_cut_wakes_the_reader() {
        let (near, _far) = tokio::io::duplex(64);
        let (mut near, link) = Link::tap(near);
        let read = async { near.read(&mut [0; 1]).await };
        let cut = async { link.cut(io::Error::new(io::ErrorKind::TimedOut, "silent")) };
        let (outcome, ()) = tokio::join!(read, cut);
        let error = outcome.expect_err("the stream is cut");
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::TimedOut, "silent".to_owned()));
    }
}
