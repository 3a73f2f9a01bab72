use super::testing::{done, failed, output, pending, running};
use super::*;
use crate::event::Events;
use bytes::Bytes;
use std::io::{Read as _, Write};
use std::sync::Mutex;
use std::time::Instant;

fn options(mode: Mode) -> ProgressOptions {
    ProgressOptions {
        mode,
        terminal: true,
        patience: Duration::from_millis(300),
        ..ProgressOptions::default()
    }
}

/// An output that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn show(mode: Mode) -> (Events, Display, Kept) {
    let (events, receiver) = Events::channel();
    let kept = Kept::default();
    let display = start_on(receiver, options(mode), kept.clone(), Arc::new(Size::default));
    (events, display, kept)
}

#[tokio::test]
async fn what_a_person_is_asked_for_is_shown_in_every_mode() {
    for mode in [Mode::Plain, Mode::Tty, Mode::RawJson, Mode::Quiet] {
        let (events, display, kept) = show(mode);
        events.request("log in at\nhttp://localhost:1/x");
        events.note("an aside");
        display.finish().await;
        let text = kept.text();
        assert!(text.contains("http://localhost:1/x"), "{mode:?}: {text}");
        assert_eq!(text.contains("an aside"), mode != Mode::Quiet, "{mode:?}: {text}");
    }
}

#[tokio::test]
async fn everything_sent_before_the_end_is_shown() {
    for mode in [Mode::Plain, Mode::Tty, Mode::RawJson] {
        let (events, display, kept) = show(mode);
        for step in 0..100 {
            events.send(running(&format!("step {step}"), step));
            events.send(done(&format!("step {step}"), step + 1));
        }
        let ended = display.finish().await;
        assert!(ended.written, "{mode:?}");
        let text = kept.text();
        for step in 0..100 {
            assert!(text.contains(&format!("step {step}")), "{mode:?}: step {step} in {text}");
        }
    }
}

#[tokio::test]
async fn quiet_shows_nothing_and_knows_what_failed() {
    let (events, display, kept) = show(Mode::Quiet);
    events.send(running("make", 0));
    events.send(output("make", "cc: not found\nhalf", 5));
    events.send(failed("make", "exit code: 127", 7));
    events.send(running("export", 7));
    events.send(failed("export", "context canceled", 8));
    events.note("nobody hears this");
    let ended = display.finish().await;
    let step = FailedStep {
        id: testing::id("make"),
        name: "make".into(),
        error: "exit code: 127".into(),
        lines: vec!["0.005 cc: not found".into(), "0.005 half".into()],
    };
    assert_eq!(ended, Ended { failed: vec![step], warnings: vec![], written: true });
    assert_eq!(kept.text(), "");
}

/// What is written into a pipe that nobody reads waits there for good: a stopped tmux, a hung `less`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_takes_nothing_holds_nobody_up() {
    for mode in [Mode::Plain, Mode::Tty, Mode::RawJson] {
        let (mut reader, writer) = io::pipe().unwrap();
        let (events, receiver) = Events::channel();
        let display = start_on(receiver, options(mode), writer, Arc::new(Size::default));
        let chunk = Bytes::from("a line of output\n".repeat(100));
        let began = Instant::now();
        events.send(running("make", 0));
        for at in 0..5000 {
            // More than a pipe holds, over some ticks.
            if at % 1000 == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let bytes = chunk.clone();
            let stream = crate::event::Stream::Stdout;
            events.send(Event::Output { id: testing::id("make"), stream, bytes, at: testing::ms(at) });
        }
        if mode == Mode::Tty {
            // Frames are small: only many fill the pipe, and only the latest of them waits.
            for at in 0..400 {
                events.note(format!("note {at} {}", "x".repeat(500)));
            }
        }
        events.send(failed("make", "exit code: 2", 6000));
        let ended = display.finish().await;
        assert!(!ended.written, "{mode:?} filled the pipe");
        assert_eq!(ended.failed.len(), 1, "{mode:?} folded everything");
        // Not a measure of speed: whoever waited for the pipe would wait for good.
        assert!(began.elapsed() < Duration::from_secs(60), "{mode:?} took {:?}", began.elapsed());

        // Whoever looks again sees the end.
        let tail = tokio::task::block_in_place(|| {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            String::from_utf8_lossy(&all[all.len().saturating_sub(2000)..]).into_owned()
        });
        assert!(tail.contains("exit code: 2") || tail.contains("ERROR make"), "{mode:?}: {tail}");
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_holds_nobody_up() {
    for mode in [Mode::Plain, Mode::Tty, Mode::RawJson] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (events, receiver) = Events::channel();
        let display = start_on(receiver, options(mode), writer, Arc::new(Size::default));
        events.send(running("make", 0));
        tokio::time::sleep(Duration::from_millis(400)).await;
        events.send(done("make", 5));
        assert!(display.finish().await.written, "{mode:?}");
    }
}

#[tokio::test]
async fn nothing_is_drawn_at_first_or_in_a_pause() {
    let (events, display, kept) = show(Mode::Tty);
    events.send(pending("wait"));
    events.send(running("make", 0));
    tokio::time::sleep(Duration::from_millis(160)).await;
    assert_eq!(kept.text(), "", "what is over at once should not flash");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(kept.text().contains("=> make"));
    let paused = display.pause().await;
    let before = kept.text();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(kept.text(), before);
    drop(paused);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(kept.text().len() > before.len());
    drop(display);
}

#[tokio::test]
async fn the_end_of_the_producers_is_not_the_end() {
    let (events, display, kept) = show(Mode::Plain);
    events.send(running("make", 0));
    drop(events);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(display.finish().await.written);
    assert_eq!(kept.text(), "#1 make\n");
}

#[test]
fn modes_are_decided_by_the_terminal() {
    assert_eq!(Mode::Auto.resolve(true), Ok(Mode::Tty));
    assert_eq!(Mode::Auto.resolve(false), Ok(Mode::Plain));
    assert_eq!(Mode::Tty.resolve(false), Err(NoTerminal));
    assert_eq!(Mode::from_name("rawjson"), Some(Mode::RawJson));
    assert_eq!(Mode::from_name("fancy"), None);
}
