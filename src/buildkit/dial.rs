//! Daemons that are reached without Kubernetes: a unix socket, or TCP with TLS on both sides.

use super::client::Client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretSlice};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The end of the wait for one address of a host.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///run/buildkit/buildkitd.sock`
    Unix(PathBuf),
    /// `tcp://buildkit.example:1234`
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What a TCP connection authenticates with; all of it PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authorities that the daemon's certificate may come from; the system's when `None`.
    pub ca: Option<Vec<u8>>,
    /// Our certificate chain and its key, if the daemon wants one.
    pub identity: Option<(Vec<u8>, SecretSlice<u8>)>,
    /// The name that the daemon's certificate must bear, if not the address's host.
    pub server_name: Option<String>,
}

/// A daemon that can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address isn't of a known kind.
    #[error("`{address}` is no BuildKit address: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection failed.
    #[error("cannot connect to BuildKit at `{address}`")]
    Connect {
        /// Where to.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("no TLS connection to BuildKit at `{address}`")]
    Handshake {
        /// Where to.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A certificate, key or name that TLS was to use is of no use.
    #[error("{what} for the TLS connection to BuildKit cannot be used: {reason}")]
    Material {
        /// Which one.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl FromStr for Address {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, DialError> {
        let wrong = |reason| DialError::Address { address: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(wrong("the path of the socket must be absolute, as in `unix:///run/b.sock`")),
            };
        }
        let rest =
            text.strip_prefix("tcp://").ok_or_else(|| wrong("it must start with `unix://` or `tcp://`"))?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port = port.parse().map_err(|_| wrong("the port is no number up to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if bare.is_none() && host.contains(':') {
            return Err(wrong("an IPv6 address must stand in brackets, or the port is missing"));
        }
        if host.is_empty() || host.contains(['/', '@', '[', ']']) {
            return Err(wrong("the host is no name or IP address"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(to, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(to, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(to, "tcp://{host}:{port}"),
        }
    }
}

impl Client {
    /// Connects to `address`; `tls` is for TCP only.
    ///
    /// # Errors
    /// Nobody listens there within 10 s per IP address, or TLS fails. A daemon that rejects *our* certificate
    /// says so later, on the first call: that is how TLS 1.3 works.
    pub async fn dial(address: &Address, tls: Option<&Tls>) -> Result<Self, DialError> {
        match address {
            Address::Unix(path) => Self::unix(path).await,
            Address::Tcp { host, port } => Self::tcp(host, *port, tls).await,
        }
    }

    /// Connects to the unix socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn unix(path: &Path) -> Result<Self, DialError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let address = Address::Unix(path.to_owned());
            DialError::Connect { address, source }
        })?;
        Ok(Self::over(stream))
    }

    /// Connects to `host:port`, in the clear unless `tls` is given.
    ///
    /// # Errors
    /// As [`Client::dial`].
    pub async fn tcp(host: &str, port: u16, tls: Option<&Tls>) -> Result<Self, DialError> {
        let address = || Address::Tcp { host: host.to_owned(), port };
        let tls = tls.map(|tls| tls.prepare(host)).transpose()?;
        let stream =
            connect(host, port).await.map_err(|source| DialError::Connect { address: address(), source })?;
        let Some((config, name)) = tls else { return Ok(Self::over(stream)) };
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        match timeout(CONNECT_LIMIT, handshake).await.unwrap_or_else(|_| Err(late("the TLS handshake"))) {
            Ok(stream) => Ok(Self::over(stream)),
            Err(source) => Err(DialError::Handshake { address: address(), source }),
        }
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took more than {} s", CONNECT_LIMIT.as_secs()))
}

/// Tries the addresses of a host in turn, each with its own limit so that a dead first one doesn't use it all.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let lookup = tokio::net::lookup_host((host, port));
    let addresses = timeout(CONNECT_LIMIT, lookup).await.unwrap_or_else(|_| Err(late("the name lookup")))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let attempt = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_| Err(late("the connection"))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Tls {
    fn prepare(&self, host: &str) -> Result<(ClientConfig, ServerName<'static>), DialError> {
        let wrong = |what| move |reason: String| DialError::Material { what, reason };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions")
            .with_root_certificates(self.roots().map_err(wrong("the CA certificate"))?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(wrong("the client certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(key.expose_secret())
                    .map_err(|error| wrong("the client key")(error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("the client certificate with its key")(error.to_string()))?
            }
        };
        // grpc-go insists on ALPN when the client offers it at all; proxies that don't know it are fine too.
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| wrong("the server name")(error.to_string()))?;
        Ok((config, name))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(pem) = &self.ca else { return Ok(crate::tls::system_roots().clone()) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(certificates) if certificates.is_empty() => Err("it has no PEM block `CERTIFICATE`".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went_in() {
        for text in ["unix:///run/b.sock", "tcp://buildkit:1234", "tcp://10.0.0.1:1", "tcp://[::1]:65535"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        let six: Address = "tcp://[::1]:7".parse().expect("IPv6");
        assert_eq!(six, Address::Tcp { host: "::1".to_owned(), port: 7 });
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let reason = |text: &str| text.parse::<Address>().expect_err(text).to_string();
        assert!(reason("buildkit").contains("`unix://` or `tcp://`"));
        assert!(reason("unix://b.sock").contains("absolute"));
        assert!(reason("tcp://b").contains("port is missing"));
        assert!(reason("tcp://b:99999").contains("65535"));
        assert!(reason("tcp://::1:1").contains("brackets"));
        assert!(reason("tcp://:1").contains("host"));
        assert!(reason("tcp://user@b:1").contains("host"));
    }

    #[test]
    fn unusable_material_is_named() {
        let tls = Tls { ca: Some(b"nonsense".to_vec()), ..Tls::default() };
        let error = tls.prepare("host").map(|_| ()).expect_err("no certificate in it");
        assert!(error.to_string().starts_with("the CA certificate for the TLS connection"), "{error}");
        let tls = Tls { server_name: Some("not a name".to_owned()), ..Tls::default() };
        let error = tls.prepare("host").map(|_| ()).expect_err("a space in it");
        assert!(error.to_string().starts_with("the server name"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = Client::unix(Path::new("/nonexistent/b.sock")).await.expect_err("no such socket");
        assert_eq!(error.to_string(), "cannot connect to BuildKit at `unix:///nonexistent/b.sock`");
    }
}
