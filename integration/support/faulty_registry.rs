//! A proxy before a real registry, for faults that the real one doesn't produce on demand: calls that a test picks
//! are answered with a status of its choice, or late, or never; all others go through.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// It goes through after this time.
    Late(Duration),
    /// Its connection ends without an answer.
    Broken,
}

type Pick = Box<dyn Fn(&str, &str) -> Option<Fault> + Send>;

struct Inner {
    /// The real registry's `HOST:PORT`.
    real: String,
    pick: Mutex<Pick>,
    calls: Mutex<Vec<String>>,
    client: Client<HttpConnector, Body>,
}

/// A running proxy; it ends when dropped.
pub struct FaultyRegistry {
    inner: Arc<Inner>,
    host: String,
    _runtime: Runtime,
}

impl FaultyRegistry {
    /// Starts one before a plain HTTP registry, at the tests' own address, where pods reach it too.
    pub fn before(real: &str, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener =
            runtime.block_on(TcpListener::bind((address, 0))).expect("tests run under CLUSTER_RUN");
        let host = listener.local_addr().expect("an address").to_string();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let pick: Pick = Box::new(|_, _| None);
        let inner = Inner { real: real.to_owned(), pick: Mutex::new(pick), calls: Mutex::default(), client };
        let inner = Arc::new(inner);
        let app = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { inner, host, _runtime: runtime }
    }

    /// Returns its `HOST:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sets what happens from now on, by method and path.
    pub fn set(&self, pick: impl Fn(&str, &str) -> Option<Fault> + Send + 'static) {
        *self.inner.pick.lock().expect("no holder panics") = Box::new(pick);
    }

    /// Whether a call of this method whose path holds these words has come.
    pub fn was_asked(&self, method: &str, words: &str) -> bool {
        self.count(method, words) > 0
    }

    /// How many calls of this method whose paths hold these words have come.
    pub fn count(&self, method: &str, words: &str) -> usize {
        let calls = self.inner.calls.lock().expect("no holder panics");
        calls.iter().filter(|call| call.starts_with(method) && call.contains(words)).count()
    }
}

async fn serve(State(proxy): State<Arc<Inner>>, mut request: Request) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    proxy.calls.lock().expect("no holder panics").push(format!("{method} {path}"));
    let fault = proxy.pick.lock().expect("no holder panics")(&method, &path);
    match fault {
        None => {}
        Some(Fault::Late(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Status(status)) => return refusal(status),
        Some(Fault::Broken) => {
            let cut = futures_util::stream::iter([Err::<&[u8], _>(std::io::Error::other("cut"))]);
            return Response::builder()
                .header("content-length", 10)
                .body(Body::from_stream(cut))
                .expect("valid");
        }
    }
    // The Host header stays the proxy's: uploads go on where it says.
    assert!(request.headers().contains_key(HOST));
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = Uri::try_from(format!("http://{}{target}", proxy.real)).expect("a URL");
    match proxy.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn refusal(status: u16) -> Response {
    let (code, message) = match status {
        401 => ("UNAUTHORIZED", "authentication required"),
        403 => ("DENIED", "requested access to the resource is denied"),
        404 => ("NAME_UNKNOWN", "repository name not known to registry"),
        429 => ("TOOMANYREQUESTS", "you have reached your rate limit"),
        _ => ("UNKNOWN", "the storage is not there"),
    };
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    let response = match status {
        401 => response.header(WWW_AUTHENTICATE, r#"Basic realm="fault""#),
        429 => response.header(RETRY_AFTER, "600"),
        _ => response,
    };
    response.body(Body::from(body)).expect("valid")
}
