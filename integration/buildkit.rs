//! The BuildKit client against fakes, for the faults that a real daemon doesn't produce on demand. The clock is
//! tokio's paused one: waits of minutes take no time, and their lengths are asserted exactly.

#[path = "buildkit/dial.rs"]
mod dial;
#[path = "support/fake_buildkit.rs"]
mod fake_buildkit;

use fake_buildkit::{FakeBuildkit, Rude, Script, Solve, StatusEnd, mute, rude, typed_status};
use futures_util::stream;
use kubectl_build::buildkit::failure::Class;
use kubectl_build::buildkit::solve::{Exporter, SolveError, SolveRequest, random_reference, solve};
use kubectl_build::buildkit::{Client, ClientError, Lost};
use kubectl_build::event::{Event, Events, StepState};
use kubectl_build::pb::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use kubectl_build::pb::moby::buildkit::v1::{BytesMessage, StatusResponse, Vertex, VertexLog};
use kubectl_build::pb::pb::Platform;
use kubectl_build::task::{Cancel, Cause};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tonic::{Code, Status};

type Outcome = Result<BTreeMap<String, String>, SolveError>;

fn request() -> SolveRequest {
    SolveRequest { reference: random_reference(), ..SolveRequest::default() }
}

/// Runs a build against a script and returns its outcome, its events and how long it took.
async fn build(script: Script) -> (Outcome, Vec<Event>, Duration) {
    let (_fake, io) = FakeBuildkit::start(script);
    let (events, receiver) = Events::channel();
    let started = Instant::now();
    let outcome = solve(&Client::over(io), request(), &events, &Cancel::new()).await;
    (outcome, drain(receiver), started.elapsed())
}

fn drain(mut receiver: UnboundedReceiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

fn states(events: &[Event]) -> Vec<StepState> {
    let states = events.iter().filter_map(|event| match event {
        Event::Step { state, .. } => Some(state.clone()),
        _ => None,
    });
    states.collect()
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn running() -> StatusResponse {
    let vertex = Vertex {
        digest: "sha256:1".to_owned(),
        name: "RUN sleep".to_owned(),
        started: at(100),
        ..Vertex::default()
    };
    StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
}

fn lost(outcome: Outcome) -> Lost {
    match outcome {
        Err(SolveError::Lost(lost)) => lost,
        other => panic!("the connection counts as lost, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_passes_its_request_and_returns_the_reply() {
    let reply = HashMap::from([("containerimage.digest".to_owned(), "sha256:abc".to_owned())]);
    let (fake, io) = FakeBuildkit::start(Script { solve: Solve::Replies(reply), ..Script::default() });
    let mut request = request();
    request.session_id = "session".to_owned();
    request.frontend = "dockerfile.v0".to_owned();
    request.attrs.insert("filename".to_owned(), "Dockerfile".to_owned());
    request.entitlements.push("network.host".to_owned());
    let attrs = BTreeMap::from([("push".to_owned(), "true".to_owned())]);
    request.exporters.push(Exporter { kind: "image".to_owned(), attrs });

    let outcome = solve(&Client::over(io), request.clone(), &Events::off(), &Cancel::new()).await;
    assert_eq!(outcome.expect("it succeeds")["containerimage.digest"], "sha256:abc");
    let seen = fake.seen.borrow().solve.clone().expect("a solve");
    assert_eq!((seen.r#ref, seen.session), (request.reference, "session".to_owned()));
    assert_eq!(
        (seen.frontend.as_str(), seen.frontend_attrs["filename"].as_str()),
        ("dockerfile.v0", "Dockerfile")
    );
    assert_eq!(seen.entitlements, ["network.host"]);
    assert_eq!(
        (seen.exporters[0].r#type.as_str(), seen.exporters[0].attrs["push"].as_str()),
        ("image", "true")
    );
}

#[tokio::test(start_paused = true)]
async fn error_details_beyond_16_kib_arrive_whole() {
    use base64::Engine as _;
    let dockerfile = format!("FROM scratch\n{}RUN false\n", "# padding to make it large\n".repeat(20_000));
    assert!(dockerfile.len() > 500_000);
    let line = dockerfile.lines().count();
    let data = base64::engine::general_purpose::STANDARD.encode(&dockerfile);
    let source = format!(
        r#"{{"info":{{"filename":"Dockerfile","data":"{data}"}},"ranges":[{{"start":{{"line":{line}}}}}]}}"#
    );
    let status = typed_status(
        Code::Unknown,
        "process \"false\" did not complete successfully: exit code: 1",
        &[
            ("errdefs.Vertex", r#"{"digest":"sha256:1"}"#.to_owned()),
            ("errdefs.Source", source),
            ("gatewayapi.ExitMessage", r#"{"Code":1}"#.to_owned()),
        ],
    );
    let (outcome, ..) = build(Script { solve: Solve::Fails(status), ..Script::default() }).await;
    let Err(SolveError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.class, failure.exit_code), (Class::BuildFailed, Some(1)));
    assert_eq!(failure.vertex.as_deref(), Some("sha256:1"));
    assert_eq!(failure.sources[0].text, dockerfile);
    let excerpt = failure.sources[0].excerpt();
    assert!(excerpt.iter().any(|line| line.at_fault && line.text == "RUN false"), "{excerpt:?}");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_never_ends_holds_nobody_up() {
    let script = Script { status: vec![running()], status_ends: StatusEnd::Hangs, ..Script::default() };
    let (outcome, events, took) = build(script).await;
    outcome.expect("the build itself succeeded");
    assert_eq!(took.as_secs(), 5, "quiet for that long");
    assert_eq!(states(&events), [StepState::Running, StepState::Cancelled], "no step is left running");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_never_pauses_ends_too() {
    let script = Script { status: vec![running()], status_ends: StatusEnd::Repeats, ..Script::default() };
    let (outcome, _, took) = build(script).await;
    outcome.expect("the build itself succeeded");
    assert_eq!(took.as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_fails_only_costs_the_progress() {
    for (status, notes) in [
        (Status::internal("no progress today"), 1),
        (Status::not_found("no such job"), 0),
        (Status::unimplemented("unknown method Status"), 0),
    ] {
        let script = Script { status_ends: StatusEnd::Fails(status), ..Script::default() };
        let (outcome, events, _) = build(script).await;
        outcome.expect("the build itself succeeded");
        assert_eq!(events.len(), notes, "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_resets_the_solve_and_tells_its_last_events() {
    let mut last = running();
    last.vertexes[0].completed = at(103);
    last.vertexes[0].error = "process \"sleep\": context canceled".to_owned();
    let script = Script {
        solve: Solve::NeverReturns,
        status: vec![running()],
        status_ends: StatusEnd::AfterReset(last),
        ..Script::default()
    };
    let (mut fake, io) = FakeBuildkit::start(script);
    let (events, receiver) = Events::channel();
    let (client, cancel, started) = (Client::over(io), Cancel::new(), Instant::now());
    let interrupt = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cancel.cancel(Cause::Interrupt);
    };
    let (outcome, ()) = tokio::join!(solve(&client, request(), &events, &cancel), interrupt);
    assert!(matches!(outcome, Err(SolveError::Cancelled(Cause::Interrupt))), "{outcome:?}");
    assert_eq!(started.elapsed().as_secs(), 3, "the daemon ended the status, so nothing is waited for");
    fake.wait_for(|seen| seen.solve_reset).await;
    assert_eq!(states(&drain(receiver)), [StepState::Running, StepState::Cancelled]);
    client.wait_ready(Duration::from_secs(1)).await.expect("the connection itself lives on");
}

#[tokio::test(start_paused = true)]
async fn cancelling_never_waits_long_for_a_daemon_that_ignores_it() {
    let script = Script {
        solve: Solve::NeverReturns,
        status: vec![running()],
        status_ends: StatusEnd::Repeats,
        ..Script::default()
    };
    let (_fake, io) = FakeBuildkit::start(script);
    let (cancel, started) = (Cancel::new(), Instant::now());
    cancel.cancel(Cause::Terminate);
    let outcome = solve(&Client::over(io), request(), &Events::off(), &cancel).await;
    assert!(matches!(outcome, Err(SolveError::Cancelled(Cause::Terminate))), "{outcome:?}");
    assert_eq!(started.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_build_resets_the_solve() {
    let (mut fake, io) = FakeBuildkit::start(Script { solve: Solve::NeverReturns, ..Script::default() });
    let client = Client::over(io);
    let (events, cancel) = (Events::off(), Cancel::new());
    let dropped =
        tokio::time::timeout(Duration::from_secs(2), solve(&client, request(), &events, &cancel)).await;
    dropped.expect_err("it never returns");
    fake.wait_for(|seen| seen.solve_reset).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_daemon_behind_an_open_tunnel_is_noticed_within_15_s() {
    let script = Script {
        solve: Solve::NeverReturns,
        status: vec![running()],
        status_ends: StatusEnd::Hangs,
        ..Script::default()
    };
    let (fake, io) = FakeBuildkit::start(script);
    let (events, receiver) = Events::channel();
    let (client, cancel) = (Client::over(io), Cancel::new());
    let stop = async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        fake.pipe.freeze();
        Instant::now()
    };
    let (outcome, stopped) = tokio::join!(solve(&client, request(), &events, &cancel), stop);
    assert!(matches!(lost(outcome), Lost::Silent(_)));
    let took = stopped.elapsed();
    assert!((8..15).contains(&took.as_secs()), "{took:?}");
    assert_eq!(states(&drain(receiver)), [StepState::Running, StepState::Cancelled]);

    let started = Instant::now();
    let error = client.wait_ready(Duration::from_secs(60)).await.expect_err("the connection is cut");
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    assert_eq!(started.elapsed(), Duration::ZERO, "what else runs on the connection ends at once");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_with_nothing_to_tell_is_not_lost() {
    let script = Script {
        solve_takes: Duration::from_secs(3600),
        status_ends: StatusEnd::Hangs,
        // Refusals are signs of life too.
        info: (0..100).map(|_| Err(Status::unimplemented("unknown method Info"))).collect(),
        ..Script::default()
    };
    let (fake, io) = FakeBuildkit::start(script);
    let outcome = solve(&Client::over(io), request(), &Events::off(), &Cancel::new()).await;
    outcome.expect("it succeeds after an hour");
    assert!(fake.seen.borrow().infos > 100, "it was asked now and then");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_slept_asks_before_it_gives_up() {
    let (fake, io) = FakeBuildkit::start(Script { solve: Solve::NeverReturns, ..Script::default() });
    let (client, events, cancel) = (Client::over(io), Events::off(), Cancel::new());
    let sleep = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        // A laptop's lid: an hour passes in which nobody could have answered.
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        cancel.cancel(Cause::Interrupt);
    };
    let (outcome, ()) = tokio::join!(solve(&client, request(), &events, &cancel), sleep);
    assert!(matches!(outcome, Err(SolveError::Cancelled(_))), "{outcome:?}");
    assert!(fake.seen.borrow().infos > 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_moves_puts_off_the_verdict_within_limits() {
    // As long as the peer takes bytes, our question may stand in the queue behind them.
    for (takes, lost) in [(0, 12..15), (20, 26..33), (3600, 65..80)] {
        let (_peer, io) = mute(Duration::from_secs(takes));
        let client = Client::over(io);
        let mut control = client.control();
        let endless = stream::repeat(BytesMessage { data: vec![0; 16 << 10].into() });
        let started = Instant::now();
        tokio::select! {
            _ = control.session(endless) => panic!("nobody answers"),
            lost = client.silent_for(Duration::from_secs(12)) => assert!(matches!(lost, Lost::Silent(_))),
        }
        let took = started.elapsed().as_secs();
        assert!(lost.contains(&took), "{took} s with bytes taken for {takes} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_is_a_lost_connection() {
    let (mut fake, io) = FakeBuildkit::start(Script { solve: Solve::NeverReturns, ..Script::default() });
    let (client, events, cancel) = (Client::over(io), Events::off(), Cancel::new());
    let cut = async {
        fake.wait_for(|seen| seen.solve.is_some()).await;
        fake.pipe.cut();
        Instant::now()
    };
    let (outcome, at) = tokio::join!(solve(&client, request(), &events, &cancel), cut);
    let Lost::Broken(source) = lost(outcome) else { panic!("the stream itself ended") };
    assert_eq!(source.to_string(), "the stream ended");
    assert_eq!(at.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn goaway_is_a_lost_connection() {
    let (_peer, io) = rude(Rude::GoAway);
    let outcome = solve(&Client::over(io), request(), &Events::off(), &Cancel::new()).await;
    assert!(matches!(lost(outcome), Lost::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_call_alone_is_the_daemons_failure() {
    let (_peer, io) = rude(Rude::Reset);
    let outcome = solve(&Client::over(io), request(), &Events::off(), &Cancel::new()).await;
    let Err(SolveError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.class, Class::Internal);
    assert!(failure.message.starts_with("BuildKit broke off the call"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn messages_up_to_16_mib_pass_and_larger_ones_are_named() {
    let message = |size: usize| {
        let log =
            VertexLog { vertex: "sha256:1".to_owned(), msg: vec![b'x'; size].into(), ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    };
    let (outcome, events, _) = build(Script { status: vec![message(15 << 20)], ..Script::default() }).await;
    outcome.expect("it succeeds");
    assert!(matches!(&events[..], [Event::Output { bytes, .. }] if bytes.len() == 15 << 20));

    let (outcome, events, _) = build(Script { status: vec![message(17 << 20)], ..Script::default() }).await;
    outcome.expect("the build itself succeeded");
    assert!(matches!(&events[..], [Event::Note(text)] if text.contains("too large")), "{events:?}");

    let reply = HashMap::from([("key".to_owned(), "x".repeat(17 << 20))]);
    let (outcome, ..) = build(Script { solve: Solve::Replies(reply), ..Script::default() }).await;
    let Err(SolveError::Failed(failure)) = outcome else { panic!("the reply is too large") };
    assert_eq!(failure.class, Class::MessageTooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_more_than_16_mib_is_refused_by_name_before_it_is_sent() {
    let (fake, io) = FakeBuildkit::start(Script::default());
    let client = Client::over(io);
    let mut request = request();
    request.attrs.extend((0..17).map(|number| (format!("build-arg:A{number}"), "x".repeat(1 << 20))));
    let outcome = solve(&client, request, &Events::off(), &Cancel::new()).await;
    let Err(SolveError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.class, Class::MessageTooLarge);
    assert!(failure.message.contains("16777216"), "{failure}");
    assert!(fake.seen.borrow().solve.is_none());
    client.wait_ready(Duration::from_secs(1)).await.expect("the connection lives on");
}

#[tokio::test(start_paused = true)]
async fn times_are_told_by_our_clock() {
    // The daemon's clock stands at 1000 s after the epoch; the step started 900 s earlier.
    let clock = Some("1970-01-01T00:16:40.000000000Z".to_owned());
    let (outcome, events, _) = build(Script { status: vec![running()], clock, ..Script::default() }).await;
    outcome.expect("it succeeds");
    let Some(Event::Step { at, .. }) = events.first() else { panic!("{events:?}") };
    let ago = at.elapsed().expect("in the past").as_secs();
    assert!((895..=960).contains(&ago), "{ago} s ago");

    let (_, events, _) = build(Script { status: vec![running()], ..Script::default() }).await;
    let Some(Event::Step { at, .. }) = events.first() else { panic!("{events:?}") };
    assert_eq!(
        *at,
        UNIX_EPOCH + Duration::from_secs(100),
        "as told, where the daemon doesn't tell its clock"
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_is_asked_for_until_it_comes() {
    let unavailable = || Err(Status::unavailable("starting"));
    let script = Script { info: [unavailable(), unavailable()].into(), ..Script::default() };
    let (fake, io) = FakeBuildkit::start(script);
    let version =
        Client::over(io).wait_ready(Duration::from_secs(10)).await.expect("the third answer is good");
    assert_eq!(version.as_deref(), Some("v0.0.0-fake"));
    assert_eq!(fake.seen.borrow().infos, 3);

    let script = Script { info: [Err(Status::unimplemented("unknown method"))].into(), ..Script::default() };
    let (_fake, io) = FakeBuildkit::start(script);
    let version = Client::over(io).wait_ready(Duration::from_secs(10)).await.expect("an old daemon is alive");
    assert_eq!(version, None);

    let script = Script { info: (0..1000).map(|_| unavailable()).collect(), ..Script::default() };
    let (_fake, io) = FakeBuildkit::start(script);
    let started = Instant::now();
    let error = Client::over(io).wait_ready(Duration::from_secs(10)).await.expect_err("it never comes up");
    assert_eq!(
        (error.to_string().as_str(), started.elapsed().as_secs()),
        ("BuildKit was not ready within 10 s", 10)
    );
    let source = std::error::Error::source(&error).expect("its last word");
    assert_eq!(source.to_string(), "starting");
}

#[tokio::test(start_paused = true)]
async fn workers_are_listed() {
    let arm = Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), ..Platform::default() };
    let record = WorkerRecord {
        id: "w".to_owned(),
        platforms: vec![arm],
        buildkit_version: Some(BuildkitVersion { version: "v1".to_owned(), ..BuildkitVersion::default() }),
        ..WorkerRecord::default()
    };
    let (_fake, io) = FakeBuildkit::start(Script { workers: vec![record], ..Script::default() });
    let workers = Client::over(io).workers().await.expect("a list");
    assert_eq!(
        (workers[0].platforms[0].as_str(), workers[0].version.as_deref()),
        ("linux/arm64", Some("v1"))
    );
}
