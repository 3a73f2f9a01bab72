//! Shows a build while it runs. One task folds events into the model and hands text or frames to a
//! thread that writes; the task never waits for the thread, so a slow terminal never slows a build.

mod frame;
mod json;
mod model;
mod plain;
mod quiet;
mod sink;
mod summary;
#[cfg(test)]
mod testing;
mod tty;

use crate::event::{Event, StepId, Warning};
use crate::task::{self, Task};
use crate::ui::colours::Palette;
use crate::ui::terminal::Size;
use model::{Change, Model};
use sink::{Output, Sink};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// How often the display changes, BuildKit's own rate.
const TICK: Duration = Duration::from_millis(150);
/// How long half a line waits for the rest of it before it is shown in `plain`.
const HALF_A_LINE: Duration = Duration::from_secs(2);

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `Tty` on a terminal, else `Plain`.
    #[default]
    Auto,
    /// A log, in docker's form.
    Plain,
    /// A picture of the running steps, redrawn.
    Tty,
    /// One JSON object a line, BuildKit's `SolveStatus`.
    RawJson,
    /// Nothing but what the person is asked to do.
    Quiet,
}

/// `--progress tty` where there is no terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--progress tty needs a terminal on standard error")]
pub struct NoTerminal;

impl Mode {
    /// The names on the command line.
    pub const NAMES: [&str; 5] = ["auto", "plain", "tty", "rawjson", "quiet"];

    /// Returns the mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let modes = [Self::Auto, Self::Plain, Self::Tty, Self::RawJson, Self::Quiet];
        Self::NAMES.iter().position(|known| *known == name).map(|at| modes[at])
    }

    /// Decides `Auto`.
    ///
    /// # Errors
    /// `Tty` without a terminal.
    pub fn resolve(self, terminal: bool) -> Result<Self, NoTerminal> {
        match self {
            Self::Auto if terminal => Ok(Self::Tty),
            Self::Auto => Ok(Self::Plain),
            Self::Tty if !terminal => Err(NoTerminal),
            mode => Ok(mode),
        }
    }
}

/// How progress is shown.
#[derive(Clone, Debug)]
pub struct ProgressOptions {
    /// What is shown. `Tty` without a terminal becomes `Plain`; [`Mode::resolve`] tells beforehand.
    pub mode: Mode,
    /// Standard error is a terminal that understands escape sequences (`TERM` is not `dumb`).
    pub terminal: bool,
    /// What the header says at its right end, such as `kubernetes:buildkit`.
    pub title: String,
    /// The colours ([`Palette::none`] for `NO_COLOR` or without a terminal).
    pub palette: Palette,
    /// The most lines of output shown of a running step (`BUILDKIT_TTY_LOG_LINES`).
    pub log_lines: usize,
    /// The most columns of a step's name in `plain` (72 for `PROGRESS_NO_TRUNC=0`); `None` for all.
    pub name_limit: Option<usize>,
    /// Warnings are listed at the end with their details and addresses.
    pub warning_details: bool,
    /// How long the end waits for a terminal that takes nothing.
    pub patience: Duration,
}

impl Default for ProgressOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            terminal: false,
            title: String::new(),
            palette: Palette::none(),
            log_lines: 6,
            name_limit: None,
            warning_details: false,
            patience: Duration::from_secs(5),
        }
    }
}

/// A step that failed, as the report of the failure shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStep {
    /// Which step.
    pub id: StepId,
    /// Its name.
    pub name: String,
    /// Its error.
    pub error: String,
    /// The last lines of its output, each after the seconds into the step.
    pub lines: Vec<String>,
}

/// What the display knew when the build was over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The steps that failed, cancelled ones not among them.
    pub failed: Vec<FailedStep>,
    /// All warnings, each once.
    pub warnings: Vec<Warning>,
    /// Everything has been written. If not, the terminal takes nothing, and whoever writes to it would wait.
    pub written: bool,
}

/// An event and what folding it changed.
struct Seen<'a> {
    model: &'a Model,
    /// `None` when only time has passed.
    event: Option<&'a Event>,
    change: &'a Change,
    now: SystemTime,
}

/// One way of showing. Nothing here waits.
trait Renderer: Send {
    /// Takes notice of an event that has been folded.
    fn observe(&mut self, seen: &Seen<'_>, sink: &Sink);
    /// Shows what is to be shown now.
    fn tick(&mut self, model: &Model, now: SystemTime, sink: &Sink);
    /// Takes away what is redrawn, until the next tick.
    fn pause(&mut self, sink: &Sink) {
        let _nothing_is_redrawn = sink;
    }
    /// Shows the end.
    fn finish(&mut self, model: &Model, now: SystemTime, sink: &Sink);
}

enum Command {
    Pause(oneshot::Sender<()>),
    Resume,
    Finish(oneshot::Sender<Ended>),
}

/// A display at work. Dropping it leaves the terminal as it is, which is in order between any two frames.
pub struct Display {
    commands: mpsc::UnboundedSender<Command>,
    _task: Task<()>,
}

/// Keeps the display still until it is dropped; see [`Display::pause`].
pub struct Paused(mpsc::UnboundedSender<Command>);

impl Drop for Paused {
    fn drop(&mut self) {
        let _ended_meanwhile = self.0.send(Command::Resume);
    }
}

/// Starts to show the events of `receiver` on standard error.
pub fn start(receiver: mpsc::UnboundedReceiver<Event>, options: ProgressOptions) -> Display {
    let stderr = io::stderr();
    let measure: tty::Measure = Arc::new(|| Size::of(io::stderr()));
    // A descriptor of our own: a writer that is stuck must not hold the lock of the standard library's.
    match stderr.as_fd().try_clone_to_owned() {
        Ok(output) => start_on(receiver, options, File::from(output), measure),
        // Standard error is closed; so nobody looks.
        Err(_) => start_on(receiver, options, io::sink(), measure),
    }
}

fn start_on(
    receiver: mpsc::UnboundedReceiver<Event>,
    options: ProgressOptions,
    output: impl io::Write + Send + 'static,
    measure: tty::Measure,
) -> Display {
    let text = sink::Text;
    match options.mode.resolve(options.terminal).unwrap_or(Mode::Plain) {
        Mode::Tty => {
            let drawing = tty::Drawing::new(output, Arc::clone(&measure));
            run(receiver, tty::Tty::new(options.clone(), measure), drawing, options)
        }
        Mode::RawJson => run(receiver, json::Json::new(), text(output), options),
        Mode::Quiet => run(receiver, quiet::Quiet, text(output), options),
        Mode::Plain | Mode::Auto => run(receiver, plain::Plain::new(options.clone()), text(output), options),
    }
}

fn run(
    receiver: mpsc::UnboundedReceiver<Event>,
    renderer: impl Renderer + 'static,
    output: impl Output,
    options: ProgressOptions,
) -> Display {
    let (commands, orders) = mpsc::unbounded_channel();
    let screen = Showing {
        model: Model::new(SystemTime::now()),
        renderer,
        sink: Sink::start(output),
        patience: options.patience,
    };
    Display { commands, _task: task::spawn("display", screen.run(receiver, orders)) }
}

/// What the display's task owns.
struct Showing<R> {
    model: Model,
    renderer: R,
    sink: Sink,
    patience: Duration,
}

impl<R: Renderer> Showing<R> {
    async fn run(
        mut self,
        mut receiver: mpsc::UnboundedReceiver<Event>,
        mut orders: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut open, mut paused) = (true, false);
        loop {
            // In this order, lest a flood of events keep the rest from its turn.
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Command::Pause(still)) => {
                        paused = true;
                        self.renderer.pause(&self.sink);
                        self.sink.settled(self.patience).await;
                        let _asker_gone = still.send(());
                    }
                    Some(Command::Resume) => paused = false,
                    Some(Command::Finish(ended)) => {
                        // Whatever was sent before is shown.
                        while let Ok(event) = receiver.try_recv() {
                            self.fold(&event);
                        }
                        let _asker_gone = ended.send(self.finish().await);
                        return;
                    }
                    None => return,
                },
                _ = ticks.tick(), if !paused => self.tick(),
                event = receiver.recv(), if open => match event {
                    Some(event) => self.fold(&event),
                    None => open = false,
                },
            }
        }
    }

    fn fold(&mut self, event: &Event) {
        let now = SystemTime::now();
        let change = self.model.apply(event, now);
        let seen = Seen { model: &self.model, event: Some(event), change: &change, now };
        self.renderer.observe(&seen, &self.sink);
    }

    fn tick(&mut self) {
        let now = SystemTime::now();
        for change in self.model.flush(now, HALF_A_LINE) {
            let seen = Seen { model: &self.model, event: None, change: &change, now };
            self.renderer.observe(&seen, &self.sink);
        }
        self.renderer.tick(&self.model, now, &self.sink);
    }

    async fn finish(mut self) -> Ended {
        let now = SystemTime::now();
        for change in self.model.flush(now, Duration::ZERO) {
            let seen = Seen { model: &self.model, event: None, change: &change, now };
            self.renderer.observe(&seen, &self.sink);
        }
        self.renderer.finish(&self.model, now, &self.sink);
        let written = self.sink.close(self.patience).await;
        Ended { failed: summary::failed(&self.model), warnings: self.model.warnings().to_vec(), written }
    }
}

impl Display {
    /// Shows what was sent so far and the end of it, and leaves the terminal to others.
    ///
    /// Waits for a terminal that takes nothing as long as the options say, no longer.
    pub async fn finish(self) -> Ended {
        let (sender, receiver) = oneshot::channel();
        let _always_there = self.commands.send(Command::Finish(sender));
        receiver.await.unwrap_or_default()
    }

    /// Keeps the display still, so that something can be asked on the terminal, until the value is dropped.
    /// Events are folded meanwhile.
    pub async fn pause(&self) -> Paused {
        let (sender, receiver) = oneshot::channel();
        let _always_there = self.commands.send(Command::Pause(sender));
        let _still = receiver.await;
        Paused(self.commands.clone())
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
