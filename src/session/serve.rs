//! Serves the attachables on the tunnel: an HTTP/2 server inside of an HTTP/2 client's call.
//!
//! hyper's connection rather than tonic's server: tonic's accept loop either ends at once or never notices that
//! the peer is gone. All streams run within the one task that drives the connection, so dropping that task drops
//! everything, and no handler may block.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tonic::service::Routes;

/// A daemon sends every pattern of a `.dockerignore` and every COPY source as request metadata; grpc-go gives up
/// on its own when the server's limit is lower than what it has to send (16 KiB by default).
const HEADERS: u32 = 16 << 20;

/// Window of a stream and of the connection, for what the daemon sends.
const WINDOW: u32 = 4 << 20;

/// What HTTP/2 keeps of one stream while the daemon doesn't take more.
const SEND_BUFFER: usize = 256 << 10;

/// Serves one connection until the peer closes it.
///
/// # Errors
/// What broke the connection.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Routes,
) -> Result<(), hyper::Error> {
    let streams = Streams::default();
    let routes = routes.prepare();
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        tower::Service::call(&mut routes.clone(), request.map(tonic::body::Body::new))
    });
    let connection = hyper::server::conn::http2::Builder::new(streams.clone())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(None)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::new();
    loop {
        running.extend(streams.take());
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = streams.arrived() => {}
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

type Handler = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Hands the streams that hyper accepts to the loop above.
#[derive(Clone, Default)]
struct Streams(Arc<(Mutex<Vec<Handler>>, Notify)>);

impl Streams {
    fn take(&self) -> Vec<Handler> {
        std::mem::take(&mut self.0.0.lock().expect("no holder panics"))
    }

    async fn arrived(&self) {
        self.0.1.notified().await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.0.lock().expect("no holder panics").push(Box::pin(stream));
        self.0.1.notify_one();
    }
}
