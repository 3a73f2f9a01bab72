use super::super::testing::{
    cached, count, counted, done, failed, ms, output, pending, play, running, step, warning,
};
use super::*;
use crate::event::Event;
use insta::assert_snapshot;

fn plain(events: impl IntoIterator<Item = Event>, end: u64) -> String {
    play(&mut Plain::new(ProgressOptions::default()), events, end).0
}

#[test]
fn dockers_familiar_form() {
    let dockerfile = "[internal] load build definition from Dockerfile";
    let run = "[2/3] RUN make";
    let events = [
        Event::Note("building with \"buildkit\" in namespace dev".into()),
        pending(dockerfile),
        running(dockerfile, 10),
        counted(dockerfile, "transferring dockerfile:", (36, None), 12),
        done(dockerfile, 40),
        pending(run),
        running("[1/3] FROM alpine", 200),
        cached("[1/3] FROM alpine", 200),
        running(run, 300),
        output(run, "hello\nwor", 423),
        output(run, "ld\n", 700),
        done(run, 12_600),
        running("[3/3] RUN false", 12_700),
        output("[3/3] RUN false", "boom\n", 12_800),
        failed(
            "[3/3] RUN false",
            "process \"/bin/sh -c false\" did not complete successfully: exit code: 1",
            12_900,
        ),
        step("exporting", StepState::Cancelled, 12_950),
    ];
    assert_snapshot!(plain(events, 13_000), @r#"
    #0 building with "buildkit" in namespace dev

    #1 [internal] load build definition from Dockerfile
    #1 transferring dockerfile: 36B done
    #1 DONE 0.0s

    #2 [1/3] FROM alpine
    #2 CACHED

    #3 [2/3] RUN make
    #3 0.123 hello
    #3 0.123 world
    #3 DONE 12.3s

    #4 [3/3] RUN false
    #4 0.100 boom
    #4 ERROR: process "/bin/sh -c false" did not complete successfully: exit code: 1

    #5 exporting
    #5 CANCELED
    "#);
}

#[test]
fn steps_take_turns() {
    let mut events = vec![running("a", 0), running("b", 100)];
    // `a` talks all the time, `b` now and then.
    for at in (200..16_000).step_by(1000) {
        events.push(output("a", "from a\n", at));
        if at % 5000 == 200 {
            events.push(output("b", "from b\n", at));
        }
    }
    events.extend([done("b", 16_000), done("a", 16_200)]);
    let log = plain(events, 17_000);
    assert_snapshot!(log, @"
    #1 a
    #1 0.200 from a
    #1 1.200 from a
    #1 2.200 from a
    #1 3.200 from a
    #1 4.200 from a
    #1 5.200 from a
    #1 6.200 from a
    #1 7.200 from a
    #1 8.200 from a
    #1 9.200 from a
    #1 10.20 from a
    #1 ...

    #2 b
    #2 0.100 from b
    #2 5.100 from b
    #2 10.10 from b
    #2 15.10 from b
    #2 DONE 15.9s

    #1 a
    #1 11.20 from a
    #1 12.20 from a
    #1 13.20 from a
    #1 14.20 from a
    #1 15.20 from a
    #1 DONE 16.2s
    ");
}

#[test]
fn a_silent_step_loses_its_turn_after_five_seconds() {
    let log = plain(
        [running("a", 0), running("b", 100), output("b", "1\n", 5200), done("b", 6000), done("a", 7000)],
        8000,
    );
    assert_snapshot!(log, @"
    #1 a
    #1 ...

    #2 b
    #2 5.100 1
    #2 DONE 5.9s

    #1 a
    #1 DONE 7.0s
    ");
}

#[test]
fn counts_are_printed_by_steps_of_five_percent_or_seconds() {
    let mut events = vec![running("a", 0)];
    for done in 0..=100 {
        events.push(count("a", "sha256:1", (done * 10_000, Some(1_000_000)), 100 + done * 200));
    }
    events.push(counted("a", "sha256:1", (1_000_000, Some(1_000_000)), 20_200));
    events.push(counted("a", "sha256:1", (1_000_000, Some(1_000_000)), 20_200));
    events.push(done("a", 20_300));
    let log = plain(events, 20_400);
    let lines = log.lines().filter(|line| line.contains(" / ")).count();
    assert!((20..=22).contains(&lines), "{log}");
    assert!(log.ends_with("#1 sha256:1 1.00MB / 1.00MB 20.1s done\n#1 DONE 20.3s\n"), "{log}");
}

#[test]
fn half_a_line_is_shown_after_a_while() {
    let log = plain([running("a", 0), output("a", "password: ", 100), output("a", "late\n", 9000)], 9500);
    assert_snapshot!(log, @"
    #1 a
    #1 0.100 password: 
    #1 9.000 late
    ");
}

#[test]
fn names_are_cut_if_asked() {
    let options = ProgressOptions { name_limit: Some(10), ..ProgressOptions::default() };
    let (log, ..) = play(&mut Plain::new(options), [running("[2/2] RUN a long command", 0)], 100);
    assert_eq!(log, "#1 [2/2] RUN ...\n");
}

#[test]
fn a_terminal_is_safe_from_what_steps_write() {
    let events = || [running("a", 0), output("a", "\x1b[2J\x1b[32mok\x1b]0;title\x07\n", 5), done("a", 9)];
    let options = ProgressOptions { terminal: true, ..ProgressOptions::default() };
    let (log, ..) = play(&mut Plain::new(options), events(), 100);
    assert!(log.contains("#1 0.005 \x1b[32mok\x1b[0m\n"), "{log:?}");
    assert!(
        plain(events(), 100).contains("#1 0.005 \x1b[2J\x1b[32mok\x1b]0;title\x07\n"),
        "a file gets all bytes"
    );
}

#[test]
fn warnings_come_with_their_step_and_at_the_end() {
    let rule =
        warning("a", "FromAsCasing: 'as' and 'FROM' keywords' casing do not match", Some("Dockerfile:1"));
    let log = plain([running("a", 0), rule.clone(), rule, done("a", 100)], 200);
    assert_snapshot!(log, @"
    #1 a
    #1 WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match
    #1 DONE 0.1s

     1 warning found:
     - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (Dockerfile:1)
    ");
    let options = ProgressOptions { warning_details: true, ..ProgressOptions::default() };
    let events = [running("a", 0), warning("a", "R: x", None), warning("a", "R: y", None), done("a", 100)];
    assert_snapshot!(play(&mut Plain::new(options), events, 200).0, @"
    #1 a
    #1 WARN: R: x
    #1 WARN: R: y
    #1 DONE 0.1s

     2 warnings found:
     - R: x
       More about it
       More info: https://docs.docker.com/go/dockerfile/rule/
     - R: y
       More about it
       More info: https://docs.docker.com/go/dockerfile/rule/
    ");
}

#[test]
fn notes_interrupt_a_step_visibly() {
    let events = [running("a", 0), output("a", "1\n", 100)];
    let later = [running("b", 400), done("b", 500)];
    let notes = [Event::Note("first\nsecond".into()), Event::Note("third".into())];
    let log = plain(events.into_iter().chain(later).chain(notes), 900);
    assert_snapshot!(log, @"
    #1 a
    #1 0.100 1
    #1 ...

    #0 first
    #0 second
    #0 third

    #2 b
    #2 DONE 0.1s

    #1 a
    ");
}

#[test]
fn while_nobody_reads_changes_are_gathered() {
    let sink = Sink::unwritten();
    let mut renderer = Plain::new(ProgressOptions::default());
    let mut model = Model::new(ms(0));
    let mut most = 0;
    let mut send = |event: Event, now: u64, renderer: &mut Plain| {
        let change = model.apply(&event, ms(now));
        renderer.observe(&Seen { model: &model, event: Some(&event), change: &change, now: ms(now) }, &sink);
        renderer.tick(&model, ms(now), &sink);
        most = most.max(sink.backlog());
    };
    send(running("a", 0), 0, &mut renderer);
    for tick in 1..200_000 {
        send(count("a", "copying", (tick, None), tick * 10_000), tick * 10_000, &mut renderer);
    }
    assert!(most < BACKLOG + 1024, "{most} bytes wait for a reader");
    assert!(most > BACKLOG / 2, "the test writes enough to tell: {most}");
    // The last count is not lost.
    sink.take();
    let log = play_end(&mut renderer, &model, &sink);
    assert_eq!(log, "#1 copying 200.00kB 1999980.0s\n");
}

fn play_end(renderer: &mut Plain, model: &Model, sink: &Sink) -> String {
    renderer.finish(model, ms(0), sink);
    sink.take().0
}
