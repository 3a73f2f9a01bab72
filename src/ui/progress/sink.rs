//! The thread that writes: a terminal may take nothing for minutes (`Ctrl-S`, a stopped tmux, a full pipe), and
//! nobody but this thread waits for it.

use crate::task::{self, Task};
use crate::ui::printer::write_all;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Where a sink's thread writes to.
pub(super) trait Output: Send + 'static {
    /// Writes text that stays.
    fn text(&mut self, text: &[u8]) -> io::Result<()>;

    /// Replaces the frame that was drawn last; a display without frames never gets one.
    fn frame(&mut self, lines: &[String]) -> io::Result<()> {
        let _stays_undrawn = lines;
        Ok(())
    }

    /// Writes text below everything; nothing comes after it.
    fn after(&mut self, text: &[u8]) -> io::Result<()> {
        self.text(text)
    }

    /// Is called last: what is drawn stays.
    fn close(&mut self) {}
}

/// Plain text to anything that can be written.
pub(super) struct Text<W>(pub(super) W);

impl<W: Write + Send + 'static> Output for Text<W> {
    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        write_all(&mut self.0, text)
    }
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    frame: Option<Vec<String>>,
    after: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.frame.is_none() && self.after.is_empty()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    idle: tokio::sync::Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with the lock held")
    }
}

/// The giving end. Nothing here ever waits for the output, save for [`Sink::settled`] and [`Sink::close`], which
/// wait for as long as they are told.
pub(super) struct Sink {
    shared: Arc<Shared>,
    thread: Option<Task<()>>,
}

impl Sink {
    /// Starts the thread. It ends when the sink is closed or dropped, once it has written what it was given.
    pub(super) fn start(mut output: impl Output) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = task::spawn_blocking(move || write_until_closed(&theirs, &mut output));
        Self { shared, thread: Some(thread) }
    }

    /// Returns a sink without a thread, which keeps what it is given.
    #[cfg(test)]
    pub(super) fn unwritten() -> Self {
        Self { shared: Arc::default(), thread: None }
    }

    /// Takes what waits to be written: text, the latest frame, and what comes after it.
    #[cfg(test)]
    pub(super) fn take(&self) -> (String, Option<Vec<String>>, String) {
        let state = std::mem::take(&mut *self.shared.lock());
        let text = |bytes| String::from_utf8(bytes).expect("tests write text");
        (text(state.text), state.frame, text(state.after))
    }

    /// Queues text.
    pub(super) fn text(&self, text: &[u8]) {
        if !text.is_empty() {
            self.shared.lock().text.extend_from_slice(text);
            self.shared.work.notify_one();
        }
    }

    /// Replaces the frame: only the latest is ever drawn.
    pub(super) fn frame(&self, lines: Vec<String>) {
        self.shared.lock().frame = Some(lines);
        self.shared.work.notify_one();
    }

    /// Queues text for below everything else, the last that is given.
    pub(super) fn after(&self, text: &[u8]) {
        if !text.is_empty() {
            self.shared.lock().after.extend_from_slice(text);
            self.shared.work.notify_one();
        }
    }

    /// Returns how many bytes of text wait.
    pub(super) fn backlog(&self) -> usize {
        self.shared.lock().text.len()
    }

    /// Waits until everything has been written, at most so long; returns whether it has.
    pub(super) async fn settled(&self, patience: Duration) -> bool {
        let settle = async {
            loop {
                let idle = self.shared.idle.notified();
                {
                    let state = self.shared.lock();
                    if state.is_empty() && !state.writing {
                        return;
                    }
                }
                idle.await;
            }
        };
        tokio::time::timeout(patience, settle).await.is_ok()
    }

    /// Waits until everything has been written, at most so long, and returns whether it has. A thread that is
    /// stuck stays behind and ends with the process.
    pub(super) async fn close(mut self, patience: Duration) -> bool {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        let thread = self.thread.take().expect("only closing takes the thread");
        tokio::time::timeout(patience, thread.join()).await.is_ok()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

fn write_until_closed(shared: &Shared, output: &mut impl Output) {
    let mut broken = false;
    loop {
        let work = {
            let mut state = shared.lock();
            state.writing = false;
            while state.is_empty() {
                shared.idle.notify_waiters();
                if state.closed {
                    drop(state);
                    output.close();
                    return;
                }
                state = shared.work.wait(state).expect("nothing panics with the lock held");
            }
            let rest = State { writing: true, closed: state.closed, ..State::default() };
            std::mem::replace(&mut *state, rest)
        };
        // A reader that has gone for good is no reason to fail a build; what follows is dropped.
        if !broken {
            broken = write(output, &work).is_err();
        }
    }
}

fn write(output: &mut impl Output, work: &State) -> io::Result<()> {
    if !work.text.is_empty() {
        output.text(&work.text)?;
    }
    if let Some(frame) = &work.frame {
        output.frame(frame)?;
    }
    if work.after.is_empty() { Ok(()) } else { output.after(&work.after) }
}
