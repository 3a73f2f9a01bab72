//! The BuildKit client against a real buildkitd. Most contexts are fetched by the daemon by HTTP, so that a test
//! of the solve needs no session; one test has both.
//!
//! The steps run `runc` and `pause` of the peers: static binaries, so that `FROM scratch` is enough.

#[path = "support/buildkitd.rs"]
mod buildkitd;

use buildkitd::{Buildkitd, peer};
use kubectl_build::buildkit::failure::Class;
use kubectl_build::buildkit::solve::{
    DOCKERFILE, Exporter, SolveError, SolveRequest, random_reference, solve,
};
use kubectl_build::buildkit::{Client, Lost};
use kubectl_build::event::{Event, Events, StepId, StepState};
use kubectl_build::session::filesync::{FileSync, LocalDir};
use kubectl_build::session::{Session, SessionOptions};
use kubectl_build::task::{self, Cancel, Cause, Task};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;

/// Serves a context with this Dockerfile, `runc` and `pause`.
struct Context {
    url: String,
    _server: Task<()>,
}

impl Context {
    async fn serve(dockerfile: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let (runc, pause) = (peer("runc"), peer("pause"));
        for binary in [runc, pause] {
            let name = binary.file_name().expect("a name");
            std::fs::copy(&binary, folder.path().join(name)).expect("a copy");
        }
        let tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "."]).output();
        let tar = tar.expect("tar runs").stdout;
        assert!(tar.len() > 1 << 20, "the archive holds the binaries");

        let archive = bytes::Bytes::from(tar);
        let routes = axum::Router::new()
            .route("/context.tar", axum::routing::get(move || std::future::ready(archive.clone())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/context.tar", listener.local_addr().expect("an address"));
        let server = async move { axum::serve(listener, routes).await.expect("served") };
        Self { url, _server: task::spawn("context", server) }
    }

    fn request(&self) -> SolveRequest {
        SolveRequest {
            reference: random_reference(),
            frontend: DOCKERFILE.to_owned(),
            attrs: BTreeMap::from([("context".to_owned(), self.url.clone())]),
            ..SolveRequest::default()
        }
    }
}

/// A running daemon, a client of it, and a build's surroundings.
struct Fixture {
    daemon: Buildkitd,
    client: Client,
    context: Context,
    events: Events,
    receiver: UnboundedReceiver<Event>,
    cancel: Cancel,
}

impl Fixture {
    async fn new(dockerfile: &str) -> Self {
        let daemon = Buildkitd::start();
        let client = Client::unix(&daemon.socket()).await.expect("its socket");
        client.wait_ready(Duration::from_secs(30)).await.expect("an answer");
        let (events, receiver) = Events::channel();
        let context = Context::serve(dockerfile).await;
        Self { daemon, client, context, events, receiver, cancel: Cancel::new() }
    }

    async fn build(&self, request: SolveRequest) -> Result<BTreeMap<String, String>, SolveError> {
        let build = solve(&self.client, request, &self.events, &self.cancel);
        tokio::time::timeout(Duration::from_secs(120), build).await.expect("the build ends")
    }

    /// Runs the build whose step never ends and, once the step runs, `then` beside it.
    async fn pausing_build(&self, then: impl AsyncFnOnce()) -> Result<BTreeMap<String, String>, SolveError> {
        let disturb = async {
            while !self.daemon.runs("pause") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            then().await;
        };
        tokio::join!(self.build(self.context.request()), disturb).0
    }

    fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.receiver.try_recv().ok()).collect()
    }
}

const PAUSING: &str = "FROM scratch\nCOPY pause /pause\nRUN [\"/pause\"]\n";

/// The last state of each step, by name.
fn ends(events: &[Event]) -> BTreeMap<String, StepState> {
    let steps = events.iter().filter_map(|event| match event {
        Event::Step { name, state, .. } => Some((name.clone(), state.clone())),
        _ => None,
    });
    steps.collect()
}

/// What a step wrote.
fn output(events: &[Event], step: &StepId) -> String {
    let chunks = events.iter().filter_map(|event| match event {
        Event::Output { id, bytes, .. } if id == step => Some(&bytes[..]),
        _ => None,
    });
    String::from_utf8_lossy(&chunks.collect::<Vec<_>>().concat()).into_owned()
}

fn step_named(events: &[Event], part: &str) -> StepId {
    let found = events.iter().find_map(|event| match event {
        Event::Step { id, name, .. } if name.contains(part) => Some(id.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("a step named {part}: {events:?}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn the_daemon_tells_its_version_and_workers() {
    let daemon = Buildkitd::start();
    let client = Client::unix(&daemon.socket()).await.expect("its socket");
    let version = client.wait_ready(Duration::from_secs(30)).await.expect("an answer");
    assert!(version.is_some_and(|version| version.starts_with('v')));
    let workers = client.workers().await.expect("a list");
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert!(workers[0].platforms[0].starts_with("linux/"), "{workers:?}");
    assert_eq!(workers[0].labels["org.mobyproject.buildkit.worker.executor"], "oci");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_build_tells_steps_output_and_warnings_and_returns_the_digest() {
    let dockerfile = "FROM scratch as casing\nCOPY runc /runc\nRUN [\"/runc\", \"--version\"]\n";
    let mut fixture = Fixture::new(dockerfile).await;
    let mut request = fixture.context.request();
    let attrs = BTreeMap::from([("name".to_owned(), "example.test/app".to_owned())]);
    request.exporters.push(Exporter { kind: "image".to_owned(), attrs });
    let reply = fixture.build(request.clone()).await.expect("it succeeds");
    assert!(reply["containerimage.digest"].starts_with("sha256:"), "{reply:?}");

    let events = fixture.drain();
    let run = step_named(&events, "--version");
    assert!(output(&events, &run).contains("runc version"), "{events:?}");
    for (name, state) in ends(&events) {
        assert!(matches!(state, StepState::Done { .. }), "{name} ended as {state:?}");
    }
    let warned = events.iter().filter_map(|event| match event {
        Event::Warning { warning, .. } => Some(warning),
        _ => None,
    });
    let warned: Vec<_> = warned.collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].short.starts_with("FromAsCasing"), "{warned:?}");
    assert_eq!(warned[0].location.as_deref(), Some("Dockerfile:1"));
    assert!(warned[0].url.starts_with("https://"), "{warned:?}");
    let now = SystemTime::now();
    for event in &events {
        if let Event::Step { at, .. } = event {
            let off = now.duration_since(*at).unwrap_or_else(|error| error.duration());
            assert!(off < Duration::from_secs(120), "{event:?}");
        }
    }

    // The daemon keeps a name for a while, and says so as an ordinary failure.
    let error = fixture.build(request).await.expect_err("one name, two builds");
    let SolveError::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.message.contains("exists"), "{failure}");

    fixture.drain();
    fixture.build(fixture.context.request()).await.expect("it succeeds again");
    let ends = ends(&fixture.drain());
    let copy = ends.iter().find(|(name, _)| name.contains("COPY runc")).expect("the step is told");
    assert_eq!(copy.1, &StepState::Done { cached: true });
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_directory_is_built_through_a_session() {
    let daemon = Buildkitd::start();
    let client = Client::unix(&daemon.socket()).await.expect("its socket");
    client.wait_ready(Duration::from_secs(30)).await.expect("an answer");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\nCOPY hello.txt /\n")
        .expect("a Dockerfile");
    std::fs::write(folder.path().join("hello.txt"), "hello\n").expect("a file");

    let local = |name: &str| LocalDir { name: name.to_owned(), root: folder.path().to_owned() };
    let sync = FileSync::new(vec![local("context"), local("dockerfile")], Events::off());
    let options = SessionOptions {
        shared_key: "test".to_owned(),
        attachables: vec![Box::new(sync)],
        events: Events::off(),
    };
    let session = Session::open(client.control(), options).await.expect("a session");
    let request = SolveRequest {
        reference: random_reference(),
        session_id: session.id().to_owned(),
        frontend: DOCKERFILE.to_owned(),
        ..SolveRequest::default()
    };
    let (events, mut receiver) = Events::channel();
    let cancel = Cancel::new();
    let build = solve(&client, request, &events, &cancel);
    let build = tokio::time::timeout(Duration::from_secs(60), build).await.expect("it ends");
    build.unwrap_or_else(|error| panic!("{error:?}\n{}", daemon.log()));
    session.close().await;
    let events: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
    let ends = ends(&events);
    assert!(ends.keys().any(|name| name.contains("COPY hello.txt")), "{ends:?}");
    assert!(ends.values().all(|state| matches!(state, StepState::Done { .. })), "{ends:?}");
    // The context's size is counted under its step.
    let context = step_named(&events, "load build context");
    let counted = events.iter().any(|event| match event {
        Event::Counter { id, finished, done, .. } => *id == context && *finished && *done > 0,
        _ => false,
    });
    assert!(counted, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_failing_step_is_told_with_its_lines_and_exit_code() {
    // Large, so that the error's details don't fit into common header limits.
    let padding = "# nothing to see here\n".repeat(10_000);
    let dockerfile = format!("FROM scratch\n{padding}COPY runc /runc\nRUN [\"/runc\", \"nonsense\"]\n");
    let mut fixture = Fixture::new(&dockerfile).await;
    let error = fixture.build(fixture.context.request()).await.expect_err("it fails");
    let SolveError::Failed(failure) = error else { panic!("{error:?}") };
    assert_eq!((failure.class, failure.exit_code), (Class::BuildFailed, Some(3)), "{failure:?}");
    assert!(failure.message.ends_with("did not complete successfully: exit code: 3"), "{failure}");
    assert_eq!(failure.sources.len(), 1, "{:?}", failure.sources);
    assert_eq!(failure.sources[0].location().as_deref(), Some("Dockerfile:10003"));
    let excerpt = failure.sources[0].excerpt();
    let at_fault: Vec<_> = excerpt.iter().filter(|line| line.at_fault).collect();
    assert_eq!(at_fault.len(), 1, "{excerpt:?}");
    let run = r#"RUN ["/runc", "nonsense"]"#;
    assert_eq!((at_fault[0].number, at_fault[0].text.as_str()), (10_003, run));

    let events = fixture.drain();
    let failed = StepId(failure.vertex.expect("the failing step"));
    assert_eq!(failed, step_named(&events, "nonsense"));
    assert!(output(&events, &failed).contains("No help topic"), "{events:?}");
    let failures = ends(&events).into_values().filter(|state| matches!(state, StepState::Failed(_)));
    assert_eq!(failures.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_request_of_15_mib_passes() {
    let dockerfile = "FROM scratch\nCOPY runc /runc\nRUN [\"/runc\", \"--version\"]\n";
    let fixture = Fixture::new(dockerfile).await;
    let mut request = fixture.context.request();
    request.attrs.extend((0..15).map(|number| (format!("build-arg:A{number}"), "x".repeat(1 << 20))));
    fixture.build(request).await.expect("it fits");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_dockerfile_that_cannot_be_parsed_is_shown() {
    let fixture = Fixture::new("FROM scratch\nCOPPY a b\n").await;
    let error = fixture.build(fixture.context.request()).await.expect_err("no such instruction");
    let SolveError::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.message.contains("unknown instruction: COPPY"), "{failure}");
    assert_eq!(failure.sources[0].location().as_deref(), Some("Dockerfile:2"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_long_silent_step_is_no_reason_to_hang_up_and_cancelling_stops_it() {
    let mut fixture = Fixture::new(PAUSING).await;
    let cancel = fixture.cancel.clone();
    let mut cancelled = Instant::now();
    let outcome = fixture
        .pausing_build(async || {
            // Long enough for questions in the silence to have angered grpc-go, had they been pings.
            tokio::time::sleep(Duration::from_secs(25)).await;
            cancelled = Instant::now();
            cancel.cancel(Cause::Interrupt);
        })
        .await;
    assert!(matches!(outcome, Err(SolveError::Cancelled(Cause::Interrupt))), "{outcome:?}");
    assert!(cancelled.elapsed() < Duration::from_secs(5), "{:?}", cancelled.elapsed());
    assert!(!fixture.daemon.runs("pause"), "the daemon has stopped the step");
    let ends = ends(&fixture.drain());
    let run = ends.iter().find(|(name, _)| name.contains("/pause\"]")).expect("the step is told");
    assert_eq!(run.1, &StepState::Cancelled);
    fixture.client.wait_ready(Duration::from_secs(5)).await.expect("the connection lives on");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_stopped_daemon_is_noticed_within_15_s() {
    let fixture = Fixture::new(PAUSING).await;
    let mut stopped = Instant::now();
    let outcome = fixture
        .pausing_build(async || {
            stopped = Instant::now();
            fixture.daemon.signal(Signal::STOP);
        })
        .await;
    assert!(matches!(outcome, Err(SolveError::Lost(Lost::Silent(_)))), "{outcome:?}");
    assert!(stopped.elapsed() < Duration::from_secs(15), "{:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_killed_daemon_is_noticed_at_once() {
    let fixture = Fixture::new(PAUSING).await;
    let mut killed = Instant::now();
    let outcome = fixture
        .pausing_build(async || {
            killed = Instant::now();
            fixture.daemon.signal(Signal::KILL);
        })
        .await;
    assert!(matches!(outcome, Err(SolveError::Lost(Lost::Broken(_)))), "{outcome:?}");
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildkitd"]
async fn a_daemon_that_shuts_down_in_order_ends_the_build() {
    let fixture = Fixture::new(PAUSING).await;
    let mut asked = Instant::now();
    let outcome = fixture
        .pausing_build(async || {
            asked = Instant::now();
            fixture.daemon.signal(Signal::TERM);
        })
        .await;
    // Go's graceful stop lets the call end by itself: the build is cancelled under us, or the stream ends first.
    let told = match &outcome {
        Err(SolveError::Lost(Lost::Broken(_))) => true,
        Err(SolveError::Failed(failure)) => failure.message.contains("context canceled"),
        _ => false,
    };
    assert!(told, "{outcome:?}\n{}", fixture.daemon.log());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}
