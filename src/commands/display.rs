//! Starts the progress display for a verb, and hands what it saw to the failure's report. What is told before it is
//! there is said at once.

use super::failure::Failure;
use crate::config::build::Progress;
use crate::config::env::{Environment, names};
use crate::event::{Event, Events};
use crate::ui::colours::Palette;
use crate::ui::printer;
use crate::ui::progress::{self, Mode, ProgressOptions};
use std::future::Future;
use std::io::IsTerminal as _;
use tokio::sync::mpsc::UnboundedReceiver;

/// What is told while there is no display: a credential plugin's "open this address and enter the code" cannot
/// wait for one.
pub(super) struct Early {
    events: Events,
    receiver: UnboundedReceiver<Event>,
}

impl Early {
    pub(super) fn new() -> Self {
        let (events, receiver) = Events::channel();
        Self { events, receiver }
    }

    /// Returns the handle for those who tell; it goes on to the display.
    pub(super) fn events(&self) -> Events {
        self.events.clone()
    }

    /// Writes notes to standard error as they come, until `work` ends.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let value = loop {
            tokio::select! {
                biased;
                Some(event) = self.receiver.recv() => say(event).await,
                value = &mut work => break value,
            }
        };
        while let Ok(event) = self.receiver.try_recv() {
            say(event).await;
        }
        value
    }
}

async fn say(event: Event) {
    if let Event::Note(text) | Event::Request(text) = event {
        printer::remark([text]).await;
    }
}

/// A display that is shown until its verb ends.
pub(super) struct Shown {
    /// What the verb tells.
    pub(super) events: Events,
    display: progress::Display,
}

impl Shown {
    /// Starts a display with this title, for those who were told of `early` too.
    pub(super) fn start(mode: Mode, title: String, env: &dyn Environment, early: Early) -> Self {
        let log_lines = env.get(names::TTY_LOG_LINES).and_then(|lines| lines.parse().ok());
        let defaults = ProgressOptions::default();
        let options = ProgressOptions {
            mode,
            terminal: terminal(env),
            title,
            palette: palette(env),
            log_lines: log_lines.unwrap_or(defaults.log_lines),
            ..defaults
        };
        let Early { events, receiver } = early;
        Self { events, display: progress::start(receiver, options) }
    }

    /// Draws the end and gives a failure what the display knows of the steps that failed.
    pub(super) async fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        let Self { events, display } = self;
        drop(events);
        let ended = display.finish().await;
        result.map_err(|failure| failure.with_steps(ended.failed))
    }
}

/// Decides how progress is shown; to be asked before anything is started.
///
/// # Errors
/// `tty` without a terminal.
pub(super) fn mode(wanted: Progress, env: &dyn Environment) -> Result<Mode, Failure> {
    let mode = match wanted {
        Progress::Auto => Mode::Auto,
        Progress::Plain => Mode::Plain,
        Progress::Tty => Mode::Tty,
        Progress::RawJson => Mode::RawJson,
        Progress::Quiet => Mode::Quiet,
    };
    mode.resolve(terminal(env)).map_err(Failure::no_terminal)
}

/// Whether standard error is a terminal that takes escape sequences.
fn terminal(env: &dyn Environment) -> bool {
    std::io::stderr().is_terminal() && env.get(names::TERM).is_none_or(|term| term != "dumb")
}

/// The colours of standard error.
pub(super) fn palette(env: &dyn Environment) -> Palette {
    if !terminal(env) || env.get_os(names::NO_COLOR).is_some_and(|value| !value.is_empty()) {
        return Palette::none();
    }
    // A malformed colour is not worth a word: the default stands.
    Palette::parse(&env.get(names::COLORS).unwrap_or_default()).0
}
