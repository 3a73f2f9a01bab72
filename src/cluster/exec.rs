//! Byte streams into a pod: to a process by `exec`, to a port by `portforward`, over WebSocket, with two pumps that
//! never wait for each other.
//!
//! The library's own `AttachedProcess` moves both directions in one loop through 1 KiB pipes; under HTTP/2, whose
//! reading depends on its writing, that can deadlock. Here the reading pump and the writing pump each own one
//! half of the WebSocket and one bounded queue.
//!
//! The protocol is Kubernetes' `v5.channel.k8s.io` (the close signal `[255, channel]`), else `v4` (without it):
//! the first byte of each binary frame is the channel, 0 stdin, 1 stdout, 2 stderr, 3 the final `metav1.Status`
//! (`k8s.io/apimachinery/pkg/util/remotecommand`). A port's is the kubelet's own over `v4`: channel 0 carries bytes,
//! 1 why there are none, and the first frame of each repeats the port (`k8s.io/kubelet/pkg/cri/streaming/portforward`).

mod dial;
mod end;
mod pump;
mod queue;

pub use dial::{Command, DialError, Output, converse, dial, forward, run};
pub use end::{Diagnosis, ExecEnd};

use crate::task::{self, Task};
use futures_util::{Sink, Stream};
use pump::Channels;
use queue::Queues;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// How long a stream lives in silence, and how often it asks for a sign of life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// The time between pings.
    pub(crate) ping: Duration,
    /// Without any frame, and without any bytes taken off our hands, for this long, the peer is dead.
    pub(crate) dead: Duration,
}

impl Default for Liveness {
    /// A loss is to be known within 15 s: two pings unanswered, and a little.
    fn default() -> Self {
        Self { ping: Duration::from_secs(5), dead: Duration::from_secs(12) }
    }
}

/// The stdin and stdout of a process in a pod.
///
/// Reading ends with the process: end of file if it ended well, else an error that says how it ended.
/// [`AsyncWrite::poll_shutdown`] closes the process's stdin where the server speaks v5; v4 has no way to say it.
/// Dropping it cuts the stream, which ends the process's stdin too.
#[derive(Debug)]
pub struct ExecStream {
    queues: Arc<Queues>,
    _pumps: [Task<()>; 2],
}

impl ExecStream {
    /// Starts the pumps over a WebSocket whose handshake is done.
    pub(crate) fn over<S>(socket: S, closes: bool, liveness: Liveness) -> Self
    where
        S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Send + 'static,
    {
        Self::start(socket, Channels::Process, closes, liveness)
    }

    fn start<S>(socket: S, channels: Channels, closes: bool, liveness: Liveness) -> Self
    where
        S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Send + 'static,
    {
        let queues = Arc::new(Queues::new(closes));
        let (sink, stream) = futures_util::StreamExt::split(socket);
        let writer = task::spawn("exec-write", pump::write(sink, Arc::clone(&queues), liveness.ping));
        let reader =
            task::spawn("exec-read", pump::read(stream, channels, Arc::clone(&queues), liveness.dead));
        Self { queues, _pumps: [writer, reader] }
    }

    /// Returns a handle that outlives the stream and tells how it ended.
    pub fn handle(&self) -> ExecHandle {
        ExecHandle { queues: Arc::clone(&self.queues) }
    }

    /// Returns what is known of the process so far.
    pub fn diagnosis(&self) -> Diagnosis {
        self.queues.diagnosis()
    }
}

/// Tells about a stream that somebody else reads and writes.
#[derive(Clone, Debug)]
pub struct ExecHandle {
    queues: Arc<Queues>,
}

impl ExecHandle {
    /// Completes when the stream has ended, for whatever reason; never before.
    pub async fn ended(&self) -> ExecEnd {
        self.queues.ended().await
    }

    /// Completes when the process has written something or the stream has ended.
    pub(super) async fn greeted(&self) {
        self.queues.greeted().await;
    }

    /// Returns what is known of the process so far.
    pub fn diagnosis(&self) -> Diagnosis {
        self.queues.diagnosis()
    }
}

impl AsyncRead for ExecStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.queues.poll_read(cx, buffer)
    }
}

impl AsyncWrite for ExecStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.queues.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.queues.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The writing pump takes what there is as soon as it can; nothing waits for a flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queues.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
