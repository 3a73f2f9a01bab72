//! A fake in front of a real service: it has a fault where it is told to, and passes everything else on. Once mended, it
//! passes on all.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection is closed without a word.
    Closed,
    /// Nothing comes, and nobody hangs up.
    Silent,
    /// This status with this body.
    Answer(u16, &'static str),
    /// The beginning of JSON, then the end of the connection.
    Truncated,
    /// 100 MB that are announced.
    Huge,
    /// 100 MB in chunks, so that nobody knows before.
    Chunked,
    /// The service itself, this many milliseconds later.
    Late(u64),
}

const MEGABYTES: usize = 100;

/// The fake. It lives as long as the test.
pub(crate) struct Front {
    /// Where it is asked, with the path of the real one.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    real: String,
    /// Where in the first line of a request the fault is, and how many of these requests pass before.
    at: String,
    after: usize,
    seen: AtomicUsize,
    fault: Mutex<Option<Fault>>,
    sent: AtomicU64,
    /// Done when a request with this in its first line comes.
    then: Option<(String, Box<dyn Fn() + Send + Sync>)>,
}

impl Front {
    /// Starts one on loopback in front of an `http://` service; the fault is at requests whose first line holds `at`,
    /// from the one after the first `after` on.
    pub(crate) fn new(real: &str, at: &str, after: usize, fault: Fault) -> Self {
        Self::start(real, at, after, Some(fault), None)
    }

    /// Starts one without a fault that does something when such a request comes.
    pub(crate) fn watching(real: &str, at: &str, then: impl Fn() + Send + Sync + 'static) -> Self {
        Self::start(real, at, 0, None, Some((at.to_owned(), Box::new(then))))
    }

    fn start(
        real: &str,
        at: &str,
        after: usize,
        fault: Option<Fault>,
        then: Option<(String, Box<dyn Fn() + Send + Sync>)>,
    ) -> Self {
        let rest = real.strip_prefix("http://").expect("a plain service");
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}{path}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            real: host.to_owned(),
            at: at.to_owned(),
            after,
            seen: AtomicUsize::new(0),
            fault: Mutex::new(fault),
            sent: AtomicU64::new(0),
            then,
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { url, shared }
    }

    /// Takes the fault away.
    pub(crate) fn mend(&self) {
        *self.shared.fault.lock().expect("nobody panicked") = None;
    }

    /// How many bytes of a body without end were taken from it.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        // One request on each connection: head, then as much body as it says.
        let Some((head, body)) = request(&mut client) else { return };
        let first = head.lines().next().unwrap_or_default();
        if let Some((at, then)) = &self.then
            && first.contains(at.as_str())
        {
            then();
        }
        let fault = *self.fault.lock().expect("nobody panicked");
        let fault = fault.filter(|_| {
            first.contains(self.at.as_str()) && self.seen.fetch_add(1, Ordering::Relaxed) >= self.after
        });
        let _gone = match fault {
            None => return self.pass(client, &head, &body),
            Some(Fault::Late(milliseconds)) => {
                std::thread::sleep(Duration::from_millis(milliseconds));
                return self.pass(client, &head, &body);
            }
            Some(Fault::Closed) => Ok(()),
            // Until the other side has had enough.
            Some(Fault::Silent) => client.read(&mut [0]).map(|_| ()),
            Some(Fault::Answer(status, body)) => write!(
                client,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
            Some(Fault::Truncated) => {
                write!(client, "HTTP/1.1 201 X\r\nContent-Length: 4000\r\n\r\n{{\"logIndex\":\"1")
            }
            Some(Fault::Huge) => {
                let length = MEGABYTES << 20;
                let head = write!(client, "HTTP/1.1 201 X\r\nContent-Length: {length}\r\n\r\n");
                head.and_then(|()| self.pour(&mut client, &[b'['; 1 << 16]))
            }
            Some(Fault::Chunked) => {
                let chunk = [&b"10000\r\n"[..], &[b'['; 1 << 16], b"\r\n"].concat();
                let head = write!(client, "HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n");
                head.and_then(|()| self.pour(&mut client, &chunk))
            }
        };
    }

    fn pour(&self, client: &mut TcpStream, chunk: &[u8]) -> std::io::Result<()> {
        for _ in 0..MEGABYTES << 4 {
            client.write_all(chunk)?;
            self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn pass(&self, mut client: TcpStream, head: &str, body: &[u8]) {
        let lines = head.trim_end().lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
        let head = lines.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
        let Ok(mut service) = TcpStream::connect(&self.real) else { return };
        if service.write_all(head.as_bytes()).and_then(|()| service.write_all(body)).is_ok() {
            let _gone = std::io::copy(&mut service, &mut client);
        }
    }
}

/// Reads one request: its head as text, and its body.
pub(crate) fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut request, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    let end = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let read = client.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    };
    let mut body = request.split_off(end);
    let head = String::from_utf8_lossy(&request).into_owned();
    let lower = head.to_lowercase();
    let length =
        lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let read = client.read(&mut buffer).ok().filter(|read| *read > 0)?;
        body.extend_from_slice(&buffer[..read]);
    }
    Some((head, body))
}
