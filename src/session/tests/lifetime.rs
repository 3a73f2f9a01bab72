//! Sessions open, answer, and end, whoever ends them.

use super::daemon::{Daemon, Manner, Opened, channel};
use crate::event::Events;
use crate::pb::grpc::health::v1::HealthCheckRequest;
use crate::pb::grpc::health::v1::health_client::HealthClient;
use crate::pb::moby::filesync::v1::CredentialsRequest;
use crate::pb::moby::filesync::v1::auth_client::AuthClient;
use crate::session::{Session, SessionError, SessionOptions};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

fn options(shared_key: &str) -> SessionOptions {
    SessionOptions { shared_key: shared_key.into(), attachables: Vec::new(), events: Events::off() }
}

#[tokio::test]
async fn announces_itself_and_answers_for_its_health() {
    let root = tempfile::tempdir().expect("a directory");
    let sync = crate::session::filesync::FileSync::new(Vec::new(), Events::off());
    let mut daemon = Daemon::start(Manner::Accept).await;
    let mut options = options("app:machine");
    options.attachables.push(Box::new(sync));
    let session = Session::open(daemon.control.clone(), options).await.expect("a session");
    let accepted = daemon.accept().await;
    let text = |key: &str| -> Vec<&str> {
        accepted.metadata.get_all(key).iter().map(|value| value.to_str().expect("ASCII")).collect()
    };
    assert_eq!(text("x-docker-expose-session-uuid"), [session.id()]);
    assert_eq!(session.id().len(), 25);
    assert!(session.id().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    assert_eq!(text("x-docker-expose-session-sharedkey"), ["app:machine"]);
    let methods = ["/grpc.health.v1.Health/Check", "/moby.filesync.v1.FileSync/DiffCopy"];
    assert_eq!(text("x-docker-expose-session-grpc-method"), methods);

    let inner = channel(accepted.io).await;
    let mut health = HealthClient::new(inner.clone());
    for _ in 0..3 {
        let answer = health.check(HealthCheckRequest::default()).await.expect("an answer");
        assert_eq!(answer.into_inner().status, 1);
    }
    // What isn't attached is not implemented, which a daemon understands.
    let absent = AuthClient::new(inner).credentials(CredentialsRequest::default()).await;
    assert_eq!(absent.expect_err("no such service").code(), tonic::Code::Unimplemented);
    drop(root);
}

#[tokio::test]
async fn a_key_that_no_header_takes_is_hashed() {
    let mut daemon = Daemon::start(Manner::Accept).await;
    let _session = Session::open(daemon.control.clone(), options("ä\n")).await.expect("a session");
    let accepted = daemon.accept().await;
    let key = accepted.metadata.get("x-docker-expose-session-sharedkey").expect("a key");
    assert_eq!(key.len(), 64);
}

#[tokio::test]
async fn closing_ends_the_call_in_order() {
    let root = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start(Manner::Accept).await;
    let session = Session::open(daemon.control.clone(), options("")).await.expect("a session");
    let mut io = daemon.accept().await.io;
    let close = tokio::time::timeout(Duration::from_millis(1500), session.close());
    let daemon_side = async {
        let mut rest = Vec::new();
        // The server's settings, then the end; the daemon then hangs up.
        io.read_to_end(&mut rest).await.expect("the end");
        drop(io);
        rest
    };
    let (closed, rest) = tokio::join!(close, daemon_side);
    closed.expect("as soon as the daemon hangs up");
    assert!(rest.len() < 100, "{rest:?}");
    drop(root);
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_a_daemon_that_is_stuck() {
    let mut daemon = Daemon::start(Manner::Accept).await;
    let session = Session::open(daemon.control.clone(), options("")).await.expect("a session");
    let _io = daemon.accept().await.io;
    let start = tokio::time::Instant::now();
    session.close().await;
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_session() {
    let mut daemon = Daemon::start(Manner::Accept).await;
    let mut session = Session::open(daemon.control.clone(), options("")).await.expect("a session");
    let inner = channel(daemon.accept().await.io).await;
    let mut health = HealthClient::new(inner);
    for _ in 0..5 {
        health.check(HealthCheckRequest::default()).await.expect("an answer");
        tokio::select! {
            reason = session.closed() => panic!("{reason}"),
            () = tokio::time::sleep(Duration::from_secs(25)) => {}
        }
    }
    health.check(HealthCheckRequest::default()).await.expect("an answer");
    let start = tokio::time::Instant::now();
    let reason = session.closed().await;
    assert!(matches!(reason, SessionError::Silent(_)), "{reason:?}");
    assert!((29..=31).contains(&start.elapsed().as_secs()));
    assert!(matches!(session.closed().await, SessionError::Ended), "asked again, it answers at once");
}

#[tokio::test]
async fn the_daemon_hangs_up() {
    let root = tempfile::tempdir().expect("a directory");
    let opened = Opened::with(root.path()).await;
    HealthClient::new(opened.inner.clone()).check(HealthCheckRequest::default()).await.expect("an answer");
    let (mut session, _daemon) = opened.hang_up();
    let reason = tokio::time::timeout(Duration::from_secs(5), session.closed()).await.expect("noticed");
    assert!(matches!(reason, SessionError::Ended | SessionError::Broken(_)), "{reason:?}");
}

#[tokio::test]
async fn the_connection_breaks() {
    let mut daemon = Daemon::start(Manner::Accept).await;
    let mut session = Session::open(daemon.control.clone(), options("")).await.expect("a session");
    let _io = daemon.accept().await.io;
    drop(daemon);
    let reason = tokio::time::timeout(Duration::from_secs(5), session.closed()).await.expect("noticed");
    assert!(matches!(reason, SessionError::Broken(_) | SessionError::Refused(_)), "{reason:?}");
}

#[tokio::test]
async fn a_refusal_says_why() {
    let daemon = Daemon::start(Manner::Refuse).await;
    let mut session = Session::open(daemon.control.clone(), options("")).await.expect("not known yet");
    let SessionError::Refused(status) = session.closed().await else { panic!("another reason") };
    assert_eq!(status.message(), "not you");
}
