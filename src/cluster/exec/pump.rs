//! The two loops of a stream. Neither ever waits for the other: HTTP/2 above them may need to write before it
//! can read, and to read before it can write.

use super::ExecEnd;
use super::queue::{Queues, Send};
use bytes::Bytes;
use futures_util::{FutureExt as _, Sink, SinkExt as _, Stream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const PORT_DATA: u8 = 0;
const PORT_ERROR: u8 = 1;
/// Channel 255 of v5: `[255, 0]` closes stdin.
const CLOSE: u8 = 255;

/// What the channels of a stream carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// A process: 1 stdout, 2 stderr, 3 the final status.
    Process,
    /// A port: 0 its bytes, 1 why there are none. The first frame of each repeats the port's number.
    Port,
}

/// What one frame is.
enum Kind {
    Data,
    Diagnostic,
    /// The process has ended, or the port cannot be reached.
    End(ExecEnd),
    Nothing,
}

impl Channels {
    fn sort(self, channel: u8, payload: &[u8], greeted: &mut [bool; 2]) -> Kind {
        match (self, channel) {
            (Self::Process, STDOUT) => Kind::Data,
            (Self::Process, STDERR) => Kind::Diagnostic,
            (Self::Process, STATUS) if !payload.is_empty() => Kind::End(ExecEnd::from_status(payload)),
            (Self::Port, PORT_DATA | PORT_ERROR) if payload.is_empty() => Kind::Nothing,
            (Self::Port, PORT_DATA | PORT_ERROR)
                if !std::mem::replace(&mut greeted[usize::from(channel)], true) =>
            {
                Kind::Nothing
            }
            (Self::Port, PORT_DATA) => Kind::Data,
            (Self::Port, PORT_ERROR) => {
                Kind::End(ExecEnd::Refused { message: String::from_utf8_lossy(payload).trim().to_owned() })
            }
            _ => Kind::Nothing,
        }
    }
}

/// After the final status the server closes the stream; it gets this long.
const LINGER: Duration = Duration::from_secs(2);

/// Sends what the user wrote, and pings.
pub(super) async fn write<S>(mut sink: S, queues: Arc<Queues>, every: Duration)
where
    S: Sink<Message, Error = WsError> + Unpin,
{
    let mut ping = tokio::time::interval_at(Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            biased;
            next = queues.next_to_send() => next,
            _ = ping.tick() => {
                // Sent on its own: a ping is a question, and only its answer is a sign of life.
                match sink.send(Message::Ping(Bytes::new())).await {
                    Ok(()) => continue,
                    Err(error) => return give_up(&queues, &error).await,
                }
            }
        };
        let (frame, closing) = match next {
            None => return,
            Some(Send::Frame(frame)) => (Bytes::from(frame), false),
            Some(Send::Close) => (Bytes::from_static(&[CLOSE, 0]), true),
        };
        let mut sending = sink.send(Message::Binary(frame));
        let sent = match (&mut sending).now_or_never() {
            // It went into a buffer of ours, which a dead peer does not prevent.
            Some(sent) => sent,
            None => {
                let sent = sending.await;
                // It had to wait until the peer took something: a sign of life, and on a slow line the only
                // one, since a ping and its answer queue behind the data.
                queues.alive();
                sent
            }
        };
        if let Err(error) = sent {
            return give_up(&queues, &error).await;
        }
        if closing {
            queues.close_sent();
        }
    }
}

/// Ends the stream over a failed write; but what the server said last, how the process ended above all, may
/// still wait to be read.
async fn give_up(queues: &Queues, error: &WsError) {
    tokio::time::sleep(LINGER).await;
    queues.finish(cut(error));
}

/// Sorts what the server sends, and notices when it sends nothing any more.
pub(super) async fn read<S>(mut stream: S, channels: Channels, queues: Arc<Queues>, dead: Duration)
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let mut ended: Option<(ExecEnd, Instant)> = None;
    let mut greeted = [false; 2];
    loop {
        let deadline = match &ended {
            Some((_, at)) => *at + LINGER,
            None => queues.alive_at() + dead,
        };
        let message = tokio::select! {
            biased;
            message = stream.next() => message,
            () = tokio::time::sleep_until(deadline) => {
                if let Some((end, _)) = ended {
                    return queues.finish(end);
                }
                // The other pump may have shown life since.
                if queues.alive_at() + dead > Instant::now() {
                    continue;
                }
                return queues.finish(ExecEnd::Silent { seconds: dead.as_secs() });
            }
        };
        queues.alive();
        let end = match message {
            Some(Ok(Message::Binary(frame))) if !frame.is_empty() => {
                let payload = frame.slice(1..);
                match channels.sort(frame[0], &payload, &mut greeted) {
                    Kind::Data => {
                        queues.push_stdout(payload);
                        // While a slow reader holds us here nothing is read, so silence means nothing.
                        if !queues.wait_for_room().await {
                            return;
                        }
                        queues.alive();
                    }
                    Kind::Diagnostic => queues.push_stderr(&payload),
                    Kind::End(end) => ended = Some((end, Instant::now())),
                    Kind::Nothing => {}
                }
                continue;
            }
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                ExecEnd::Closed { reason }
            }
            Some(Ok(_)) => continue,
            Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) | None => {
                ExecEnd::Closed { reason: String::new() }
            }
            Some(Err(error)) => cut(&error),
        };
        // How the process ended says more than how the stream did.
        return queues.finish(ended.map_or(end, |(end, _)| end));
    }
}

fn cut(error: &WsError) -> ExecEnd {
    let detail = match error {
        // rustls' words for it explain TLS to programmers.
        WsError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it ended without a word".to_owned()
        }
        WsError::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    ExecEnd::Cut { detail }
}
