//! Presents the `Control.Session` call as one stream of bytes.
//!
//! Each message of the call holds some bytes; where one message ends means nothing. What is written gathers in
//! one buffer until the outer connection has room, and then goes as one message: the small writes of a busy inner
//! connection become few large ones.

use super::SessionError;
use crate::pb::moby::buildkit::v1::BytesMessage;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

/// Bytes written and not yet taken by the outer connection; writes wait beyond that.
const BUFFERED: usize = 256 << 10;

/// Room that is made at once.
const PIECE: usize = 64 << 10;

/// The call's answer; it comes with the daemon's first bytes, not before.
pub(super) type Answer =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<BytesMessage>>, Status>> + Send>>;

/// Returns what the call sends, and a function that makes the tunnel from the call's answer. `heard` gets the
/// time of every message that arrives.
pub(super) fn new(heard: watch::Sender<Instant>) -> (Outbound, impl FnOnce(Answer) -> Tunnel) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let outbound = Outbound(Arc::clone(&shared));
    let failure = Arc::new(Mutex::new(None));
    let inbound = |answer| Tunnel {
        outbound: OutboundEnd(shared),
        inbound: Inbound::Awaited(answer),
        rest: Bytes::new(),
        heard,
        failure,
    };
    (outbound, inbound)
}

#[derive(Debug, Default)]
struct Shared {
    buffer: BytesMut,
    /// Nothing more is sent: what is written from now on is dropped.
    closed: bool,
    /// The call is over.
    broken: bool,
    /// The outer connection, when it waits for bytes.
    taker: Option<Waker>,
    /// The inner one, when it waits for room.
    writer: Option<Waker>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no holder panics")
}

/// The messages that the call sends.
#[derive(Debug)]
pub(super) struct Outbound(Arc<Mutex<Shared>>);

impl Stream for Outbound {
    type Item = BytesMessage;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BytesMessage>> {
        let mut shared = lock(&self.0);
        if !shared.buffer.is_empty() {
            let data = shared.buffer.split().freeze();
            let writer = shared.writer.take();
            drop(shared);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Some(BytesMessage { data }));
        }
        if shared.closed {
            return Poll::Ready(None);
        }
        shared.taker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.broken = true;
        let writer = shared.writer.take();
        drop(shared);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// The writing side; the call's messages end when [`close`](Self::close) is called or the tunnel is dropped.
#[derive(Clone, Debug)]
pub(super) struct OutboundEnd(Arc<Mutex<Shared>>);

impl OutboundEnd {
    /// Ends what the call sends, after what was written so far. The daemon then ends the call.
    pub(super) fn close(&self) {
        let mut shared = lock(&self.0);
        shared.closed = true;
        let taker = shared.taker.take();
        drop(shared);
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.outbound.close();
    }
}

enum Inbound {
    Awaited(Answer),
    Open(Box<Streaming<BytesMessage>>),
    Ended,
}

/// Why the tunnel broke; kept apart from the inner connection's error, which says less.
pub(super) type Failure = Arc<Mutex<Option<SessionError>>>;

/// The stream of bytes.
pub(super) struct Tunnel {
    outbound: OutboundEnd,
    inbound: Inbound,
    rest: Bytes,
    heard: watch::Sender<Instant>,
    failure: Failure,
}

impl Tunnel {
    /// Returns the handle that ends what is sent.
    pub(super) fn outbound(&self) -> OutboundEnd {
        self.outbound.clone()
    }

    /// Returns where the reason of a broken tunnel will be.
    pub(super) fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// Waits for the next message, `None` at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, SessionError>> {
        loop {
            match &mut self.inbound {
                Inbound::Awaited(answer) => match std::task::ready!(answer.as_mut().poll(context)) {
                    Ok(response) => self.inbound = Inbound::Open(Box::new(response.into_inner())),
                    Err(status) => {
                        self.inbound = Inbound::Ended;
                        return Poll::Ready(Err(SessionError::Refused(status)));
                    }
                },
                Inbound::Open(stream) => {
                    let message = std::task::ready!(Pin::new(stream).poll_next(context));
                    self.heard.send_replace(Instant::now());
                    return Poll::Ready(match message {
                        Some(Ok(message)) => Ok(Some(message.data)),
                        Some(Err(status)) => {
                            self.inbound = Inbound::Ended;
                            Err(SessionError::Broken(status))
                        }
                        None => {
                            self.inbound = Inbound::Ended;
                            Ok(None)
                        }
                    });
                }
                Inbound::Ended => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.poll_message(context)) {
                Ok(Some(data)) => self.rest = data,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => {
                    let kind = io::Error::new(io::ErrorKind::ConnectionReset, error.to_string());
                    self.failure.lock().expect("no holder panics").get_or_insert(error);
                    return Poll::Ready(Err(kind));
                }
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Tunnel {
    fn poll_put(&self, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.outbound.0);
        if shared.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if shared.closed {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let mut room = BUFFERED.saturating_sub(shared.buffer.len());
        if room == 0 {
            shared.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        // The room that was there before, if the outer connection is done with it, rather than many small pieces.
        if shared.buffer.is_empty() {
            shared.buffer.reserve(PIECE);
        }
        for slice in slices {
            let length = slice.len().min(room);
            shared.buffer.extend_from_slice(&slice[..length]);
            (written, room) = (written + length, room - length);
        }
        let taker = shared.taker.take();
        drop(shared);
        if let Some(taker) = taker {
            taker.wake();
        }
        Poll::Ready(Ok(written))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(context, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is written is on its way: the outer connection takes it as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.close();
        Poll::Ready(Ok(()))
    }
}
