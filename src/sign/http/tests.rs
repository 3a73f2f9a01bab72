use super::*;
use crate::task::{self, Task};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A fake service that gives each connection the next of these answers, byte for byte, and the last one forever.
struct Fake {
    url: Url,
    calls: Arc<AtomicUsize>,
    _task: Task<()>,
}

enum Script {
    Say(Vec<u8>),
    Hang,
    Flood,
}

fn say(text: &str) -> Script {
    Script::Say(text.as_bytes().to_vec())
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut byte = [0; 512];
        match stream.read(&mut byte).await {
            Ok(length @ 1..) => head.extend_from_slice(&byte[..length]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

impl Fake {
    async fn start(script: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let task = task::spawn("fake-service", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let at = seen.fetch_add(1, Ordering::SeqCst).min(script.len() - 1);
                read_head(&mut stream).await;
                match &script[at] {
                    Script::Say(bytes) => {
                        let _gone = stream.write_all(bytes).await;
                    }
                    Script::Hang => std::future::pending().await,
                    Script::Flood => {
                        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
                        let chunk = vec![b'x'; 1 << 20];
                        for _ in 0..100 {
                            if stream.write_all(&chunk).await.is_err() {
                                break;
                            }
                        }
                    }
                }
            }
        });
        let url = format!("http://user:password@{address}/a/path?token=secret").parse().unwrap();
        Self { url, calls, _task: task }
    }

    async fn get(&self) -> Result<Answer, HttpError> {
        let http = Http::new(&HttpOptions::default()).unwrap();
        let limits = Limits { timeout: Duration::from_millis(900), ..Limits::default() };
        http.send("Fulcio", Request::get(self.url.clone()).bearer("secret"), limits).await
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn tells_no_secret(error: &HttpError) {
    let told = format!("{error} {error:?}");
    assert!(!told.contains("secret") && !told.contains("password"), "{told}");
    assert!(told.contains("Fulcio") && told.contains("/a/path"), "{told}");
}

const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

#[tokio::test]
async fn a_good_answer() {
    let fake = Fake::start(vec![say(DONE)]).await;
    let answer = fake.get().await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"{}"[..]));
    assert_eq!(answer.json::<serde_json::Value>().unwrap(), serde_json::json!({}));
}

#[tokio::test]
async fn slow_answers_end() {
    let fake = Fake::start(vec![Script::Hang]).await;
    let start = Instant::now();
    let error = fake.get().await.unwrap_err();
    assert!(matches!(error, HttpError::Slow { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(fake.calls(), 1, "what took its whole time is not tried again");
    tells_no_secret(&error);
}

#[tokio::test]
async fn garbage_is_told_without_being_repeated() {
    let fake = Fake::start(vec![say("SSH-2.0-secret\r\n\r\n")]).await;
    let error = fake.get().await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. }), "{error}");
    tells_no_secret(&error);

    let fake =
        Fake::start(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n\"secret\"")])
            .await;
    let error = fake.get().await.unwrap().json::<u32>().unwrap_err();
    assert!(matches!(error, HttpError::Garbage { .. }), "{error}");
    tells_no_secret(&error);
}

#[tokio::test]
async fn truncated_answers_are_none() {
    let fake = Fake::start(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"secret\":")]).await;
    let error = fake.get().await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. }), "{error}");
    tells_no_secret(&error);
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_read() {
    for answer in [Script::Flood, say("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")] {
        let fake = Fake::start(vec![answer]).await;
        let error = fake.get().await.unwrap_err();
        assert!(matches!(error, HttpError::TooLong { limit: 4_194_304, .. }), "{error}");
        tells_no_secret(&error);
    }
}

#[tokio::test]
async fn busy_services_are_asked_again() {
    let busy =
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let ill = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let fake = Fake::start(vec![say(busy), say(ill), say(DONE)]).await;
    assert_eq!(fake.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(fake.calls(), 3);

    let fake = Fake::start(vec![say(ill)]).await;
    let answer = fake.get().await.unwrap();
    assert_eq!((answer.status, fake.calls()), (StatusCode::SERVICE_UNAVAILABLE, 3));
    tells_no_secret(&answer.refused("overloaded"));
}

#[tokio::test]
async fn one_that_asks_for_too_long_a_pause_is_told_of_at_once() {
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let fake = Fake::start(vec![say(busy)]).await;
    let start = Instant::now();
    assert_eq!(fake.get().await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    assert!(start.elapsed() < Duration::from_secs(2) && fake.calls() == 1);
}

#[tokio::test]
async fn a_post_is_made_once() {
    let ill = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let fake = Fake::start(vec![say(ill)]).await;
    let http = Http::new(&HttpOptions::default()).unwrap();
    let post = Request::post_json(fake.url.clone(), &serde_json::json!({}));
    let answer = http.send("Fulcio", post.clone(), Limits::default()).await.unwrap();
    assert_eq!((answer.status.as_u16(), fake.calls()), (500, 1));
    http.send("Fulcio", post.repeatable(), Limits::default()).await.unwrap();
    assert_eq!(fake.calls(), 4);
}

#[tokio::test]
async fn redirects_never_take_a_header_along() {
    let target = Fake::start(vec![say(DONE)]).await;
    let to = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        target.url
    );
    let fake = Fake::start(vec![say(&to)]).await;
    assert_eq!(fake.get().await.unwrap().status, StatusCode::FOUND, "it has a token");
    assert_eq!(target.calls(), 0);
    let http = Http::new(&HttpOptions::default()).unwrap();
    let bare = http.send("Fulcio", Request::get(fake.url.clone()), Limits::default()).await.unwrap();
    assert_eq!((bare.status, target.calls()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:password@{}/a/path?token=secret", listener.local_addr().unwrap());
    drop(listener);
    let http = Http::new(&HttpOptions::default()).unwrap();
    let result = http.send("Fulcio", Request::get(url.parse().unwrap()), Limits::default()).await;
    let error = result.unwrap_err();
    assert!(matches!(&error, HttpError::Unreachable { reason, .. } if reason.contains("refused")), "{error}");
    tells_no_secret(&error);
}

#[tokio::test]
async fn proxies_are_used_save_for_exceptions_and_metadata() {
    let proxy = Fake::start(vec![say(DONE)]).await;
    let service = Fake::start(vec![say(DONE)]).await;
    let through = |none_for: Option<&str>| {
        let proxies = Proxies {
            http: Some(format!("http://{}", proxy.url.socket_addrs(|| None).unwrap()[0])),
            none_for: none_for.map(str::to_owned),
            ..Proxies::default()
        };
        Http::new(&HttpOptions { proxies, ..HttpOptions::default() }).unwrap()
    };
    let get = Request::get(service.url.clone());
    through(None).send("Fulcio", get.clone(), Limits::default()).await.unwrap();
    assert_eq!((proxy.calls(), service.calls()), (1, 0));
    through(None).send("Fulcio", get.clone().direct(), Limits::default()).await.unwrap();
    through(Some("127.0.0.1")).send("Fulcio", get, Limits::default()).await.unwrap();
    assert_eq!((proxy.calls(), service.calls()), (1, 2));
    let proxies = Proxies { https: Some("http://user:secret@[".to_owned()), ..Proxies::default() };
    let error = Http::new(&HttpOptions { proxies, ..HttpOptions::default() }).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}

#[tokio::test]
async fn unknown_authorities_are_refused_and_known_ones_taken() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let _task = task::spawn("fake-service", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut head = [0; 4096];
                let _head = stream.read(&mut head).await;
                let _gone = stream.write_all(DONE.as_bytes()).await;
                let _gone = stream.shutdown().await;
            }
        }
    });
    let get = Request::get(format!("https://localhost:{port}/a/path").parse().unwrap());
    let send = async |options: HttpOptions| {
        Http::new(&options).unwrap().send("Fulcio", get.clone(), Limits::default()).await
    };
    let error = send(HttpOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let extra_ca_pem = vec![signed.cert.pem().into_bytes()];
    assert!(send(HttpOptions { extra_ca_pem, ..HttpOptions::default() }).await.is_ok());
    assert!(send(HttpOptions { insecure: true, ..HttpOptions::default() }).await.is_ok());
}
