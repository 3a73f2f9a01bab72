use super::*;
use crate::ui::terminal::Size;
use std::sync::Mutex;

/// A terminal emulator that the drawing writes to, and how large it is.
#[derive(Clone)]
struct Emulator(Arc<Mutex<(vt100::Parser, Vec<u8>)>>);

impl Emulator {
    fn new(rows: u16, columns: u16) -> Self {
        Self(Arc::new(Mutex::new((vt100::Parser::new(rows, columns, 1000), Vec::new()))))
    }

    fn measure(&self) -> Measure {
        let terminal = Arc::clone(&self.0);
        Arc::new(move || {
            let (rows, columns) = terminal.lock().unwrap().0.screen().size();
            Size { columns: columns.into(), rows: rows.into() }
        })
    }

    fn drawing(&self) -> Drawing<Self> {
        Drawing::new(self.clone(), self.measure())
    }

    /// What stands on the screen, without the empty lines at the end.
    fn lines(&self) -> Vec<String> {
        let contents = self.0.lock().unwrap().0.screen().contents();
        contents.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl Write for Emulator {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut terminal = self.0.lock().unwrap();
        terminal.0.process(bytes);
        terminal.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frame(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

#[test]
fn frames_replace_one_another() {
    let terminal = Emulator::new(10, 40);
    let mut drawing = terminal.drawing();
    drawing.frame(&frame(&["[+] 1", " => a", " => b", " => c"])).unwrap();
    assert_eq!(terminal.lines(), ["[+] 1", " => a", " => b", " => c"]);
    drawing.frame(&frame(&["[+] 2", " => b"])).unwrap();
    assert_eq!(terminal.lines(), ["[+] 2", " => b"]);
    drawing.frame(&frame(&["[+] 3", " => \x1b[31mb\x1b[0m", " => d"])).unwrap();
    assert_eq!(terminal.lines(), ["[+] 3", " => b", " => d"]);
    drawing.close();
    assert_eq!(terminal.lines(), ["[+] 3", " => b", " => d"]);
    let emulator = terminal.0.lock().unwrap();
    assert_eq!(emulator.0.screen().cursor_position(), (3, 0), "whatever comes next starts a line");
    assert!(!emulator.0.screen().hide_cursor());
}

#[test]
fn a_frame_is_one_write_that_blanks_nothing_before_it_draws() {
    let terminal = Emulator::new(10, 40);
    let mut drawing = terminal.drawing();
    drawing.frame(&frame(&["one", "two"])).unwrap();
    terminal.bytes();
    drawing.frame(&frame(&["one", "three"])).unwrap();
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    assert_eq!(bytes, format!("{FRAME_BEGINS}\r\x1b[2Aone\x1b[K\r\nthree\x1b[K\r\n\x1b[J{FRAME_ENDS}"));
}

#[test]
fn notes_stay_above_the_frame() {
    let terminal = Emulator::new(20, 20);
    let mut drawing = terminal.drawing();
    drawing.text(b"before\n").unwrap();
    drawing.frame(&frame(&["[+] 1", " => a"])).unwrap();
    drawing.text(b"a note longer than a line is\n\nlast\n").unwrap();
    drawing.frame(&frame(&["[+] 2", " => a", " => b"])).unwrap();
    let notes = ["before", "a note longer than", "a line is", "", "last"];
    assert_eq!(terminal.lines(), [&notes[..], &["[+] 2", " => a", " => b"]].concat());
    drawing.after(b"\n 1 warning found:\n").unwrap();
    assert_eq!(terminal.lines()[7..], [" => b", "", " 1 warning found:"]);
}

#[test]
fn a_pause_takes_the_frame_away() {
    let terminal = Emulator::new(10, 40);
    let mut drawing = terminal.drawing();
    drawing.text(b"note\n").unwrap();
    drawing.frame(&frame(&["[+] 1", " => a"])).unwrap();
    drawing.frame(&[]).unwrap();
    assert_eq!(terminal.lines(), ["note"]);
    assert_eq!(terminal.0.lock().unwrap().0.screen().cursor_position(), (1, 0));
    drawing.frame(&frame(&["[+] 2", " => a"])).unwrap();
    assert_eq!(terminal.lines(), ["note", "[+] 2", " => a"]);
}

#[test]
fn the_screen_may_scroll() {
    let terminal = Emulator::new(5, 40);
    let mut drawing = terminal.drawing();
    for round in 0..20 {
        drawing.text(format!("note {round}\n").as_bytes()).unwrap();
        drawing.frame(&frame(&["[+]", " => a", &format!(" => {round}")])).unwrap();
    }
    assert_eq!(terminal.lines(), ["note 19", "[+]", " => a", " => 19"]);
    drawing.frame(&frame(&["1", "2", "3", "4", "5", "6", "7"])).unwrap();
    assert_eq!(terminal.lines(), ["4", "5", "6", "7"], "the last frame may be taller than the screen");
}

#[test]
fn a_narrower_window_leaves_nothing_behind() {
    // The emulator cuts lines where terminals break them, so only the way back is looked at: a line of 30
    // columns stands in two rows of 20.
    let terminal = Emulator::new(10, 40);
    let mut drawing = terminal.drawing();
    drawing.frame(&frame(&["x".repeat(30).as_str(), "y", "z".repeat(39).as_str()])).unwrap();
    terminal.0.lock().unwrap().0.screen_mut().set_size(10, 20);
    terminal.bytes();
    drawing.frame(&frame(&["short"])).unwrap();
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    let erased = "\x1b[2K\x1b[B".repeat(5);
    assert!(bytes.starts_with(&format!("{FRAME_BEGINS}\r\x1b[5A{erased}\x1b[5Ashort")), "{bytes:?}");
}

#[test]
fn a_terminal_that_has_gone_is_told_once() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut drawing = Drawing::new(writer, Arc::new(Size::default));
    let error = drawing.frame(&frame(&["a"])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
