//! What there is to know of the terminal behind standard error, and putting it right in a hurry.

use rustix::termios::{OptionalActions, Termios};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// How large the terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Default for Size {
    /// What BuildKit's displays assume of a terminal that does not say.
    fn default() -> Self {
        Self { columns: 80, rows: 10 }
    }
}

impl Size {
    /// Asks a terminal; one that does not know its size gets the default.
    pub(super) fn of(terminal: impl std::os::fd::AsFd) -> Self {
        match rustix::termios::tcgetwinsize(terminal) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Self { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) }
            }
            _ => Self::default(),
        }
    }
}

/// Hides the cursor, asks terminals that can (DEC private mode 2026) to show the frame in one go, and has lines cut
/// (mode 7) that are too long because the window has just become narrower.
pub(super) const FRAME_BEGINS: &str = "\x1b[?25l\x1b[?2026h\x1b[?7l";
/// Undoes [`FRAME_BEGINS`].
pub(super) const FRAME_ENDS: &str = "\x1b[?7h\x1b[?2026l\x1b[?25h";

/// Whether frames are being drawn; the cursor is hidden only while one is on its way.
pub(super) static DRAWING: AtomicBool = AtomicBool::new(false);

/// The terminal whose echo a prompt has turned off, and how it was before.
static ECHO: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Remembers how a terminal was before its echo was turned off.
pub(super) fn echo_is_off(terminal: OwnedFd, before: Termios) {
    *ECHO.lock().expect("nothing panics with the lock held") = Some((terminal, before));
}

/// Turns the echo on again, if a prompt has turned it off.
pub(super) fn restore_echo() {
    // A lock held by a thread that panicked mid-way still holds what must be restored.
    let taken = ECHO.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some((terminal, before)) = taken {
        // The terminal may be gone, and with it the need.
        let _gone = rustix::termios::tcsetattr(terminal, OptionalActions::Now, &before);
    }
}

/// Puts the terminal right at once, whatever is being drawn or asked: for a process about to leave without
/// waiting for its display, as on a second Ctrl-C. Harmless at any time, never blocks.
pub fn restore() {
    restore_echo();
    if DRAWING.load(Ordering::SeqCst) {
        let stderr = std::io::stderr();
        // A terminal that takes nothing must not hold up leaving.
        if writable(&stderr) {
            let _gone = rustix::io::write(&stderr, format!("{FRAME_ENDS}\r\n").as_bytes());
        }
    }
}

/// Whether a short write to `output` would not block.
fn writable(output: impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&output, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&at_once)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
}
