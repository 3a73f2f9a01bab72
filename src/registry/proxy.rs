//! Proxies between here and registries, as `HTTPS_PROXY` and its kin name them: a connection is a tunnel through one, so
//! that TLS is spoken with the registry itself; what goes without TLS an HTTP proxy is given to send on.

use super::connect::{Fault, Io, Link, RouteError, Target, Tcp};
use crate::tls;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// The longest answer to a request for a tunnel that is read.
const HEAD_MAX: usize = 16 << 10;
const HINT: &str = "HTTPS_PROXY and HTTP_PROXY name the proxy, NO_PROXY what is reached without one";
const TRUST_HINT: &str =
    "SSL_CERT_FILE names the file of all authorities that are trusted; the proxy's must be in it";

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
    /// Whether an address is one of a proxy that can be used.
    pub fn takes(address: &str) -> bool {
        let found = Matcher::builder().all(address).build().intercept(&Uri::from_static("http://a"));
        let scheme = found.as_ref().and_then(|found| found.uri().scheme_str());
        matches!(scheme, Some("http" | "https" | "socks5" | "socks5h"))
    }

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
    /// Opens a stream through the proxy; the proxy resolves the host's name. Where no TLS will be spoken, an HTTP proxy
    /// gets the requests themselves, since most let tunnels through to TLS ports only.
    ///
    /// # Errors
    /// A [`RouteError`].
    pub async fn connect(&self, to: Target<'_>) -> io::Result<Link> {
        let forwards = self.forwards(to);
        let opened = if forwards { self.open().await } else { self.tunnel(to).await };
        let io = opened.map_err(|Refused { why, hint }| RouteError {
            what: format!("{} is not reached through the proxy {self}: {why}", authority(to)),
            hint: Some(hint.unwrap_or_else(|| HINT.to_owned())),
            fault: Fault::NoWay,
            source: None,
        })?;
        Ok(Link { io, endless: false, forwards })
    }

    /// Returns what requests to this host say to the proxy of us, where it gets them itself.
    pub fn authorization(&self, to: Target<'_>) -> Option<HeaderValue> {
        self.0.basic_auth().filter(|_| self.forwards(to)).cloned()
    }

    fn forwards(&self, to: Target<'_>) -> bool {
        !to.secure && matches!(self.0.uri().scheme_str(), Some("http" | "https"))
    }

    async fn tunnel(&self, to: Target<'_>) -> Result<Box<dyn Io>, Refused> {
        let mut io = self.open().await?;
        match self.speaks_socks() {
            true => self.ask_socks(&mut io, to).await?,
            false => self.ask(&mut io, to).await?,
        }
        Ok(io)
    }

    fn speaks_socks(&self) -> bool {
        matches!(self.0.uri().scheme_str(), Some("socks5" | "socks5h"))
    }

    /// Asks a SOCKS proxy for a tunnel, with user and password if there are any (RFC 1928, RFC 1929).
    async fn ask_socks(&self, io: &mut Box<dyn Io>, to: Target<'_>) -> Result<(), Refused> {
        let no_socks = || Refused::from("it does not speak SOCKS 5".to_owned());
        let sized = |text: &str| -> Result<Vec<u8>, Refused> {
            let length = u8::try_from(text.len());
            let length = length.map_err(|_| "it takes no names or passwords beyond 255 bytes".to_owned())?;
            Ok([&[length], text.as_bytes()].concat())
        };
        let us = match self.0.raw_auth() {
            Some((user, password)) => Some([vec![1], sized(user)?, sized(password)?].concat()),
            None => None,
        };
        let there = [&[5, 1, 0, 3], &sized(to.host)?[..], &to.port.to_be_bytes()].concat();
        let methods: &[u8] = if us.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        io.write_all(methods).await?;
        io.flush().await?;
        let mut chosen = [0; 2];
        io.read_exact(&mut chosen).await?;
        match (chosen, us) {
            ([5, 0], _) => {}
            ([5, 2], Some(us)) => {
                io.write_all(&us).await?;
                io.flush().await?;
                let mut accepted = [0; 2];
                io.read_exact(&mut accepted).await?;
                if accepted[1] != 0 {
                    return Err("it takes another user or password".to_owned().into());
                }
            }
            ([5, _], None) => {
                return Err("it wants a user and password: socks5://USER:PASSWORD@HOST:PORT"
                    .to_owned()
                    .into());
            }
            ([5, _], Some(_)) => return Err("it takes no user and password".to_owned().into()),
            _ => return Err(no_socks()),
        }
        io.write_all(&there).await?;
        io.flush().await?;
        let mut answer = [0; 4];
        io.read_exact(&mut answer).await?;
        let what = match answer[1] {
            0 => "",
            2 => "it lets nobody through there",
            3 | 4 => "it does not reach the host",
            5 => "the host refuses its connection",
            _ => "it cannot connect there",
        };
        if !what.is_empty() {
            return Err(format!("{what} (SOCKS answer {})", answer[1]).into());
        }
        // The address that it connects from.
        let length = match answer[3] {
            1 => 4,
            3 => io.read_u8().await?.into(),
            4 => 16,
            _ => return Err(no_socks()),
        };
        io.read_exact(&mut vec![0; length + 2]).await?;
        Ok(())
    }

    /// Returns the header line that says who we are.
    fn us(&self) -> String {
        let value = self.0.basic_auth().and_then(|value| value.to_str().ok());
        value.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default()
    }

    /// Asks an HTTP proxy for a tunnel (RFC 9110 §9.3.6).
    async fn ask(&self, io: &mut Box<dyn Io>, to: Target<'_>) -> Result<(), Refused> {
        let (there, us) = (authority(to), self.us());
        let request = format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n{us}\r\n");
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let mut head = Vec::new();
        // Byte by byte: what follows is the host's.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == HEAD_MAX {
                return Err("its answer has no end".to_owned().into());
            }
            head.push(io.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let mut status = head.lines().next().unwrap_or_default().splitn(2, ' ');
        let version = status.next().unwrap_or_default();
        let status: String =
            status.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect();
        if !version.starts_with("HTTP/1.") {
            return Err("it does not speak HTTP".to_owned().into());
        }
        let hint = match status.get(..3).unwrap_or_default() {
            code if code.starts_with('2') => return Ok(()),
            "407" if us.is_empty() => {
                "say who you are: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT".to_owned()
            }
            "407" => {
                "HTTPS_PROXY holds another user or password than the proxy takes; special characters are \
                      written %40 and so on there"
                    .to_owned()
            }
            "400" | "403" | "405" => format!(
                "ask whoever runs the proxy to let connections to {there} through, or name the host in NO_PROXY if \
                 it is reached without"
            ),
            _ => format!("the proxy does not reach {}: name it in NO_PROXY if you reach it without", to.host),
        };
        Err(Refused { why: format!("it answers `{status}`"), hint: Some(hint) })
    }

    /// Connects to the proxy itself, with TLS if it speaks it.
    async fn open(&self) -> Result<Box<dyn Io>, Refused> {
        let uri = self.0.uri();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (Some(port), _) => port,
            (None, Some("https")) => 443,
            (None, Some("socks5" | "socks5h")) => 1080,
            (None, _) => 80,
        };
        let Link { io, .. } = Tcp::to(Tcp::lookup(&host, port).await?).await?;
        if uri.scheme_str() != Some("https") {
            return Ok(io);
        }
        let mut config = tls::client_config(&[], false);
        config.alpn_protocols.clear();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let secured = TlsConnector::from(Arc::new(config)).connect(name, io).await;
        let secured = secured.map_err(|error| Refused {
            why: format!("no TLS with it: {error}"),
            hint: Some(TRUST_HINT.to_owned()),
        })?;
        Ok(Box::new(secured))
    }
}

/// Why a proxy leads nowhere, and what a person can do about it where that is known.
struct Refused {
    why: String,
    hint: Option<String>,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, hint: None }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => "it hung up".to_owned().into(),
            _ => error.to_string().into(),
        }
    }
}

fn authority(Target { host, port, .. }: Target<'_>) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{self, Task};
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
    async fn a_proxy_that_refuses_is_named_with_its_answer_and_what_to_do_but_without_its_password() {
        for (answer, why, what_to_do) in [
            (
                "HTTP/1.1 403 Forbidden\r\n\r\n",
                "`403 Forbidden`",
                "connections to registry.example:5000 through",
            ),
            ("HTTP/1.1 407 \r\n\r\n", "`407 `", "another user or password"),
            (
                "HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n",
                "`503 Service Unavailable`",
                "does not reach",
            ),
            ("SSH-2.0-x\r\n\r\n", "it does not speak HTTP", "NO_PROXY"),
        ] {
            let (proxies, _asked, _running) = fake_proxy(answer).await;
            let to = target("registry.example");
            let Err(error) = proxies.find(to).unwrap().connect(to).await else { panic!("it refuses") };
            let route = error.get_ref().and_then(|error| error.downcast_ref::<RouteError>()).unwrap();
            let (what, hint) = (&route.what, route.hint.as_deref().unwrap());
            let begin = "registry.example:5000 is not reached through the proxy 127.0.0.1:";
            assert!(what.starts_with(begin) && what.contains(why), "{what}");
            assert!(hint.contains(what_to_do), "{hint}");
            assert!(!what.contains("secret") && !hint.contains("secret"));
        }
    }

    #[test]
    fn other_kinds_of_proxies_are_refused() {
        for usable in ["proxy:3128", "http://u:p@proxy:1", "https://proxy", "socks5://proxy", "socks5h://p:1"]
        {
            assert!(Proxies::takes(usable), "{usable}");
        }
        for other in ["socks4://proxy", "ftp://proxy", "http://[", "http://", ""] {
            assert!(!Proxies::takes(other), "{other}");
        }
    }

    /// A fake of RFC 1928 and RFC 1929 that answers the request so; returns it and what it was asked for.
    async fn fake_socks(answer: u8) -> (Proxies, oneshot::Receiver<Vec<u8>>, Task<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (asked, hears) = oneshot::channel();
        let proxy = format!("socks5://u:secret@{}", listener.local_addr().unwrap());
        let task = task::spawn("fake SOCKS proxy", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 5);
            let mut methods = vec![0; stream.read_u8().await.unwrap().into()];
            stream.read_exact(&mut methods).await.unwrap();
            assert!(methods.contains(&2), "user and password");
            stream.write_all(&[5, 2]).await.unwrap();
            let mut us = [0; 1 + 1 + 1 + 1 + 6];
            stream.read_exact(&mut us).await.unwrap();
            assert_eq!(&us, b"\x01\x01u\x06secret");
            stream.write_all(&[1, 0]).await.unwrap();
            let mut request = vec![0; 4 + 1 + "registry.example".len() + 2];
            stream.read_exact(&mut request).await.unwrap();
            asked.send(request).unwrap();
            stream.write_all(&[5, answer, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ends_with_the_test = tokio::io::copy(&mut from, &mut to).await;
        });
        (Proxies::new(&proxy, "", ""), hears, task)
    }

    #[tokio::test]
    async fn a_socks_proxy_is_given_the_name_and_the_password() {
        let (proxies, asked, _running) = fake_socks(0).await;
        let to = target("registry.example");
        let mut link = proxies.find(to).unwrap().connect(to).await.unwrap();
        link.io.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        link.io.read_exact(&mut back).await.unwrap();
        assert_eq!(
            (&back, asked.await.unwrap().as_slice()),
            (b"hello", &b"\x05\x01\0\x03\x10registry.example\x13\x88"[..])
        );

        let (proxies, _asked, _running) = fake_socks(2).await;
        let Err(error) = proxies.find(to).unwrap().connect(to).await else { panic!("it refuses") };
        let error = error.to_string();
        assert!(
            error.contains("through the proxy 127.0.0.1:")
                && error.contains("lets nobody through there (SOCKS answer 2)"),
            "{error}"
        );
    }
}
