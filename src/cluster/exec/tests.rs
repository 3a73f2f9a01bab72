//! The pumps and the dialling against a fake API server: a real WebSocket on the loopback that does what a test
//! tells it, silence and slowness included, which the real one won't do on demand.

use super::*;
use crate::cluster::connect::{ConnectOptions, Connection};
use crate::event::Events;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use std::future::{Future, ready};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

type Socket = WebSocketStream<TcpStream>;

const QUICK: Liveness = Liveness { ping: Duration::from_millis(50), dead: Duration::from_millis(400) };

fn frame(channel: u8, payload: &[u8]) -> Message {
    Message::Binary([&[channel], payload].concat().into())
}

fn success() -> Message {
    frame(3, br#"{"kind":"Status","status":"Success"}"#)
}

/// Serves one exec with `script` and returns a connection to dial it.
async fn fake_api_server<F, S>(protocol: &'static str, script: S) -> (Connection, Task<()>)
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(usize, Socket) -> F + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let task = task::spawn("fake-api-server", async move {
        for count in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the library's own signature")]
            let choose = |request: &Request, mut response: Response| {
                let query = request.uri().query().unwrap().to_owned();
                assert!(
                    query.contains("container=buildkitd") && query.contains("command=buildctl"),
                    "{query}"
                );
                response.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
                Ok(response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
            script(count, socket).await;
        }
    });
    let options = ConnectOptions { server: Some(server), namespace: Some("ci".into()), ..Default::default() };
    (Connection::connect(&options, &Events::off()).await.unwrap(), task)
}

fn command() -> Command {
    Command {
        pod: "buildkit-0".into(),
        namespace: "ci".into(),
        container: "buildkitd".into(),
        command: vec!["buildctl".into(), "dial-stdio".into()],
    }
}

/// Returns both ends of a stream over a loopback socket, without a handshake.
async fn pair(closes: bool, liveness: Liveness) -> (ExecStream, Socket) {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let client = WebSocketStream::from_raw_socket(client.unwrap(), Role::Client, None).await;
    let server = WebSocketStream::from_raw_socket(server.unwrap().0, Role::Server, None).await;
    (ExecStream::over(client, closes, liveness), server)
}

#[tokio::test]
async fn stdin_closes_alone_where_the_protocol_can() {
    let (connection, _server) = fake_api_server("v5.channel.k8s.io", |_, mut socket| async move {
        let mut heard = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(bytes) if bytes[0] == 0 => heard.extend_from_slice(&bytes[1..]),
                Message::Binary(bytes) => {
                    assert_eq!(bytes, Bytes::from_static(&[255, 0]));
                    // What comes after the end of stdin still arrives.
                    socket.send(frame(1, &heard)).await.unwrap();
                    socket.send(frame(2, b"bye\n")).await.unwrap();
                    socket.send(success()).await.unwrap();
                    socket.close(None).await.unwrap();
                }
                _ => {}
            }
        }
    })
    .await;
    let mut stream = dial(&connection, &command()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(stream.write_all(b"more").await.is_err(), "stdin is closed");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    let diagnosis = stream.diagnosis();
    assert_eq!(diagnosis.end, Some(ExecEnd::Exited { code: 0 }));
    assert_eq!(diagnosis.stderr, "bye\n");
}

#[tokio::test]
async fn v4_says_nothing_and_loses_nothing() {
    let (mut stream, mut socket) = pair(false, Liveness::default()).await;
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), frame(0, b"x"));
    socket.send(frame(1, b"answer")).await.unwrap();
    socket.send(success()).await.unwrap();
    socket.close(None).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn an_exit_code_is_an_error_for_readers_and_writers() {
    let (mut stream, mut socket) = pair(true, Liveness::default()).await;
    socket.send(frame(1, b"partial")).await.unwrap();
    socket.send(frame(2, b"no such socket")).await.unwrap();
    let status = br#"{"status":"Failure","message":"command terminated with non-zero exit code",
        "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    socket.send(frame(3, status)).await.unwrap();
    socket.close(None).await.unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(bytes, b"partial", "what came before the end is read");
    assert_eq!(error.to_string(), "the process ended with exit code 7");
    assert_eq!(stream.handle().ended().await, ExecEnd::Exited { code: 7 });
    assert_eq!(stream.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let text = stream.diagnosis().to_string();
    assert_eq!(text, "the process ended with exit code 7; it said: no such socket");
}

#[tokio::test]
async fn a_status_without_a_close_ends_the_stream_too() {
    let (mut stream, mut socket) = pair(true, Liveness::default()).await;
    socket.send(success()).await.unwrap();
    let mut bytes = Vec::new();
    let began = Instant::now();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn silence_ends_the_stream() {
    let (mut stream, _mute) = pair(true, QUICK).await;
    let began = Instant::now();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let took = began.elapsed();
    assert!(took >= QUICK.dead && took < QUICK.dead * 4, "{took:?}");
}

#[tokio::test]
async fn small_writes_into_the_void_are_no_signs_of_life() {
    // What HTTP/2 keepalive does above: little frames that only ever reach our own socket's buffer.
    let (stream, _mute) = pair(true, QUICK).await;
    let handle = stream.handle();
    let (_reader, mut writer) = tokio::io::split(stream);
    let write = async {
        while writer.write_all(b"ping").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::time::timeout(QUICK.dead * 5, async { tokio::join!(write, handle.ended()).1 }).await;
    assert!(matches!(ended, Ok(ExecEnd::Silent { .. })), "{ended:?}");
}

#[tokio::test]
async fn answered_pings_keep_an_idle_stream() {
    let (stream, mut socket) = pair(true, QUICK).await;
    let answering = task::spawn("answer", async move { while let Some(Ok(_)) = socket.next().await {} });
    let ended = tokio::time::timeout(QUICK.dead * 4, stream.handle().ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(answering);
    assert!(stream.handle().ended().await != ExecEnd::Exited { code: 0 });
}

#[tokio::test]
async fn a_slow_reader_holds_the_server_back_and_is_not_taken_for_a_dead_one() {
    const SENT: usize = 64 << 20;
    let (mut stream, mut socket) = pair(true, QUICK).await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&sent);
    let _server = task::spawn("flood", async move {
        let block = vec![7; 64 * 1024];
        for _ in 0..SENT / block.len() {
            if socket.send(frame(1, &block)).await.is_err() {
                return;
            }
            count.fetch_add(block.len(), std::sync::atomic::Ordering::Relaxed);
        }
        let _ended = socket.send(success()).await;
        let _ended = socket.close(None).await;
        // A socket that is closed with pings unread resets the connection.
        while let Some(Ok(_)) = socket.next().await {}
    });
    tokio::time::sleep(QUICK.dead * 3).await;
    let held = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(held < 32 << 20, "{held} bytes went out to nobody");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), SENT);
}

/// Both directions at once, through queues much smaller than what is sent, each side writing all it has before
/// it minds the other: one loop for both directions would stand still.
#[tokio::test]
async fn big_transfers_both_ways_do_not_deadlock() {
    const SENT: usize = 48 << 20;
    let (stream, socket) = pair(true, Liveness { dead: Duration::from_secs(5), ..QUICK }).await;
    let (mut sink, mut source) = socket.split();
    let server_out = task::spawn("out", async move {
        let block = vec![1; 32 * 1024];
        for _ in 0..SENT / block.len() {
            sink.send(frame(1, &block)).await.unwrap();
        }
        sink
    });
    let server_in = task::spawn("in", async move {
        let mut total = 0;
        while total < SENT {
            match source.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    assert!(bytes.len() <= queue::FRAME + 1);
                    total += bytes.len() - 1;
                }
                _ => continue,
            }
        }
        total
    });
    let (mut reader, mut writer) = tokio::io::split(stream);
    let client_out = async {
        let block = vec![2; 100_000];
        let mut left = SENT;
        while left > 0 {
            let length = left.min(block.len());
            writer.write_all(&block[..length]).await.unwrap();
            left -= length;
        }
    };
    let client_in = async {
        let mut buffer = vec![0; 16 * 1024];
        let mut total = 0;
        while total < SENT {
            total += reader.read(&mut buffer).await.unwrap();
        }
        total
    };
    let work = async { tokio::join!(client_out, client_in, server_in.join(), server_out.join()) };
    let ((), received, arrived, _sink) = tokio::time::timeout(Duration::from_secs(60), work).await.unwrap();
    assert_eq!((received, arrived), (SENT, SENT));
}

#[tokio::test]
async fn a_passing_failure_of_the_kubelet_is_dialled_again() {
    let (connection, _server) = fake_api_server("v5.channel.k8s.io", |count, mut socket| async move {
        let message = match count {
            // A v5 server talks to the kubelet after the upgrade, so its failure comes as a status.
            0 => frame(3, br#"{"status":"Failure","message":"error dialing backend: remote error: tls: internal error"}"#),
            _ => frame(1, b"SETTINGS"),
        };
        socket.send(message).await.unwrap();
        if count == 0 {
            let _closed = socket.close(None).await;
        } else {
            let _until_closed = socket.next().await;
        }
    })
    .await;
    let began = Instant::now();
    let mut stream = converse(&connection, &command(), ready).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500));
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"SETTINGS");
}

#[tokio::test]
async fn what_is_said_to_a_process_that_still_starts_is_there_when_it_reads() {
    let (connection, _server) = fake_api_server("v5.channel.k8s.io", |_, mut socket| async move {
        assert_eq!(socket.next().await.unwrap().unwrap(), frame(0, b"question"), "before any greeting");
        socket.send(frame(1, b"answer")).await.unwrap();
        let _until_closed = socket.next().await;
    })
    .await;
    let speak = |mut stream: ExecStream| async move {
        stream.write_all(b"question").await.unwrap();
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    assert_eq!(&converse(&connection, &command(), speak).await.unwrap(), b"answer");
}

#[tokio::test]
async fn a_process_that_does_not_run_is_quoted() {
    let (connection, _server) = fake_api_server("v5.channel.k8s.io", |count, mut socket| async move {
        assert_eq!(count, 0, "this is not worth another try");
        socket.send(frame(2, b"could not connect to unix:///run/buildkit/buildkitd.sock")).await.unwrap();
        let status = br#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"1"}]}}"#;
        socket.send(frame(3, status)).await.unwrap();
        let _closed = socket.close(None).await;
    })
    .await;
    let error = converse(&connection, &command(), ready).await.unwrap_err();
    assert_eq!(error.to_string(), "`buildctl dial-stdio` does not run in pod `buildkit-0`");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.ends_with("it said: could not connect to unix:///run/buildkit/buildkitd.sock"),
        "{source}"
    );
}

#[tokio::test]
async fn a_proxy_that_swallows_the_upgrade_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let _proxy = task::spawn("fake-proxy", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    let options = ConnectOptions { server: Some(server), ..Default::default() };
    let connection = Connection::connect(&options, &Events::off()).await.unwrap();
    let error = converse(&connection, &command(), ready).await.unwrap_err();
    assert!(matches!(error, DialError::Upgrade { .. }), "{error:?}");
}

#[tokio::test]
async fn a_short_command_leaves_its_output() {
    let (connection, _server) = fake_api_server("v5.channel.k8s.io", |_, mut socket| async move {
        socket.send(frame(1, b"[]")).await.unwrap();
        socket.send(success()).await.unwrap();
        let _closed = socket.close(None).await;
    })
    .await;
    let output = run(&connection, &command(), Duration::from_secs(5)).await.unwrap();
    assert_eq!(output.stdout, b"[]");
    assert!(output.diagnosis.end.unwrap().is_success());
}
