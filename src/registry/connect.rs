//! How byte streams to registries are opened.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderValue;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// RFC 8305 §5, "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a stream is to lead.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A name or an address, without brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// TLS will be spoken.
    pub secure: bool,
}

/// A byte stream to a host.
pub struct Link {
    /// The stream.
    pub io: Box<dyn Io>,
    /// Nobody may tell that the other side has ended: HTTP/2, and answers without a length, don't go over it.
    pub endless: bool,
    /// A proxy is at its end, which gets each request with the whole URL.
    pub forwards: bool,
}

/// Opens byte streams to hosts; TLS, where wanted, is spoken on top of them. The seam for tunnels.
#[async_trait::async_trait]
pub trait Connect: Send + Sync {
    /// Opens a stream. The caller limits the time.
    ///
    /// # Errors
    /// Whatever kept it from that; a name that does not resolve is a [`LookupError`] inside, a tunnel that leads
    /// nowhere a [`RouteError`].
    async fn connect(&self, to: Target<'_>) -> io::Result<Link>;

    /// Returns how much longer than a connection from here opening may take.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns what requests to a host without TLS say of us to the proxy that gets them, once it is known that one does.
    fn proxy_authorization(&self, _host: &str, _port: u16) -> Option<HeaderValue> {
        None
    }

    /// Returns how a host is reached, if it is through somebody else, for messages: `through …`.
    fn way(&self, _host: &str, _port: u16) -> Option<Way> {
        None
    }
}

/// A way to a host through somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// As in "no answer within 30 s, THROUGH".
    pub through: String,
    /// What a person can do where it fails.
    pub hint: String,
}

/// A way through somebody else that leads nowhere, or broke.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct RouteError {
    /// What happened, in words.
    pub what: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// What may be done about it without one.
    pub fault: Fault,
    /// The deeper cause.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What may be done about a way that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    NoWay,
    /// Another try.
    Broken,
    /// Another try once there is a builder, which the way goes through.
    NoBuilderYet,
}

impl From<RouteError> for io::Error {
    fn from(error: RouteError) -> Self {
        Self::other(error)
    }
}

/// A host name that does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the host name `{host}` does not resolve")]
pub struct LookupError {
    /// The name.
    pub host: String,
    /// What the resolver says.
    #[source]
    pub source: io::Error,
}

/// Plain TCP from where this process runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

#[async_trait::async_trait]
impl Connect for Tcp {
    async fn connect(&self, Target { host, port, .. }: Target<'_>) -> io::Result<Link> {
        Self::to(Self::lookup(host, port).await?).await
    }
}

impl Tcp {
    /// Returns the addresses of a host.
    ///
    /// # Errors
    /// A [`LookupError`].
    pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = tokio::net::lookup_host((host, port)).await;
        let failed =
            |source| io::Error::new(io::ErrorKind::NotFound, LookupError { host: host.to_owned(), source });
        Ok(addresses.map_err(failed)?.collect())
    }

    /// Opens a stream to the first of these addresses that takes one.
    ///
    /// # Errors
    /// The first one's.
    pub async fn to(addresses: Vec<SocketAddr>) -> io::Result<Link> {
        let stream = race(interleaved(addresses)).await?;
        // Requests are small and wait for their answers.
        stream.set_nodelay(true)?;
        Ok(Link { io: Box::new(stream), endless: false, forwards: false })
    }
}

/// Alternates the address families, keeping the resolver's order within each (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    preferred.reverse();
    others.reverse();
    let mut mixed = Vec::with_capacity(preferred.len() + others.len());
    while !preferred.is_empty() || !others.is_empty() {
        mixed.extend(preferred.pop());
        mixed.extend(others.pop());
    }
    mixed
}

/// Returns the first connection that stands; each address gets a head start over the next. Dropping the rest
/// closes them.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut failure = None;
    let mut attempts = FuturesUnordered::new();
    attempts.extend(waiting.next().map(TcpStream::connect));
    while !attempts.is_empty() {
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    failure.get_or_insert(error);
                    attempts.extend(waiting.next().map(TcpStream::connect));
                }
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {
                attempts.extend(waiting.next().map(TcpStream::connect));
            }
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let text = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let mixed = interleaved(text.iter().map(|t| t.parse().unwrap()).collect());
        let mixed: Vec<_> = mixed.iter().map(ToString::to_string).collect();
        assert_eq!(mixed, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let stream = race(vec![dead, alive]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert_eq!(race(vec![dead]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
