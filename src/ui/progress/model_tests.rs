use super::super::testing::{
    cached, count, counted, done, failed, id, ms, output, pending, running, step, warning,
};
use super::*;
use rstest::rstest;

fn fold(events: &[Event]) -> Model {
    let mut model = Model::new(ms(0));
    for event in events {
        // By a clock of ours that is an hour ahead of the daemon's: no figure may mix the two.
        let at = match event {
            Event::Step { at, .. } | Event::Output { at, .. } | Event::Counter { at, .. } => *at,
            Event::Warning { .. } | Event::Note(_) | Event::Request(_) => ms(0),
        };
        model.apply(event, at + Duration::from_secs(3600));
    }
    model
}

const NOW: u64 = 3_600_000 + 10_000;

#[rstest]
#[case::unstarted(&[pending("a")], StepState::Pending, None)]
#[case::running(&[running("a", 1000)], StepState::Running, Some(9000))]
#[case::done(&[running("a", 1000), done("a", 2500)], StepState::Done { cached: false }, Some(1500))]
#[case::cached_without_a_start(&[cached("a", 5)], StepState::Done { cached: true }, Some(0))]
#[case::the_initial_record_again(&[running("a", 1000), pending("a")], StepState::Running, Some(9000))]
#[case::the_initial_record_after_the_end(
    &[running("a", 0), done("a", 700), pending("a")], StepState::Done { cached: false }, Some(700)
)]
#[case::the_start_again(&[running("a", 0), done("a", 9), running("a", 0)], StepState::Done { cached: false }, Some(9))]
#[case::two_runs(
    &[running("a", 0), done("a", 100), running("a", 500), done("a", 700)],
    StepState::Done { cached: false }, Some(300)
)]
#[case::overlapping_runs(
    &[running("a", 0), running("a", 100), done("a", 700), running("a", 300), done("a", 500)],
    StepState::Done { cached: false }, Some(700)
)]
#[case::a_second_run_goes_on(&[running("a", 0), done("a", 100), running("a", 9000)], StepState::Running, Some(1100))]
#[case::an_end_before_its_start(&[running("a", 50), done("a", 20)], StepState::Done { cached: false }, Some(0))]
#[case::failed(&[running("a", 0), failed("a", "exit code: 1", 40)], StepState::Failed("exit code: 1".into()), Some(40))]
#[case::cancelled(&[running("a", 0), failed("a", "rpc: context canceled", 40)], StepState::Cancelled, Some(40))]
fn states_and_times(#[case] events: &[Event], #[case] state: StepState, #[case] took: Option<u64>) {
    let model = fold(events);
    let step = model.step(0);
    assert_eq!(step.state, state);
    let known = step.started().then(|| step.took(ms(NOW)));
    assert_eq!(known, took.map(Duration::from_millis));
}

#[test]
fn steps_stand_in_the_order_of_their_starts() {
    let model =
        fold(&[pending("a"), pending("b"), running("b", 1), running("a", 2), cached("c", 3), done("b", 4)]);
    let names: Vec<_> = model.steps().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert_eq!(model.counts(), (2, 3));
}

#[test]
fn output_of_a_step_that_comes_later_is_kept() {
    let model = fold(&[output("a", "early\n", 5), running("a", 1)]);
    assert_eq!(model.step(0).window(6), ["early"]);
    assert!(model.step(0).running());
}

#[test]
fn chunks_become_lines_by_stream() {
    let mut model = Model::new(ms(0));
    model.apply(&running("a", 1000), ms(0));
    let stderr = Event::Output { id: id("a"), stream: Stream::Stderr, bytes: "warn".into(), at: ms(1100) };
    assert_eq!(model.apply(&output("a", "one\ntw", 1123), ms(1)).lines, [line(123, "one")]);
    assert!(model.apply(&stderr, ms(2)).stale, "half a line is nothing to show yet");
    assert_eq!(model.apply(&output("a", "o\n\n", 1500), ms(3)).lines, [line(123, "two"), line(500, "")]);
    assert_eq!(model.step(0).window(6), ["one", "two", "warn"]);

    let end = model.apply(&done("a", 2000), ms(4));
    assert_eq!(end.lines, [line(100, "warn")], "the end of the step ends its line");
}

#[test]
fn a_line_without_an_end_is_shown_after_a_while() {
    let mut model = Model::new(ms(0));
    model.apply(&running("a", 0), ms(0));
    model.apply(&output("a", "password: ", 10), ms(1000));
    assert_eq!(model.flush(ms(1500), Duration::from_secs(1)), []);
    let changes = model.flush(ms(2000), Duration::from_secs(1));
    assert_eq!(changes, [Change { step: Some(0), lines: vec![line(10, "password: ")], stale: false }]);
    assert_eq!(model.flush(ms(9000), Duration::from_secs(1)), [], "once");
}

#[test]
fn a_line_without_end_does_not_grow_for_ever() {
    let mut model = Model::new(ms(0));
    let bytes = Bytes::from(vec![b'x'; 10_000]);
    let event = Event::Output { id: id("a"), stream: Stream::Stdout, bytes, at: ms(0) };
    let lines: usize = (0..100).map(|_| model.apply(&event, ms(0)).lines.len()).sum();
    assert!(lines >= 10, "a megabyte in {lines} lines");
}

#[test]
fn the_tail_is_short() {
    let mut events = vec![running("a", 0)];
    events.extend((0..50).map(|_| output("a", "1\n2\n3\n4\n5\n6\n7\n", 1)));
    let model = fold(&events);
    assert_eq!(model.step(0).tail.len(), KEPT_LINES);
    assert_eq!(model.step(0).window(6), ["2", "3", "4", "5", "6", "7"]);
}

#[test]
fn counters_supersede_one_another_by_item() {
    let model = fold(&[
        running("a", 0),
        count("a", "sha256:1", (5, Some(2_000_000)), 10),
        count("a", "sha256:2", (0, None), 11),
        counted("a", "sha256:1", (2_000_000, Some(2_000_000)), 510),
    ]);
    let counters = &model.step(0).counters;
    assert_eq!(counters.len(), 2);
    assert_eq!(counters[0].amount(), " 2.00MB / 2.00MB");
    assert!(counters[0].finished);
    assert_eq!(text::between(counters[0].first, counters[0].at), Duration::from_millis(500));
    assert_eq!(counters[1].amount(), "");
}

#[test]
fn repeated_warnings_count_once() {
    let here = warning("a", "FromAsCasing", Some("Dockerfile:1"));
    let there = warning("a", "FromAsCasing", Some("Dockerfile:9"));
    let model = fold(&[here.clone(), there, here]);
    let places: Vec<_> = model.warnings().iter().map(|warning| warning.location.as_deref()).collect();
    assert_eq!(places, [Some("Dockerfile:1"), Some("Dockerfile:9")]);
}

#[test]
fn a_repetition_is_stale() {
    let mut model = Model::new(ms(0));
    assert!(!model.apply(&running("a", 0), ms(0)).stale);
    assert!(model.apply(&running("a", 0), ms(0)).stale);
    assert!(!model.apply(&done("a", 5), ms(0)).stale);
    assert!(model.apply(&done("a", 5), ms(0)).stale);
    let renamed = Event::Step { id: id("a"), name: "b".into(), state: StepState::Pending, at: ms(0) };
    assert!(!model.apply(&renamed, ms(0)).stale);
    assert_eq!(model.step(0).name, "b");
    assert!(!model.apply(&step("c", StepState::Cancelled, 3), ms(0)).stale);
}

fn line(elapsed: u64, text: &str) -> LogLine {
    LogLine { elapsed: Duration::from_millis(elapsed), bytes: text.into() }
}
