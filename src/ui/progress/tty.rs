//! The terminal display: [`super::frame`] says what it shows, indicatif redraws it, and [`Screen`] turns each
//! drawing into one write.

use super::frame::{Moment, View};
use super::model::Model;
use super::sink::{Output, Sink};
use super::{ProgressOptions, Renderer, Seen, summary};
use crate::event::Event;
use crate::ui::printer::write_all;
use crate::ui::terminal::{DRAWING, FRAME_BEGINS, FRAME_ENDS, Size};
use crate::ui::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How long nothing is drawn at first: what is over at once should not flash.
const QUIET_AT_FIRST: Duration = Duration::from_millis(250);

/// Asks for the size of the terminal, which changes as its window does.
pub(super) type Measure = Arc<dyn Fn() -> Size + Send + Sync>;

/// Makes frames of the model.
pub(super) struct Tty {
    options: ProgressOptions,
    measure: Measure,
}

impl Tty {
    pub(super) fn new(options: ProgressOptions, measure: Measure) -> Self {
        Self { options, measure }
    }

    fn draw(&self, model: &Model, now: SystemTime, last: bool, sink: &Sink) {
        let view = View {
            title: &self.options.title,
            palette: &self.options.palette,
            log_lines: self.options.log_lines,
        };
        sink.frame(view.lines(model, Moment { size: (self.measure)(), now, last }));
    }
}

impl Renderer for Tty {
    fn observe(&mut self, seen: &Seen<'_>, sink: &Sink) {
        if let Some(Event::Note(note) | Event::Request(note)) = seen.event {
            for line in note.lines() {
                sink.text(format!("{}\n", text::clean(line.as_bytes(), text::Keep::Text)).as_bytes());
            }
        }
    }

    fn tick(&mut self, model: &Model, now: SystemTime, sink: &Sink) {
        if model.elapsed(now) >= QUIET_AT_FIRST && model.counts().1 > 0 {
            self.draw(model, now, false, sink);
        }
    }

    fn pause(&mut self, sink: &Sink) {
        sink.frame(Vec::new());
    }

    fn finish(&mut self, model: &Model, now: SystemTime, sink: &Sink) {
        if model.counts().1 > 0 {
            self.draw(model, now, true, sink);
        }
        // Below the frame, and so not above it as other text is.
        sink.after(summary::warnings(model, &self.options).as_bytes());
    }
}

/// The sink's end: indicatif over a [`Screen`].
pub(super) struct Drawing<W: Write + Send + 'static> {
    bar: ProgressBar,
    screen: Screen<W>,
}

impl<W: Write + Send + 'static> Drawing<W> {
    pub(super) fn new(terminal: W, measure: Measure) -> Self {
        let screen = Screen { measure, canvas: Arc::new(Mutex::new(Canvas::new(terminal))) };
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is well-formed"));
        Self { bar, screen }
    }

    fn result(&self) -> io::Result<()> {
        // indicatif keeps errors to itself.
        self.screen.canvas.lock().expect("nothing panics with the lock held").error.take().map_or(Ok(()), Err)
    }
}

impl<W: Write + Send + 'static> Output for Drawing<W> {
    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        let width = (self.screen.measure)().columns.saturating_sub(1);
        let text = String::from_utf8_lossy(text);
        // indicatif must know where a line ends, or it would draw the frame a line too low.
        let lines: Vec<_> = text.lines().flat_map(|line| text::wrap(line, width)).collect();
        self.bar.println(lines.join("\n"));
        self.result()
    }

    fn frame(&mut self, lines: &[String]) -> io::Result<()> {
        self.bar.set_message(lines.join("\n"));
        self.result()
    }

    fn after(&mut self, text: &[u8]) -> io::Result<()> {
        self.close();
        write_all(&mut self.screen.canvas.lock().expect("nothing panics with the lock held").output, text)
    }

    fn close(&mut self) {
        if !self.bar.is_finished() {
            self.bar.abandon();
        }
        DRAWING.store(false, Ordering::SeqCst);
    }
}

/// A terminal as indicatif sees it, which gathers a drawing and writes it in one piece.
///
/// Two of indicatif's ways are changed. It clears the old lines before it writes the new, which flickers: here new
/// lines are written over old ones and what remains is cleared after. And it pads each line to the width so that
/// the terminal itself breaks it, which makes the frame one long line to a terminal that is resized: here each
/// line ends for itself, and the cursor stands at the start of the line below the frame.
struct Screen<W> {
    measure: Measure,
    canvas: Arc<Mutex<Canvas<W>>>,
}

impl<W> Clone for Screen<W> {
    fn clone(&self) -> Self {
        Self { measure: Arc::clone(&self.measure), canvas: Arc::clone(&self.canvas) }
    }
}

impl<W> std::fmt::Debug for Screen<W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Screen").finish_non_exhaustive()
    }
}

struct Canvas<W> {
    output: W,
    /// What the drawing under way has come to.
    pending: String,
    /// How many lines of the old frame indicatif has asked to clear.
    cleared: usize,
    /// The widths of the lines of the last drawing.
    drawn: Vec<usize>,
    /// How wide the terminal was then.
    columns: usize,
    error: Option<io::Error>,
}

impl<W> Canvas<W> {
    fn new(output: W) -> Self {
        Self { output, pending: String::new(), cleared: 0, drawn: Vec::new(), columns: 0, error: None }
    }

    /// Goes back to the start of the old frame, when a drawing begins.
    fn begin(&mut self, columns: usize) {
        if !self.pending.is_empty() {
            return;
        }
        self.pending.push_str(FRAME_BEGINS);
        let frame = self.drawn.len().saturating_sub(self.cleared);
        // A window made narrower has broken the lines that were drawn when it was wider.
        let rows: usize = self.drawn[frame..].iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        let up = if rows > 0 { format!("\x1b[{rows}A") } else { String::new() };
        self.pending.push('\r');
        self.pending.push_str(&up);
        if columns != self.columns {
            // Lines that the terminal has broken stay joined unless they are erased: one by one, since tmux
            // keeps a whole screen that is erased at once in its history.
            self.pending.push_str(&"\x1b[2K\x1b[B".repeat(rows));
            self.pending.push_str(&up);
        }
        self.columns = columns;
        self.drawn.clear();
    }
}

impl<W: Write + Send + 'static> TermLike for Screen<W> {
    fn width(&self) -> u16 {
        u16::try_from((self.measure)().columns).unwrap_or(u16::MAX)
    }

    /// Frames are as tall as they should be when they come here.
    fn height(&self) -> u16 {
        u16::MAX
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)?;
        self.write_str(" ")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let columns = (self.measure)().columns;
        let mut canvas = self.canvas.lock().expect("nothing panics with the lock held");
        canvas.begin(columns);
        if text.is_empty() {
            return Ok(());
        }
        // Padding ends a line. Lines of ours have something else in them and never reach the last column, so
        // that there is padding after each.
        if text.bytes().all(|byte| byte == b' ') {
            let line_start = canvas.pending.rfind('\n').map_or(0, |at| at + 1);
            let line = text::clean(&canvas.pending.as_bytes()[line_start..], text::Keep::Text);
            canvas.drawn.push(text::width(&line).min(columns));
            canvas.pending.push_str("\x1b[K\r\n");
        } else {
            canvas.pending.push_str(text);
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.canvas.lock().expect("nothing panics with the lock held").cleared += 1;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let columns = (self.measure)().columns;
        let mut guard = self.canvas.lock().expect("nothing panics with the lock held");
        let canvas = &mut *guard;
        canvas.begin(columns);
        let mut drawing = std::mem::take(&mut canvas.pending);
        drawing.push_str("\x1b[J");
        drawing.push_str(FRAME_ENDS);
        canvas.cleared = 0;
        DRAWING.store(true, Ordering::SeqCst);
        if let Err(error) = write_all(&mut canvas.output, drawing.as_bytes()) {
            canvas.error = Some(error);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tty_tests.rs"]
mod tests;
