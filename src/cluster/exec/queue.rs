//! What stands between a stream's user and its pumps: one bounded queue each way, and the end.
//!
//! Outgoing bytes gather in one frame until the writing pump takes it: a busy pump gets full frames, an idle one
//! gets each write at once. Incoming frames are kept as they came and copied once, into the reader's buffer.

use super::{Diagnosis, ExecEnd};
use bytes::{Buf as _, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most payload in one frame. Measured against a real API server: 8 and 16 KiB go at half to four fifths of the
/// speed of `kubectl exec`, 32 KiB as fast, 64 and 128 KiB a little faster. Larger ones make what is urgent wait
/// longer on a slow line.
pub(super) const FRAME: usize = 64 * 1024;
/// How much is kept for a slow reader before the pump stops reading: TCP's backpressure does the rest.
pub(super) const INCOMING: usize = 512 * 1024;
/// How much of standard error is kept.
const STDERR: usize = 16 * 1024;

/// Channel 0 of the protocol.
const STDIN: u8 = 0;

#[derive(Debug)]
pub(super) struct Queues {
    state: Mutex<State>,
    /// Wakes the writing pump: something to send, a shutdown, the end.
    to_send: Notify,
    /// Wakes the reading pump: there is room again.
    room: Notify,
    /// Wakes whoever waits for the end or the first byte.
    news: Notify,
    /// Whether the protocol can close stdin alone.
    closes: bool,
}

#[derive(Debug)]
struct State {
    /// The frame being filled; empty, or the channel byte and payload.
    outgoing: Vec<u8>,
    shutdown: Shutdown,
    writer: Option<Waker>,
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    reader: Option<Waker>,
    greeted: bool,
    stderr: Vec<u8>,
    end: Option<ExecEnd>,
    /// When the peer last showed that it lives.
    alive: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    No,
    Asked,
    Sent,
}

/// What the writing pump does next.
#[derive(Debug)]
pub(super) enum Send {
    Frame(Vec<u8>),
    /// The close signal for stdin.
    Close,
}

impl Queues {
    pub(super) fn new(closes: bool) -> Self {
        let state = State {
            outgoing: Vec::new(),
            shutdown: Shutdown::No,
            writer: None,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            reader: None,
            greeted: false,
            stderr: Vec::new(),
            end: None,
            alive: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            to_send: Notify::new(),
            room: Notify::new(),
            news: Notify::new(),
            closes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queues")
    }

    // === The user's side ===

    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let mut copied = 0;
        while let Some(front) = state.incoming.front_mut() {
            let length = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..length]);
            front.advance(length);
            copied += length;
            if !front.is_empty() {
                break;
            }
            state.incoming.pop_front();
        }
        if copied > 0 || buffer.remaining() == 0 {
            let was_full = state.incoming_bytes >= INCOMING;
            state.incoming_bytes -= copied;
            if was_full && state.incoming_bytes < INCOMING {
                self.room.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        match &state.end {
            Some(end) if end.is_success() => Poll::Ready(Ok(())),
            Some(end) => Poll::Ready(Err(end.to_io())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_write(&self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(match end.is_success() {
                true => io::ErrorKind::BrokenPipe.into(),
                false => end.to_io(),
            }));
        }
        if state.shutdown != Shutdown::No {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.outgoing.len() > FRAME {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.outgoing.is_empty() {
            state.outgoing.push(STDIN);
        }
        let mut taken = 0;
        for slice in slices {
            let length = slice.len().min(FRAME + 1 - state.outgoing.len());
            state.outgoing.extend_from_slice(&slice[..length]);
            taken += length;
        }
        if state.outgoing.len() == 1 {
            state.outgoing.clear();
        } else {
            self.to_send.notify_one();
        }
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_shutdown(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.end.is_some() || state.shutdown == Shutdown::Sent {
            return Poll::Ready(Ok(()));
        }
        state.shutdown = Shutdown::Asked;
        state.writer = Some(cx.waker().clone());
        self.to_send.notify_one();
        Poll::Pending
    }

    pub(super) async fn ended(&self) -> ExecEnd {
        loop {
            let notified = self.news.notified();
            tokio::pin!(notified);
            // Registered before the look, or news between the two would be missed.
            notified.as_mut().enable();
            if let Some(end) = self.end() {
                return end;
            }
            notified.await;
        }
    }

    pub(super) async fn greeted(&self) {
        loop {
            let notified = self.news.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.state();
                if state.greeted || state.end.is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(super) fn diagnosis(&self) -> Diagnosis {
        let state = self.state();
        Diagnosis { stderr: String::from_utf8_lossy(&state.stderr).into_owned(), end: state.end.clone() }
    }

    // === The pumps' side ===

    /// Waits for something to send; `None` once the stream has ended.
    pub(super) async fn next_to_send(&self) -> Option<Send> {
        loop {
            {
                let mut state = self.state();
                if state.end.is_some() {
                    return None;
                }
                if !state.outgoing.is_empty() {
                    let frame = std::mem::take(&mut state.outgoing);
                    if frame.len() > 1024 {
                        // The next frame will be as large; small ones don't reserve for nothing.
                        state.outgoing.reserve(frame.len());
                    }
                    wake(&mut state.writer);
                    return Some(Send::Frame(frame));
                }
                if state.shutdown == Shutdown::Asked {
                    if self.closes {
                        return Some(Send::Close);
                    }
                    state.shutdown = Shutdown::Sent;
                    wake(&mut state.writer);
                }
            }
            self.to_send.notified().await;
        }
    }

    /// Notes that the close signal is on its way.
    pub(super) fn close_sent(&self) {
        let mut state = self.state();
        state.shutdown = Shutdown::Sent;
        wake(&mut state.writer);
    }

    /// Waits until the reader has taken enough; `false` once the stream has ended.
    pub(super) async fn wait_for_room(&self) -> bool {
        loop {
            {
                let state = self.state();
                if state.end.is_some() {
                    return false;
                }
                if state.incoming_bytes < INCOMING {
                    return true;
                }
            }
            self.room.notified().await;
        }
    }

    pub(super) fn push_stdout(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        state.incoming_bytes += bytes.len();
        state.incoming.push_back(bytes);
        wake(&mut state.reader);
        if !state.greeted {
            state.greeted = true;
            self.news.notify_waiters();
        }
    }

    pub(super) fn push_stderr(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.stderr.extend_from_slice(bytes);
        let excess = state.stderr.len().saturating_sub(STDERR);
        state.stderr.drain(..excess);
    }

    /// Notes a sign of life.
    pub(super) fn alive(&self) {
        self.state().alive = Instant::now();
    }

    pub(super) fn alive_at(&self) -> Instant {
        self.state().alive
    }

    pub(super) fn end(&self) -> Option<ExecEnd> {
        self.state().end.clone()
    }

    /// Ends the stream; only the first reason is kept. What came in before can still be read.
    pub(super) fn finish(&self, end: ExecEnd) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        tracing::debug!(%end, "exec stream ended");
        state.end = Some(end);
        wake(&mut state.reader);
        wake(&mut state.writer);
        self.to_send.notify_one();
        self.room.notify_one();
        self.news.notify_waiters();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
