//! A fake buildkitd, for the faults that a real one doesn't produce on demand: a scripted `Control` service on an
//! in-memory pipe, a pipe that can be frozen and cut, and a bare HTTP/2 peer that misbehaves below gRPC.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use kubectl_build::pb::google::rpc;
use kubectl_build::pb::moby::buildkit::v1::control_server::{Control, ControlServer};
use kubectl_build::pb::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use kubectl_build::pb::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, InfoRequest, InfoResponse, ListWorkersRequest,
    ListWorkersResponse, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
};
use kubectl_build::task::{self, Task};
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::sync::watch;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status, Streaming};

/// What the fake does; the default answers everything at once and well.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// The answers to Info, in turn; afterwards it answers well.
    pub(crate) info: VecDeque<Result<(), Status>>,
    pub(crate) workers: Vec<WorkerRecord>,
    pub(crate) solve: Solve,
    /// How long a solve takes.
    pub(crate) solve_takes: Duration,
    pub(crate) status: Vec<StatusResponse>,
    pub(crate) status_ends: StatusEnd,
    /// The value of `buildkit-current-timestamp`.
    pub(crate) clock: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) enum Solve {
    #[default]
    Succeeds,
    Replies(HashMap<String, String>),
    Fails(Status),
    NeverReturns,
}

#[derive(Clone, Default)]
pub(crate) enum StatusEnd {
    #[default]
    Closes,
    Hangs,
    /// Sends the last message again each second, for ever.
    Repeats,
    /// Waits for the reset of the solve, then sends this and closes.
    AfterReset(StatusResponse),
    Fails(Status),
}

/// What the fake saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) infos: usize,
    pub(crate) solve: Option<SolveRequest>,
    /// The client gave the solve up before it was answered.
    pub(crate) solve_reset: bool,
}

/// A running fake; ends when dropped.
pub(crate) struct FakeBuildkit {
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) pipe: Valve,
    _server: Task<()>,
}

impl FakeBuildkit {
    /// Starts one and returns the client's end of its pipe.
    pub(crate) fn start(script: Script) -> (Self, DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (far, pipe) = Valve::on(far);
        (Self::serve(script, far, pipe), near)
    }

    /// Serves the fake on any stream.
    pub(crate) fn serve(
        script: Script,
        io: impl AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        pipe: Valve,
    ) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let service = ControlServer::new(Service { script: Mutex::new(script), seen: Arc::new(sender) });
        // A stream of incoming connections that ends would send GOAWAY at once.
        let incoming = stream::once(async { Ok::<_, io::Error>(io) }).chain(stream::pending());
        let server = async move {
            let served =
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
            served.await.expect("the fake serves");
        };
        Self { seen, pipe, _server: task::spawn("fake buildkitd", server) }
    }

    /// Waits until the fake has seen something.
    pub(crate) async fn wait_for(&mut self, what: impl FnMut(&Seen) -> bool) -> Seen {
        let limit = Duration::from_secs(30);
        let seen = tokio::time::timeout(limit, self.seen.wait_for(what)).await;
        seen.expect("the fake sees it in time").expect("the fake runs").clone()
    }
}

struct Service {
    script: Mutex<Script>,
    seen: Arc<watch::Sender<Seen>>,
}

impl Service {
    fn script(&self) -> Script {
        self.script.lock().expect("no panics under the lock").clone()
    }
}

/// Tells when a call's future is dropped before its end: that is how a server sees the reset of a unary call.
struct ResetGuard(Option<Arc<watch::Sender<Seen>>>);

impl Drop for ResetGuard {
    fn drop(&mut self) {
        if let Some(seen) = self.0.take() {
            seen.send_modify(|seen| seen.solve_reset = true);
        }
    }
}

type Out<T> = Pin<Box<dyn stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Service {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let mut guard = ResetGuard(Some(Arc::clone(&self.seen)));
        let script = self.script();
        self.seen.send_modify(|seen| seen.solve = Some(request.into_inner()));
        tokio::time::sleep(script.solve_takes).await;
        let reply = match script.solve {
            Solve::Succeeds => Ok(HashMap::new()),
            Solve::Replies(reply) => Ok(reply),
            Solve::Fails(status) => Err(status),
            Solve::NeverReturns => std::future::pending().await,
        };
        guard.0 = None;
        Ok(Response::new(SolveResponse { exporter_response: reply? }))
    }

    type StatusStream = Out<StatusResponse>;

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let script = self.script();
        let last = script.status.last().cloned().unwrap_or_default();
        let messages = stream::iter(script.status).map(Ok);
        let end: Out<StatusResponse> = match script.status_ends {
            StatusEnd::Closes => Box::pin(stream::empty()),
            StatusEnd::Hangs => Box::pin(stream::pending()),
            StatusEnd::Repeats => Box::pin(stream::repeat(last).then(async |message| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(message)
            })),
            StatusEnd::AfterReset(message) => {
                let mut seen = self.seen.subscribe();
                Box::pin(stream::once(async move {
                    let _ended = seen.wait_for(|seen| seen.solve_reset).await;
                    Ok(message)
                }))
            }
            StatusEnd::Fails(status) => Box::pin(stream::once(async { Err(status) })),
        };
        let mut response = Response::new(Box::pin(messages.chain(end)) as Self::StatusStream);
        if let Some(clock) = script.clock {
            let clock = clock.parse().expect("a header value");
            response.metadata_mut().insert("buildkit-current-timestamp", clock);
        }
        Ok(response)
    }

    type SessionStream = Out<BytesMessage>;

    async fn session(
        &self,
        _request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("this fake has no sessions"))
    }

    async fn list_workers(
        &self,
        _request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: self.script().workers }))
    }

    async fn info(&self, _request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.seen.send_modify(|seen| seen.infos += 1);
        let scripted = self.script.lock().expect("no panics under the lock").info.pop_front();
        scripted.unwrap_or(Ok(()))?;
        let version = BuildkitVersion { version: "v0.0.0-fake".to_owned(), ..BuildkitVersion::default() };
        Ok(Response::new(InfoResponse { buildkit_version: Some(version) }))
    }

    type ListenBuildHistoryStream = Out<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        _request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("this fake keeps no history"))
    }
}

/// Returns a status with details in BuildKit's form: names such as `errdefs.Source` with their JSON.
pub(crate) fn typed_status(code: Code, message: &str, details: &[(&str, String)]) -> Status {
    let details = details.iter().map(|(name, json)| prost_types::Any {
        type_url: format!("github.com/moby/buildkit/{name}+json"),
        value: json.clone().into_bytes(),
    });
    let envelope = rpc::Status { code: code as i32, message: message.to_owned(), details: details.collect() };
    Status::with_details(code, message, Bytes::from(envelope.encode_to_vec()))
}

/// Shuts a pipe: frozen, it takes and gives nothing and stays open, like a stopped process; cut, it ends.
#[derive(Clone, Default)]
pub(crate) struct Valve(Arc<Mutex<ValveState>>);

#[derive(Default)]
struct ValveState {
    frozen: bool,
    cut: bool,
    wakers: Vec<Waker>,
}

pub(crate) struct Valved<Io> {
    io: Io,
    valve: Valve,
}

impl Valve {
    pub(crate) fn on<Io>(io: Io) -> (Valved<Io>, Self) {
        let valve = Self::default();
        (Valved { io, valve: valve.clone() }, valve)
    }

    pub(crate) fn freeze(&self) {
        self.0.lock().expect("no panics under the lock").frozen = true;
    }

    pub(crate) fn cut(&self) {
        let mut state = self.0.lock().expect("no panics under the lock");
        state.cut = true;
        state.wakers.drain(..).for_each(Waker::wake);
    }

    /// `None` while open; frozen, the waker is forgotten on purpose.
    fn check(&self, context: &Context<'_>) -> Option<Poll<io::Error>> {
        let mut state = self.0.lock().expect("no panics under the lock");
        if state.cut {
            return Some(Poll::Ready(io::ErrorKind::BrokenPipe.into()));
        }
        state.wakers.retain(|waker| !waker.will_wake(context.waker()));
        state.wakers.push(context.waker().clone());
        state.frozen.then_some(Poll::Pending)
    }
}

impl<Io: Unpin + AsyncRead> AsyncRead for Valved<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.valve.check(context) {
            Some(shut) => shut.map(Err),
            None => Pin::new(&mut self.io).poll_read(context, buffer),
        }
    }
}

impl<Io: Unpin + AsyncWrite> AsyncWrite for Valved<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.valve.check(context) {
            Some(shut) => shut.map(Err),
            None => Pin::new(&mut self.io).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.valve.check(context) {
            Some(shut) => shut.map(Err),
            None => Pin::new(&mut self.io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<Io> Connected for Valved<Io> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// How a fake HTTP/2 peer answers `Solve`; everything else it leaves open.
#[derive(Clone, Copy)]
pub(crate) enum Rude {
    /// GOAWAY with ENHANCE_YOUR_CALM, as grpc-go after too many pings.
    GoAway,
    /// RST_STREAM with INTERNAL_ERROR, as grpc-go when an error doesn't fit into the client's header list.
    Reset,
}

/// Serves `Rude` on a pipe of its own.
pub(crate) fn rude(how: Rude) -> (Task<()>, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let serve = async move {
        let mut connection = h2::server::handshake(far).await.expect("a client");
        let mut open = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match how {
                _ if !request.uri().path().ends_with("/Solve") => open.push(respond),
                Rude::GoAway => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
                Rude::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
        }
    };
    (task::spawn("rude peer", serve), near)
}

/// A peer that opens HTTP/2's windows wide, takes 64 KiB a second for `takes`, and never says anything.
pub(crate) fn mute(takes: Duration) -> (Task<()>, DuplexStream) {
    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff"; // INITIAL_WINDOW_SIZE
    const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
    const WINDOW_UPDATE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let serve = async move {
        far.write_all(&[SETTINGS, SETTINGS_ACK, WINDOW_UPDATE].concat()).await.expect("room in the pipe");
        let end = tokio::time::Instant::now() + takes;
        let mut buffer = vec![0; 64 << 10];
        while tokio::time::Instant::now() < end {
            let taken = far.read(&mut buffer).await.expect("bytes");
            assert_ne!(taken, 0, "the client is still there");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    (task::spawn("mute peer", serve), near)
}
