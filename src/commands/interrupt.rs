//! Signals: the first cancels, the second leaves at once.

use crate::task::{self, Cancel, Cause, Task};
use crate::ui;
use std::io;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of an interrupted run.
pub(super) const INTERRUPTED: u8 = 130;
/// The exit code of a terminated run.
pub(super) const TERMINATED: u8 = 143;

/// How long an orderly end may take once asked for; after that we leave as we are.
const PATIENCE: Duration = Duration::from_millis(9500);

/// Returns the exit code that belongs to a cause.
pub(super) fn exit_code(cause: Cause) -> u8 {
    match cause {
        Cause::Interrupt => INTERRUPTED,
        Cause::Terminate => TERMINATED,
    }
}

/// Turns Ctrl-C, SIGTERM and SIGHUP into the cancellation of `cancel`. A second signal, or an end that takes too
/// long, ends the process with the terminal restored. It watches from a thread of its own, since the verb's may be held
/// up by a file or pipe that says nothing. Call it within a runtime, but not from a task.
///
/// # Errors
/// The system refuses the handlers.
pub(super) fn watch(cancel: &Cancel) -> io::Result<Task<()>> {
    let own = Builder::new_current_thread().enable_all().build()?;
    let within = own.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(within);
    let cancel = cancel.clone();
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => Cause::Interrupt,
            _ = terminate.recv() => Cause::Terminate,
            _ = hangup.recv() => Cause::Terminate,
        }
    };
    let watching = async move {
        let first = next().await;
        cancel.cancel(first);
        let last = tokio::select! {
            second = next() => second,
            () = tokio::time::sleep(PATIENCE) => first,
        };
        leave(exit_code(last));
    };
    Ok(task::spawn_blocking(move || own.block_on(watching)))
}

/// Ends the process now: whatever runs is not waited for.
#[expect(clippy::exit, reason = "a person has asked twice, or the orderly end hangs")]
fn leave(code: u8) {
    ui::terminal::restore();
    std::process::exit(i32::from(code));
}
