//! A fake daemon: takes the session call and speaks to the client through it.

use crate::event::{Event, Events};
use crate::pb::moby::buildkit::v1 as control;
use crate::pb::moby::buildkit::v1::control_client::ControlClient;
use crate::pb::moby::buildkit::v1::control_server::{Control, ControlServer};
use crate::session::filesync::{FileSync, LocalDir, Report};
use crate::session::{Session, SessionOptions};
use crate::task::Task;
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::service::RoutesBuilder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// One accepted session call.
pub(super) struct Accepted {
    pub(super) metadata: MetadataMap,
    /// The inner connection's bytes.
    pub(super) io: DuplexStream,
}

/// What the fake's calls are told to do.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Manner {
    Accept,
    Refuse,
}

struct Fake {
    manner: Manner,
    accepted: Mutex<mpsc::UnboundedSender<Accepted>>,
    pumps: Mutex<Vec<Task<()>>>,
}

type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Fake {
    type SessionStream = Stream<control::BytesMessage>;
    type StatusStream = Stream<control::StatusResponse>;
    type ListenBuildHistoryStream = Stream<control::BuildHistoryEvent>;

    async fn session(
        &self,
        request: Request<Streaming<control::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if self.manner == Manner::Refuse {
            return Err(Status::permission_denied("not you"));
        }
        let metadata = request.metadata().clone();
        let mut incoming = request.into_inner();
        let (io, ours) = tokio::io::duplex(1 << 20);
        let (mut read, mut write) = tokio::io::split(ours);
        let pump = crate::task::spawn("fake-session", async move {
            while let Some(Ok(message)) = incoming.next().await {
                if write.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _closed = write.shutdown().await;
        });
        self.pumps.lock().expect("no panic").push(pump);
        let outgoing = async_stream(move |sender| async move {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                let data = buffer[..length].to_vec().into();
                if sender.send(Ok(control::BytesMessage { data })).await.is_err() {
                    return;
                }
            }
        });
        let accepted = Accepted { metadata, io };
        self.accepted.lock().expect("no panic").send(accepted).map_err(|_| Status::internal("no test"))?;
        Ok(Response::new(outgoing))
    }

    async fn solve(
        &self,
        _: Request<control::SolveRequest>,
    ) -> Result<Response<control::SolveResponse>, Status> {
        Err(Status::unimplemented("not this fake"))
    }

    async fn status(
        &self,
        _: Request<control::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        Err(Status::unimplemented("not this fake"))
    }

    async fn list_workers(
        &self,
        _: Request<control::ListWorkersRequest>,
    ) -> Result<Response<control::ListWorkersResponse>, Status> {
        Err(Status::unimplemented("not this fake"))
    }

    async fn info(
        &self,
        _: Request<control::InfoRequest>,
    ) -> Result<Response<control::InfoResponse>, Status> {
        Err(Status::unimplemented("not this fake"))
    }

    async fn listen_build_history(
        &self,
        _: Request<control::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("not this fake"))
    }
}

/// A stream that a task feeds; the task ends with it.
fn async_stream<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    feed: impl FnOnce(mpsc::Sender<T>) -> F,
) -> Pin<Box<dyn futures_util::Stream<Item = T> + Send>> {
    let (sender, receiver) = mpsc::channel(4);
    let task = crate::task::spawn("fake-feed", feed(sender));
    Box::pin(futures_util::stream::unfold((receiver, task), |(mut receiver, task)| async move {
        receiver.recv().await.map(|item| (item, (receiver, task)))
    }))
}

/// A connection to a fake daemon, which is gone when this is dropped.
pub(super) struct Daemon {
    pub(super) control: ControlClient<Channel>,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    _server: Task<()>,
}

impl Daemon {
    pub(super) async fn start(manner: Manner) -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let fake = Fake { manner, accepted: Mutex::new(sender), pumps: Mutex::default() };
        let mut routes = RoutesBuilder::default();
        routes.add_service(ControlServer::new(fake).max_decoding_message_size(16 << 20));
        let (client, server) = tokio::io::duplex(1 << 20);
        let server = crate::task::spawn("fake-daemon", async move {
            let _however = crate::session::serve::serve(server, routes.routes()).await;
        });
        let control = ControlClient::new(channel(client).await);
        Self { control, accepted, _server: server }
    }

    pub(super) async fn accept(&mut self) -> Accepted {
        self.accepted.recv().await.expect("a session call")
    }
}

/// Makes a gRPC channel of one stream of bytes.
pub(super) async fn channel(io: DuplexStream) -> Channel {
    let io = Mutex::new(Some(io));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = io.lock().expect("no panic").take();
        std::future::ready(io.map(TokioIo::new).ok_or_else(|| std::io::Error::other("only once")))
    });
    Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(16 << 20)
        .connect_with_connector(connector)
        .await
        .expect("a pipe connects")
}

/// A session with one directory called `context`, and the daemon's view of it.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) report: Report,
    pub(super) inner: Channel,
    events: mpsc::UnboundedReceiver<Event>,
    daemon: Daemon,
}

impl Opened {
    pub(super) async fn with(root: &Path) -> Self {
        let (events, received) = Events::channel();
        let context = LocalDir { name: "context".into(), root: root.to_owned() };
        let sync = FileSync::new(vec![context], events.clone());
        let report = sync.report();
        let mut daemon = Daemon::start(Manner::Accept).await;
        let options = SessionOptions { shared_key: "key".into(), attachables: vec![Box::new(sync)], events };
        let session = Session::open(daemon.control.clone(), options).await.expect("a session");
        let inner = channel(daemon.accept().await.io).await;
        Self { session, report, inner, events: received, daemon }
    }

    /// Ends the inner connection and nothing else.
    pub(super) fn hang_up(self) -> (Session, Daemon) {
        (self.session, self.daemon)
    }

    /// Returns the notes for a person so far.
    pub(super) fn notes(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        let notes = events.filter_map(|event| match event {
            Event::Note(text) => Some(text),
            _ => None,
        });
        notes.collect()
    }
}
