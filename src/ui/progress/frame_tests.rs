use super::super::testing::{cached, count, counted, done, failed, ms, output, pending, running, step};
use super::*;
use crate::event::Event;
use insta::assert_snapshot;

fn model(events: &[Event]) -> Model {
    let mut model = Model::new(ms(0));
    for event in events {
        let (Event::Step { at, .. } | Event::Output { at, .. } | Event::Counter { at, .. }) = event else {
            panic!("no such event here")
        };
        model.apply(event, *at);
    }
    model
}

fn frame(events: &[Event], now: u64, (columns, rows): (usize, usize), last: bool) -> Vec<String> {
    let palette = Palette::none();
    let view = View { title: "kubernetes:buildkit", palette: &palette, log_lines: 6 };
    let lines = view.lines(&model(events), Moment { size: Size { columns, rows }, now: ms(now), last });
    for line in &lines {
        assert!(text::width(line) < columns, "{line:?} is as wide as the terminal");
    }
    lines
}

fn a_build() -> Vec<Event> {
    vec![
        running("[internal] load build definition from Dockerfile", 10),
        counted(
            "[internal] load build definition from Dockerfile",
            "transferring dockerfile:",
            (36, None),
            12,
        ),
        done("[internal] load build definition from Dockerfile", 40),
        pending("exporting to image"),
        running("[1/4] FROM docker.io/library/alpine", 100),
        count(
            "[1/4] FROM docker.io/library/alpine",
            "sha256:4abcf2066143",
            (1_230_000, Some(4_560_000)),
            900,
        ),
        done("[1/4] FROM docker.io/library/alpine", 1000),
        running("[2/4] WORKDIR /src", 1000),
        cached("[2/4] WORKDIR /src", 1000),
        running("[3/4] RUN make", 1500),
        output("[3/4] RUN make", "one\ntwo\n\nthree\nfour\nfive\nsix\nseven\neig", 2000),
        running("[other 1/1] RUN false", 1600),
        failed("[other 1/1] RUN false", "exit code: 1", 1700),
        running("[4/4] COPY . .", 1700),
        step("[4/4] COPY . .", crate::event::StepState::Cancelled, 2700),
    ]
}

#[test]
fn a_frame_of_eighty_columns() {
    assert_snapshot!(frame(&a_build(), 12_345, (80, 24), false).join("\n"), @"
    [+] Building 12.3s (5/7)                                    kubernetes:buildkit
     => [internal] load build definition from Dockerfile                       0.0s
     => => transferring dockerfile: 36B                                        0.0s
     => [1/4] FROM docker.io/library/alpine                                    0.9s
     => => sha256:4abcf2066143 1.23MB / 4.56MB                                 0.0s
     => CACHED [2/4] WORKDIR /src                                              0.0s
     => [3/4] RUN make                                                        10.8s
     => => # three
     => => # four
     => => # five
     => => # six
     => => # seven
     => => # eig
     => ERROR [other 1/1] RUN false                                            0.1s
     => CANCELED [4/4] COPY . .                                                1.0s
    ");
}

#[test]
fn the_last_frame_shows_everything() {
    let mut events = a_build();
    events.push(done("[3/4] RUN make", 13_000));
    events.extend([running("exporting to image", 13_000), done("exporting to image", 13_500)]);
    let lines = frame(&events, 14_000, (60, 6), true);
    assert_snapshot!(lines.join("\n"), @"
    [+] Building 14.0s (7/7) FINISHED       kubernetes:buildkit
     => [internal] load build definition from Dockerfile   0.0s
     => => transferring dockerfile: 36B                    0.0s
     => [1/4] FROM docker.io/library/alpine                0.9s
     => => sha256:4abcf2066143 1.23MB / 4.56MB             0.0s
     => CACHED [2/4] WORKDIR /src                          0.0s
     => [3/4] RUN make                                    11.5s
     => ERROR [other 1/1] RUN false                        0.1s
     => CANCELED [4/4] COPY . .                            1.0s
     => exporting to image                                 0.5s
    ");
}

#[test]
fn a_short_terminal_keeps_what_runs() {
    assert_snapshot!(frame(&a_build(), 5000, (60, 6), false).join("\n"), @"
    [+] Building 5.0s (5/7)                 kubernetes:buildkit
     => CACHED [2/4] WORKDIR /src                          0.0s
     => [3/4] RUN make                                     3.5s
     => ERROR [other 1/1] RUN false                        0.1s
     => CANCELED [4/4] COPY . .                            1.0s
    ");
}

#[test]
fn more_running_steps_than_rows_show_the_newest() {
    let names: Vec<_> = (0..20).map(|at| format!("step {at}")).collect();
    let events: Vec<_> = names.iter().enumerate().map(|(at, name)| running(name, at as u64)).collect();
    let lines = frame(&events, 100, (40, 8), false);
    assert_eq!(lines.len(), 7);
    assert!(lines[6].starts_with(" => step 19 "), "{lines:#?}");
}

#[test]
fn no_size_is_too_small() {
    for columns in 1..60 {
        for rows in 1..30 {
            let palette = Palette::none();
            let view = View { title: "kubernetes:buildkit", palette: &palette, log_lines: 6 };
            let moment = Moment { size: Size { columns, rows }, now: ms(5000), last: false };
            let lines = view.lines(&model(&a_build()), moment);
            assert!(lines.len() <= rows.saturating_sub(1).max(1), "{} lines in {rows} rows", lines.len());
            assert!(lines.iter().all(|line| text::width(line) < columns.max(2)), "{columns}: {lines:#?}");
        }
    }
}

#[test]
fn colours_are_around_lines() {
    let palette = Palette::default();
    let view = View { title: "", palette: &palette, log_lines: 6 };
    let moment = Moment { size: Size { columns: 60, rows: 24 }, now: ms(5000), last: false };
    let lines = view.lines(&model(&a_build()), moment);
    let starts = |start: &str| lines.iter().any(|line| line.starts_with(start) && line.ends_with("\x1b[0m"));
    assert!(starts("\x1b[34m => [internal]"));
    assert!(starts("\x1b[34m => CACHED [2/4]"));
    assert!(starts("\x1b[31m => ERROR [other 1/1]"));
    assert!(starts("\x1b[33m => CANCELED [4/4]"));
    assert!(starts("\x1b[2m => => # eig"));
    assert!(lines.iter().any(|line| line.starts_with(" => [3/4] RUN make")));
}

#[test]
fn names_cannot_move_the_cursor() {
    let lines = frame(&[running("a\x1b[2J\nb\u{9b}", 0)], 100, (60, 10), false);
    assert!(!lines.join("").contains(|char: char| char.is_control()), "{lines:?}");
}
