//! Noticing a daemon that has stopped answering although the tunnel to it still stands.
//!
//! A stopped process, a paused node or a frozen pod leaves every socket on the way open. While a session is open
//! the daemon checks its health every 5 s, so bytes keep coming; when they don't, the daemon is asked a question
//! that any live one answers at once. HTTP/2 pings would do as well, but grpc-go punishes them (see the client).

use super::client::Client;
use super::link::Lost;
use crate::pb::moby::buildkit::v1::InfoRequest;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a daemon may be silent during a build before it counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// How long bytes that the tunnel still takes from us can put off the verdict. On a slow uplink our question
/// waits behind the build context; a stopped daemon takes no more than HTTP/2's window, 16 MiB at most.
const UPLOAD_GRACE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(250);

impl Client {
    /// Completes when the daemon has been silent for `patience`, or when the connection turns out to be broken.
    /// A quiet daemon is asked after a third of that time, so a live one is never lost, however long it has
    /// nothing to tell. Meant to be raced against the work.
    pub async fn silent_for(&self, patience: Duration) -> Lost {
        let quiet = patience / 3;
        loop {
            let heard = self.last_heard();
            let due = heard + quiet;
            if Instant::now() < due {
                sleep_until(due).await;
                continue;
            }
            let mut control = self.control();
            let asked = Instant::now();
            tokio::select! {
                answer = control.info(InfoRequest {}) => match answer.map_err(|status| self.answered(&status)) {
                    Err(Err(lost)) => return lost,
                    // Any answer is a sign of life, a refusal too. Not sooner again than due.
                    Ok(_) | Err(Ok(_)) => sleep(quiet).await,
                },
                () = self.heard_after(heard) => {}
                // Counted from the question, not from the last byte: if it was us who were suspended, the daemon
                // must get the same chance to answer.
                () = self.stalled(asked, patience - quiet) => return Lost::Silent(patience),
            }
        }
    }

    async fn heard_after(&self, moment: Instant) {
        while self.last_heard() <= moment {
            sleep(POLL).await;
        }
    }

    /// Completes `limit` after the question, or after the last byte that the stream took, within reason.
    async fn stalled(&self, asked: Instant, limit: Duration) {
        loop {
            let sent = self.link.sent().clamp(asked, asked + UPLOAD_GRACE);
            let deadline = sent + limit;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
