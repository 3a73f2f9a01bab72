//! Proxies between here and registries, as `HTTPS_PROXY` and its kin name them: each connection is a tunnel through one,
//! so that TLS is spoken with the registry itself.

use super::connect::{Fault, Io, Link, RouteError, Target, Tcp};
use crate::tls;
use http::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceExt as _};

/// Which hosts are reached through which proxy.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies([redacted])")
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self::new("", "", "")
    }
}

impl Proxies {
    /// Reads proxies for `https://` and `http://` and the list of what is reached without.
    pub fn new(https: &str, http: &str, no: &str) -> Self {
        Self(Arc::new(Matcher::builder().https(https).http(http).no(no).build()))
    }

    /// Returns the proxy for a host, if it has one. Go's rule: never for the loopback.
    pub fn find(&self, to: Target<'_>) -> Option<Proxy> {
        let loopback = to.host == "localhost" || to.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback {
            return None;
        }
        let scheme = if to.secure { "https" } else { "http" };
        self.0.intercept(&format!("{scheme}://{}", authority(to)).parse().ok()?).map(Proxy)
    }
}

/// A proxy; its password is not shown.
pub struct Proxy(Intercept);

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0.uri();
        f.write_str(uri.host().unwrap_or_default())?;
        uri.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Proxy {
    /// Opens a stream through the proxy; the proxy resolves the host's name.
    ///
    /// # Errors
    /// A [`RouteError`].
    pub async fn connect(&self, to: Target<'_>) -> io::Result<Link> {
        let failed = |why: String| RouteError {
            what: format!("{} is not reached through the proxy {self}: {why}", authority(to)),
            hint: Some(
                "HTTPS_PROXY and HTTP_PROXY name the proxy, NO_PROXY what is reached without one".to_owned(),
            ),
            fault: Fault::NoWay,
            source: None,
        };
        let uri = self.0.uri();
        let scheme = uri.scheme_str().unwrap_or_default().to_owned();
        let there: Uri = format!("http://{}", authority(to))
            .parse()
            .map_err(|error: http::uri::InvalidUri| failed(error.to_string()))?;
        let proxy = tower::service_fn(|uri: Uri| open(uri));
        let io = match scheme.as_str() {
            "http" | "https" => {
                let mut tunnel = Tunnel::new(uri.clone(), proxy);
                if let Some(value) = self.0.basic_auth() {
                    tunnel = tunnel.with_auth(value.clone());
                }
                through(tunnel, there).await
            }
            "socks5" | "socks5h" => {
                let mut socks = SocksV5::new(uri.clone(), proxy);
                if let Some((user, password)) = self.0.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                through(socks, there).await
            }
            other => Err(format!("proxies of the kind `{other}` are not supported")),
        };
        Ok(Link { io: io.map_err(failed)?, endless: false })
    }
}

async fn through<S>(service: S, there: Uri) -> Result<Box<dyn Io>, String>
where
    S: Service<Uri, Response = TokioIo<Box<dyn Io>>>,
    S::Error: Error + 'static,
{
    service.oneshot(there).await.map(TokioIo::into_inner).map_err(|error| root(&error))
}

/// Returns the deepest cause's text: what lies above says only that something below failed.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Connects to the proxy itself, with TLS if it speaks it.
async fn open(proxy: Uri) -> io::Result<TokioIo<Box<dyn Io>>> {
    let secure = proxy.scheme_str() == Some("https");
    let host = proxy.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match (proxy.port_u16(), proxy.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("https")) => 443,
        (None, Some("socks5" | "socks5h")) => 1080,
        (None, _) => 80,
    };
    let Link { io, .. } = Tcp::to(Tcp::lookup(&host, port).await?).await?;
    if !secure {
        return Ok(TokioIo::new(io));
    }
    let mut config = tls::client_config(&[], false);
    config.alpn_protocols.clear();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let io = TlsConnector::from(Arc::new(config)).connect(name, io).await?;
    Ok(TokioIo::new(Box::new(io)))
}

fn authority(Target { host, port, .. }: Target<'_>) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{self, Task};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    fn target(host: &str) -> Target<'_> {
        Target { host, port: 5000, secure: true }
    }

    #[test]
    fn the_environments_rules_hold() {
        let proxies = Proxies::new("http://u:secret@proxy.corp:3128", "", ".inside,10.0.0.0/8");
        let found = |host| proxies.find(target(host)).map(|proxy| proxy.to_string());
        assert_eq!(found("registry.example").as_deref(), Some("proxy.corp:3128"));
        for host in ["registry.inside", "10.1.2.3", "127.0.0.1", "localhost", "::1"] {
            assert_eq!(found(host), None, "{host}");
        }
        assert!(proxies.find(Target { secure: false, ..target("registry.example") }).is_none());
        assert!(!format!("{proxies:?}").contains("secret"));
    }

    /// Starts a proxy that answers the first request so and then sends back what it gets; returns it and what it was asked.
    async fn fake_proxy(answer: &'static str) -> (Proxies, oneshot::Receiver<String>, Task<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (asked, hears) = oneshot::channel();
        let proxy = format!("http://u:secret@{}", listener.local_addr().unwrap());
        let task = task::spawn("fake proxy", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            asked.send(String::from_utf8(request).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ends_with_the_test = tokio::io::copy(&mut from, &mut to).await;
        });
        (Proxies::new(&proxy, "", ""), hears, task)
    }

    #[tokio::test]
    async fn a_stream_is_a_tunnel_through_the_proxy() {
        let (proxies, asked, _running) = fake_proxy("HTTP/1.1 200 Connection established\r\n\r\n").await;
        let to = target("registry.example");
        let mut link = proxies.find(to).unwrap().connect(to).await.unwrap();
        link.io.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        link.io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        let asked = asked.await.unwrap().to_lowercase();
        assert!(asked.starts_with("connect registry.example:5000 http/1.1\r\n"), "{asked}");
        assert!(asked.contains("proxy-authorization: basic dtpzzwnyzxq=\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_without_its_password() {
        let (proxies, _asked, _running) = fake_proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await;
        let to = target("registry.example");
        let Err(error) = proxies.find(to).unwrap().connect(to).await else { panic!("it refuses") };
        let error = error.to_string();
        assert!(
            error.starts_with("registry.example:5000 is not reached through the proxy 127.0.0.1:"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}
