//! How byte streams to registries are opened.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// RFC 8305 §5, "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens byte streams to hosts; TLS, where wanted, is spoken on top of them. The seam for tunnels.
#[async_trait::async_trait]
pub trait Connect: Send + Sync {
    /// Opens a stream to a host (a name or an address, without brackets) and port. The caller limits the time.
    ///
    /// # Errors
    /// Whatever kept it from that; a name that does not resolve is a [`LookupError`] inside.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>>;
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
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let addresses = tokio::net::lookup_host((host, port)).await;
        let addresses = addresses.map_err(|source| {
            io::Error::new(io::ErrorKind::NotFound, LookupError { host: host.to_owned(), source })
        })?;
        let stream = race(interleaved(addresses.collect())).await?;
        // Requests are small and wait for their answers.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
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
