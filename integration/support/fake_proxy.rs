//! A fake HTTP proxy on loopback: it gets requests with whole URLs, and sends them on to one real host whatever they name.
//! It opens no tunnels.

use crate::tls::{Certificate, TlsFront};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::PROXY_AUTHORIZATION;
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// The fake; it ends when dropped.
pub(crate) struct FakeProxy {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<String>>>,
    runtime: Runtime,
}

#[derive(Clone)]
struct Inner {
    real: String,
    /// The only value of `Proxy-Authorization` that it takes.
    wants: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl FakeProxy {
    pub(crate) fn start(real: &str, wants: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::default();
        let inner = Inner { real: real.to_owned(), wants: wants.to_owned(), seen: Arc::clone(&seen) };
        let app = Router::new().fallback(pass).with_state(inner);
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, seen, runtime }
    }

    /// Starts TLS in front of it.
    pub(crate) fn behind_tls(&self, certificate: &Certificate) -> TlsFront {
        self.runtime.block_on(TlsFront::start(certificate, &self.address))
    }

    /// Returns what it has been asked: method, whole URL, and its own answer where it sent nothing on.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panicked").clone()
    }
}

async fn pass(State(inner): State<Inner>, request: Request) -> Response<Body> {
    let asked = format!("{} {}", request.method(), request.uri());
    let note = |line: String| inner.seen.lock().expect("nobody panicked").push(line);
    let (mut head, body) = request.into_parts();
    let known = head.headers.remove(PROXY_AUTHORIZATION).is_some_and(|value| value == inner.wants.as_str());
    if !known {
        note(format!("{asked} 407"));
        return StatusCode::PROXY_AUTHENTICATION_REQUIRED.into_response();
    }
    note(asked);
    let rest = head.uri.path_and_query().map_or("/", |rest| rest.as_str());
    head.uri = format!("http://{}{rest}", inner.real).parse::<Uri>().expect("a URL");
    let client = Client::builder(TokioExecutor::new()).build_http();
    match client.request(Request::from_parts(head, body)).await {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
