//! Questions on the terminal. They go to `/dev/tty`, never to standard input, which may be a build context.

use super::terminal;
use crate::task;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The longest answer, that of a terminal's own line editing.
const LONGEST_ANSWER: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// There is nobody to ask: the process has no terminal.
    #[error("there is no terminal to ask on")]
    NoTerminal(#[source] io::Error),
    /// The terminal's end (Ctrl-D, a closed window) came instead of an answer.
    #[error("the terminal gave no answer")]
    Closed,
    /// SIGINT, SIGTERM or SIGHUP came instead of an answer.
    #[error("interrupted while waiting for an answer")]
    Interrupted,
    /// The terminal failed.
    #[error("the terminal can't be read")]
    Terminal(#[source] io::Error),
}

/// Asks for a password, which the terminal does not show.
///
/// The echo comes back when this returns, when the future is dropped, and by [`terminal::restore`]; SIGINT,
/// SIGTERM and SIGHUP end the question. Ctrl-Z and Ctrl-\ do nothing meanwhile, since they would leave the shell
/// with a terminal that shows nothing.
///
/// # Errors
/// Why there is no answer.
pub async fn password(question: &str) -> Result<SecretString, PromptError> {
    let terminal = open()?;
    let _hidden = Hidden::over(&terminal)?;
    let answer = ask(terminal, format!("{question}: "), true).await?;
    Ok(SecretString::from(answer.as_str()))
}

/// Asks for a yes; anything but `y` or `yes` is a no.
///
/// # Errors
/// Why there is no answer.
pub async fn confirm(question: &str) -> Result<bool, PromptError> {
    let answer = ask(open()?, format!("{question} [y/N] "), false).await?;
    let answer = answer.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}

/// Whether there is a terminal to ask on.
pub fn available() -> bool {
    open().is_ok()
}

fn open() -> Result<File, PromptError> {
    File::options().read(true).write(true).open("/dev/tty").map_err(PromptError::NoTerminal)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden;

impl Hidden {
    fn over(terminal: &File) -> Result<Self, PromptError> {
        let failed = |error: rustix::io::Errno| PromptError::Terminal(error.into());
        let before = tcgetattr(terminal).map_err(failed)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        // _POSIX_VDISABLE is 0 on Linux and 255 elsewhere.
        let disabled = if cfg!(target_os = "linux") { 0 } else { u8::MAX };
        hidden.special_codes[SpecialCodeIndex::VSUSP] = disabled;
        hidden.special_codes[SpecialCodeIndex::VQUIT] = disabled;
        let copy = terminal.try_clone().map_err(PromptError::Terminal)?;
        terminal::echo_is_off(copy.into(), before);
        let guard = Self;
        tcsetattr(terminal, OptionalActions::Flush, &hidden).map_err(failed)?;
        Ok(guard)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        terminal::restore_echo();
    }
}

/// Tells the reading thread to stop, when the question is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn ask(terminal: File, question: String, hidden: bool) -> Result<Zeroizing<String>, PromptError> {
    let listen = |kind| signal(kind).map_err(PromptError::Terminal);
    let (mut interrupt, mut terminate, mut hangup): (Signal, Signal, Signal) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop.0);
    let copy = terminal.try_clone().map_err(PromptError::Terminal)?;
    let reading = task::spawn_blocking(move || read_line(terminal, &question, &stopped));
    let interrupted = tokio::select! {
        answer = reading.join() => return answer,
        _ = interrupt.recv() => PromptError::Interrupted,
        _ = terminate.recv() => PromptError::Interrupted,
        _ = hangup.recv() => PromptError::Interrupted,
    };
    if hidden {
        // What comes next shall not stand beside the question.
        let _gone = (&copy).write_all(b"\n");
    }
    Err(interrupted)
}

fn read_line(
    mut terminal: File,
    question: &str,
    stopped: &AtomicBool,
) -> Result<Zeroizing<String>, PromptError> {
    terminal.write_all(question.as_bytes()).map_err(PromptError::Terminal)?;
    let mut answer = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
    let mut chunk = Zeroizing::new([0_u8; 256]);
    loop {
        // A thread in `read` could not be told that nobody waits for it any more.
        let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let ready = match poll(&mut [PollFd::new(&terminal, PollFlags::IN)], Some(&wait)) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(PromptError::Terminal(error.into())),
        };
        if stopped.load(Ordering::SeqCst) {
            return Err(PromptError::Interrupted);
        }
        if !ready {
            continue;
        }
        let read = match terminal.read(chunk.as_mut()) {
            Ok(0) => return Err(PromptError::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PromptError::Terminal(error)),
        };
        let line = chunk[..read].iter().position(|byte| *byte == b'\n');
        answer.extend_from_slice(&chunk[..line.unwrap_or(read)]);
        if line.is_some() || answer.len() >= LONGEST_ANSWER {
            let text = str::from_utf8(&answer)
                .map_err(|error| PromptError::Terminal(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            return Ok(Zeroizing::new(text.to_owned()));
        }
    }
}
