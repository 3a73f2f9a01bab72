//! One transfer: the walk's STATs, the requested files' DATA, and the end of both.
//!
//! Three parties fill one bounded queue of byte batches, which the response body empties: the walk, a few
//! readers of files, and the task that takes the daemon's packets. Batches rather than packets, because every
//! write costs the same on its way through the tunnel, whatever its size. The queue of requests is unbounded
//! (numbers only): the daemon asks without waiting for data, and must never be kept from talking.

use super::catalog::{BadNumber, Catalog, Content};
use super::error::SyncError;
use super::packet::{self, FRAME_HEADER, Received};
use super::tree::{Meta, Tree};
use super::view::View;
use super::walk::{self, Ended, Sink};
use crate::event::Events;
use crate::task::Task;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Batches between their makers and the connection.
const QUEUE: usize = 4;

/// A batch of STATs is sent at this size.
const STATS: usize = 32 << 10;

/// A batch of file contents is sent at this size.
const BATCH: usize = 64 << 10;

/// The most data in one packet. Daemons before 0.15 take messages of up to 4 MiB.
const CHUNK: usize = 256 << 10;

/// How long a reader waits for more requests before it sends a batch that is not full. Requests trickle in one
/// by one as the daemon compares; to answer each by itself would cost a write through the tunnel per file.
const LINGER: Duration = Duration::from_micros(500);

/// Files read at a time.
const READERS: usize = 4;

/// A request of the daemon's is far smaller; its errors are texts.
const LONGEST_PACKET: usize = 1 << 20;

/// Where errors of transfers are kept for the caller.
pub(super) type Failures = Arc<Mutex<Option<SyncError>>>;

/// Starts to send what the view shows of the directory at `root`, and returns the response's body. Dropping it
/// ends everything.
pub(super) fn start(
    view: View,
    root: PathBuf,
    requests: tonic::body::Body,
    failures: Failures,
    events: Events,
) -> Outgoing {
    let (queue, batches) = mpsc::channel(QUEUE);
    let transfer = Arc::new(Transfer {
        directory: view.directory.clone(),
        tree: OnceLock::new(),
        catalog: Mutex::default(),
        requests: Mutex::default(),
        requested: Condvar::new(),
        queue,
        failures,
        events,
    });
    let incoming = crate::task::spawn("filesync-receive", Arc::clone(&transfer).receive(requests));
    let walker = Arc::clone(&transfer);
    let walk = crate::task::spawn_blocking(move || walker.walk(&view, root));
    Outgoing { batches, closing: Closing(transfer), ended: false, _tasks: (incoming, walk) }
}

/// What is sent next.
enum Out {
    Batch(Bytes),
    End(Status),
}

struct Transfer {
    directory: String,
    /// Set before the first STAT, so before anything can be requested.
    tree: OnceLock<Arc<Tree>>,
    catalog: Mutex<Catalog>,
    requests: Mutex<Requests>,
    requested: Condvar,
    queue: mpsc::Sender<Out>,
    failures: Failures,
    events: Events,
}

#[derive(Default)]
struct Requests {
    numbers: VecDeque<u32>,
    readers: Vec<Task<()>>,
    idle: usize,
    closed: bool,
}

impl Transfer {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("no reader panics with the requests")
    }

    /// Ends the readers. Whether this was the first to do so.
    fn close(&self) -> bool {
        let mut requests = self.lock();
        let first = !std::mem::replace(&mut requests.closed, true);
        requests.numbers.clear();
        drop(requests);
        self.requested.notify_all();
        first
    }

    /// Keeps the error for the caller, and returns what the daemon is told; nothing after an earlier failure.
    fn fail(&self, error: SyncError) -> Vec<Out> {
        if !self.close() {
            return Vec::new();
        }
        // Half of the 8 KiB that fit into a trailer, since escaping may triple some of it.
        let mut text = error.text();
        text.truncate(text.floor_char_boundary(2048));
        tracing::debug!(directory = self.directory, error = text, "file transfer failed");
        let mut batch = Vec::new();
        if !matches!(error, SyncError::Refused { .. }) {
            packet::put_error(&mut batch, &text);
        }
        self.failures.lock().expect("no holder panics").get_or_insert(error);
        vec![Out::Batch(batch.into()), Out::End(Status::unknown(text))]
    }

    fn fail_blocking(&self, ended: Ended) {
        if let Ended::Failed(error) = ended {
            for out in self.fail(error) {
                // Nobody is there to hear it any more: then it isn't wanted.
                let _unheard = self.queue.blocking_send(out);
            }
        }
    }

    /// Hands a batch over, waiting until there is room for it.
    fn send(&self, batch: Vec<u8>) -> Result<(), Ended> {
        if batch.is_empty() {
            return Ok(());
        }
        self.queue.blocking_send(Out::Batch(batch.into())).map_err(|_| Ended::Unwanted)
    }

    // === the walk

    fn walk(self: &Arc<Self>, view: &View, root: PathBuf) {
        if let Err(ended) = self.try_walk(view, root) {
            self.fail_blocking(ended);
        }
    }

    fn try_walk(self: &Arc<Self>, view: &View, root: PathBuf) -> Result<(), Ended> {
        let tree = Arc::new(Tree::open(&root)?);
        let filter = Arc::new(view.filter(&tree)?);
        let tree = self.tree.get_or_init(|| tree);
        let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
        let mut stats = Stats { transfer: self, batch: Vec::new(), links: HashMap::new(), path: Vec::new() };
        walk::walk(tree, &filter, threads, &mut stats)?;
        packet::put_last_stat(&mut stats.batch);
        self.send(stats.batch)
    }

    // === the daemon's packets

    async fn receive(self: Arc<Self>, requests: tonic::body::Body) {
        let last = match self.try_receive(requests).await {
            Ok(Some(())) => {
                let mut fin = Vec::new();
                packet::put_fin(&mut fin);
                self.close();
                vec![Out::Batch(fin.into()), Out::End(Status::ok(""))]
            }
            // It went away in the middle, which it does when the build is cancelled or has failed.
            Ok(None) => {
                self.close();
                vec![Out::End(Status::cancelled("the receiver went away"))]
            }
            Err(error) => self.fail(error),
        };
        for out in last {
            let _unheard = self.queue.send(out).await;
        }
    }

    /// Takes packets until the receiver has all that it wants, `None` if it goes away before.
    async fn try_receive(self: &Arc<Self>, mut body: tonic::body::Body) -> Result<Option<()>, SyncError> {
        let mut buffer = BytesMut::new();
        let mut numbers = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            let mut finished = false;
            while let Some(message) = take_message(&mut buffer)? {
                match packet::read(&message).map_err(|_| SyncError::Protocol("a malformed packet"))? {
                    Received::Request(number) => numbers.push(number),
                    Received::Finished => finished = true,
                    Received::Failed(text) => {
                        let directory = self.directory.clone();
                        return Err(SyncError::Refused { directory, text });
                    }
                }
            }
            self.request(&mut numbers);
            if finished {
                return Ok(Some(()));
            }
        }
        Ok(None)
    }

    /// Queues requests and sees to it that somebody serves them.
    fn request(self: &Arc<Self>, numbers: &mut Vec<u32>) {
        if numbers.is_empty() {
            return;
        }
        let mut requests = self.lock();
        if requests.closed {
            return;
        }
        requests.numbers.extend(numbers.drain(..));
        // One reader serves a trickle; more only help when many requests wait.
        let readers = requests.readers.len();
        if requests.idle > 0 {
            self.requested.notify_one();
        } else if readers < READERS && requests.numbers.len() > 32 * readers {
            let reader = Arc::clone(self);
            requests.readers.push(crate::task::spawn_blocking(move || reader.read()));
        }
    }

    // === the readers

    fn read(&self) {
        let mut reader = Reader { transfer: self, batch: Vec::new(), path: Vec::new() };
        if let Err(ended) = reader.serve() {
            self.fail_blocking(ended);
        }
    }

    /// Returns the next request, `None` when there is none at once (if `urgent`) or there will be none.
    fn next(&self, urgent: bool) -> Option<u32> {
        let mut requests = self.lock();
        loop {
            if let Some(number) = requests.numbers.pop_front() {
                return Some(number);
            }
            if requests.closed || urgent {
                return None;
            }
            requests.idle += 1;
            requests = self.requested.wait(requests).expect("no reader panics with the requests");
            requests.idle -= 1;
        }
    }
}

/// Turns the walk into STATs.
struct Stats<'a> {
    transfer: &'a Transfer,
    batch: Vec<u8>,
    /// The number of the first name that was sent, for files with several. By device too, unlike upstream.
    links: HashMap<(u64, u64), u32>,
    path: Vec<u8>,
}

impl Sink for Stats<'_> {
    fn entry(&mut self, path: &[u8], meta: &Meta) -> Result<(), Ended> {
        let content = if meta.socket {
            Content::Empty
        } else if meta.is_requestable() {
            Content::File { size: meta.size.max(0).cast_unsigned(), fingerprint: meta.fingerprint() }
        } else {
            Content::None
        };
        let mut stat = meta.stat(path);
        let mut catalog = self.transfer.catalog.lock().expect("no holder panics");
        let number = catalog.add(path, content).map_err(|_| SyncError::Protocol("more than 2^32 files"))?;
        if meta.linked {
            let first = *self.links.entry((meta.device, meta.inode)).or_insert(number);
            if first != number && catalog.look_up(first, &mut self.path).is_some() {
                stat.link = &self.path;
            }
        }
        drop(catalog);
        packet::put_stat(&mut self.batch, &stat);
        if self.batch.len() >= STATS { self.pause() } else { Ok(()) }
    }

    fn pause(&mut self) -> Result<(), Ended> {
        let next = Vec::with_capacity(STATS + 1024);
        self.transfer.send(std::mem::replace(&mut self.batch, next))
    }
}

/// Turns requests into DATA.
struct Reader<'a> {
    transfer: &'a Transfer,
    batch: Vec<u8>,
    path: Vec<u8>,
}

impl Reader<'_> {
    fn serve(&mut self) -> Result<(), Ended> {
        loop {
            let number = match self.transfer.next(!self.batch.is_empty()) {
                Some(number) => number,
                None if self.batch.is_empty() => return Ok(()),
                None => {
                    std::thread::sleep(LINGER);
                    match self.transfer.next(true) {
                        Some(number) => number,
                        None => {
                            self.flush()?;
                            continue;
                        }
                    }
                }
            };
            self.file(number)?;
            if self.batch.len() >= BATCH {
                self.flush()?;
            }
        }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.transfer.send(std::mem::take(&mut self.batch))
    }

    /// Makes room for so many bytes, in a new batch if they don't fit into this one.
    fn room(&mut self, needed: usize) -> Result<(), Ended> {
        if self.batch.capacity() - self.batch.len() < needed {
            self.flush()?;
            self.batch = Vec::with_capacity(needed.max(BATCH + 4096));
        }
        Ok(())
    }

    fn file(&mut self, number: u32) -> Result<(), Ended> {
        let mut catalog = self.transfer.catalog.lock().expect("no holder panics");
        let content = catalog.take(number, &mut self.path);
        drop(catalog);
        let content = content.map_err(|bad| {
            SyncError::Protocol(match bad {
                BadNumber::Repeated => "it asks for a file a second time",
                BadNumber::Unknown | BadNumber::Overflow => "it asks for a file that there is not",
            })
        })?;
        if let Content::File { size, fingerprint } = content {
            self.contents(number, size, fingerprint)?;
        }
        self.room(2 * FRAME_HEADER + 16)?;
        packet::put_end_of_file(&mut self.batch, number);
        Ok(())
    }

    /// Sends as many bytes as were announced, from a file that is still the one announced.
    fn contents(&mut self, number: u32, size: u64, fingerprint: u32) -> Result<(), Ended> {
        let tree = self.transfer.tree.get().ok_or(Ended::Unwanted)?;
        let file = tree.file(&self.path).map_err(|errno| match errno {
            Errno::NOENT => SyncError::Vanished(tree.absolute(&self.path)),
            // A symlink, a socket or a FIFO stands in its place.
            Errno::NOTDIR | Errno::LOOP | Errno::NXIO => SyncError::Changed(tree.absolute(&self.path)),
            errno => tree.error("open", &self.path, errno),
        })?;
        self.verify(tree, &file, size, fingerprint)?;
        let mut offset = 0;
        while offset < size {
            let length = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
            self.room(length + 64)?;
            packet::put_data_header(&mut self.batch, number, length);
            let start = self.batch.len();
            while self.batch.len() < start + length {
                let at = offset + (self.batch.len() - start) as u64;
                let spare = rustix::buffer::spare_capacity(&mut self.batch);
                match rustix::io::pread(&file, spare, at) {
                    Ok(0) => return Err(SyncError::Changed(tree.absolute(&self.path)).into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(tree.error("read", &self.path, errno).into()),
                }
                // More than announced may have come, if there is more by now.
                self.batch.truncate(start + length);
            }
            offset += length as u64;
            if self.batch.len() >= BATCH {
                self.flush()?;
            }
        }
        if !self.verify(tree, &file, size, fingerprint)? {
            let path = tree.absolute(&self.path);
            let note =
                format!("{} grew while it was being sent: only its first {size} bytes were", path.display());
            self.transfer.events.note(note);
        }
        Ok(())
    }

    /// Whether the file is as announced; `false` if it has only grown. What was announced is then sent: a log
    /// that is written to, often by the very build, as it was when it was looked at.
    fn verify(&self, tree: &Tree, file: &OwnedFd, size: u64, fingerprint: u32) -> Result<bool, Ended> {
        let meta =
            Tree::examine_open(file.as_fd()).map_err(|errno| tree.error("examine", &self.path, errno))?;
        let now = (meta.size.max(0).cast_unsigned(), meta.fingerprint());
        if now == (size, fingerprint) {
            return Ok(true);
        }
        let same_file = Meta::same_file(now.1, fingerprint);
        if same_file && now.0 > size {
            return Ok(false);
        }
        Err(SyncError::Changed(tree.absolute(&self.path)).into())
    }
}

/// Cuts the next whole gRPC message off the buffer.
fn take_message(buffer: &mut BytesMut) -> Result<Option<BytesMut>, SyncError> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let [compressed, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > LONGEST_PACKET {
        return Err(SyncError::Protocol("a packet that is compressed or too long"));
    }
    if buffer.len() < FRAME_HEADER + length {
        return Ok(None);
    }
    buffer.advance(FRAME_HEADER);
    Ok(Some(buffer.split_to(length)))
}

/// The response's body: batches, then the status as trailers.
pub(super) struct Outgoing {
    batches: mpsc::Receiver<Out>,
    closing: Closing,
    ended: bool,
    _tasks: (Task<()>, Task<()>),
}

/// Ends the transfer's threads when dropped.
struct Closing(Arc<Transfer>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.batches.poll_recv(context).map(|out| {
            let status = match out {
                Some(Out::Batch(batch)) => return Some(Ok(Frame::data(batch))),
                Some(Out::End(status)) => status,
                None => Status::internal("the transfer ended without a word"),
            };
            self.ended = true;
            self.closing.0.close();
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)).into()
        })
    }
}
