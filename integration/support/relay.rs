//! A relay before the API server: what passes through it can be cut, silenced or slowed down.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// They pass, so many a second in each direction.
    Slow(usize),
    /// They are kept, and connections stay open.
    Silent,
    /// New connections end at once.
    Down,
}

/// A relay on the loopback. Its threads end with the connections and the process.
pub struct Relay {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Starts one before `HOST:PORT`.
    pub fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let relay = Self { address, way: Arc::new(Mutex::new(Way::Open)), streams: Arc::default() };
        let (way, streams, target) = (Arc::clone(&relay.way), Arc::clone(&relay.streams), target.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if *way.lock().expect("no holder panics") == Way::Down {
                    continue;
                }
                let far = TcpStream::connect(&target).expect("the API server is there");
                let pairs = [(&near, &far), (&far, &near)];
                for (from, to) in pairs {
                    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                    let (from, to, way) = (clone(from), clone(to), Arc::clone(&way));
                    std::thread::spawn(move || pump(from, to, &way));
                }
                streams.lock().expect("no holder panics").extend([near, far]);
            }
        });
        relay
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of the bytes, on connections that are open too.
    pub fn set(&self, way: Way) {
        *self.way.lock().expect("no holder panics") = way;
    }

    /// Ends all connections that are open.
    pub fn cut(&self) {
        for stream in self.streams.lock().expect("no holder panics").drain(..) {
            // It may have ended by itself.
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, way: &Mutex<Way>) {
    let mut chunk = [0; 16 << 10];
    let now = || *way.lock().expect("no holder panics");
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        while now() == Way::Silent {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Way::Slow(rate) = now() {
            std::thread::sleep(Duration::from_secs_f64(length as f64 / rate as f64));
        }
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ended = stream.shutdown(Shutdown::Both);
    }
}
