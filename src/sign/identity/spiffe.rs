//! JWT-SVIDs of the SPIFFE Workload API, which an agent on the machine serves.

use super::IdentityError;
use crate::pb::JwtsvidRequest;
use crate::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// Where the agent listens if nothing is said (cosign's default, and SPIRE's).
pub const DEFAULT: &str = "/tmp/spire-agent/public/api.sock";
const PLACE: &str = "the SPIFFE agent";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address and port.
    Tcp(std::net::SocketAddr),
}

impl Socket {
    /// Reads `SPIFFE_ENDPOINT_SOCKET`: `unix:///PATH`, `tcp://IP:PORT`, or a bare path; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let path = |path: &str| path.starts_with('/').then(|| Self::Unix(path.into()));
        match text.split_once(':') {
            Some(("tcp", address)) => address.strip_prefix("//")?.parse().ok().map(Self::Tcp),
            Some(("unix", rest)) => path(rest.strip_prefix("//").unwrap_or(rest)),
            _ => path(text),
        }
    }
}

/// Gets a token for this audience.
pub(super) async fn fetch(socket: &Socket, audience: &str) -> Result<SecretString, IdentityError> {
    let failed =
        |source: Box<dyn Error + Send + Sync>| IdentityError::Service { place: PLACE.to_owned(), source };
    let asked = async {
        let channel = connect(socket.clone()).await?;
        let mut request = tonic::Request::new(JwtsvidRequest {
            audience: vec![audience.to_owned()],
            spiffe_id: String::new(),
        });
        // Without it no agent answers: it keeps requests out that a browser was talked into.
        request
            .metadata_mut()
            .insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
        let answer = SpiffeWorkloadApiClient::new(channel).fetch_jwtsvid(request).await;
        let answer = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
        let first = answer.into_inner().svids.into_iter().next();
        Ok(first.ok_or("it gave none")?.svid.into())
    };
    let late = || format!("nothing came within {} s", TIMEOUT.as_secs());
    tokio::time::timeout(TIMEOUT, asked).await.unwrap_or_else(|_| Err(late().into())).map_err(failed)
}

async fn connect(socket: Socket) -> Result<Channel, Box<dyn Error + Send + Sync>> {
    // The address is for gRPC's `:authority` alone.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(match socket {
        Socket::Unix(path) => {
            let dial = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(dial).await?
        }
        Socket::Tcp(address) => {
            let dial = tower::service_fn(move |_: Uri| async move {
                TcpStream::connect(address).await.map(TokioIo::new)
            });
            endpoint.connect_with_connector(dial).await?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_or_addresses() {
        for text in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            assert_eq!(Socket::parse(text), Some(Socket::Unix("/run/a.sock".into())), "{text}");
        }
        assert_eq!(Socket::parse("tcp://127.0.0.1:8081"), Some(Socket::Tcp(([127, 0, 0, 1], 8081).into())));
        for text in ["", "unix://a", "tcp://host:1", "tcp:127.0.0.1:1", "a.sock", "http://a"] {
            assert_eq!(Socket::parse(text), None, "{text}");
        }
    }
}
