//! A fake in front of a real daemon's socket: it refuses some calls as the daemon might, and passes everything else on.

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

/// Listens at `socket` in front of the daemon at `real`: calls whose path begins with `refused` get this gRPC status.
/// Ends when dropped.
pub(crate) fn refusing(socket: &Path, real: PathBuf, refused: &'static str, status: &'static str) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = {
        let _inside = runtime.enter();
        UnixListener::bind(socket).expect("a socket")
    };
    let tasks = runtime.handle().clone();
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let daemon = UnixStream::connect(&real).await.expect("the daemon listens");
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (calls, driver) = builder.handshake(TokioIo::new(daemon)).await.expect("HTTP/2");
            tasks.spawn(driver);
            let pass = hyper::service::service_fn(move |request: Request<Incoming>| {
                let mut calls = calls.clone();
                async move {
                    if request.uri().path().starts_with(refused) {
                        let answer = Response::builder().header("content-type", "application/grpc");
                        return Ok(answer
                            .header("grpc-status", status)
                            .body(Body::empty())
                            .expect("an answer"));
                    }
                    Ok::<_, hyper::Error>(calls.send_request(request).await?.map(Body::new))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tasks.spawn(server.serve_connection(TokioIo::new(client), pass));
        }
    });
    runtime
}
