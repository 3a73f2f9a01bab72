//! Connections as hyper wants them: a stream by the connector, TLS on top.

use crate::registry::connect::{Connect, Io, Link, Target, Way};
use crate::registry::{HostOptions, Limits, OptionsError, tls};
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// What all registries of a client have in common.
pub(in crate::registry) struct Shared {
    connector: Arc<dyn Connect>,
    hosts: HashMap<String, (HostOptions, Vec<CertificateDer<'static>>)>,
    pub(super) limits: Limits,
    /// By the host whose options they follow; the empty name for hosts without any.
    tls: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl Shared {
    pub(in crate::registry) fn new(
        hosts: Vec<HostOptions>,
        connector: Arc<dyn Connect>,
        limits: Limits,
    ) -> Result<Self, OptionsError> {
        let mut by_name = HashMap::new();
        for options in hosts {
            let authorities = tls::authorities(&options)?;
            by_name.insert(options.host.clone(), (options, authorities));
        }
        Ok(Self { connector, hosts: by_name, limits, tls: Mutex::default() })
    }

    /// Returns how the host of a URL is reached, if it is through somebody else.
    pub(super) fn way(&self, url: &Url) -> Option<Way> {
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
        self.connector.way(host, url.port_or_known_default()?)
    }

    /// Returns what a request to a URL says of us to the proxy that gets it, if one does.
    pub(super) fn proxy_authorization(&self, url: &Url) -> Option<HeaderValue> {
        let plain = url.scheme() == "http";
        self.connector.proxy_authorization(url.host_str().filter(|_| plain)?, url.port_or_known_default()?)
    }

    pub(super) fn options(&self, host: &str) -> Option<&HostOptions> {
        self.hosts.get(host).map(|(options, _)| options)
    }

    /// Whether the user said that this host goes without TLS, or without checking it.
    pub(super) fn accepts_plain(&self, url: &Url) -> bool {
        let options = self.options(&super::place(url));
        options.is_some_and(|options| options.plain_http || options.insecure_skip_verify)
    }

    /// A token service or storage behind a registry is trusted by the registry's authorities too, unless it has
    /// options of its own: docker and containerd use one transport per registry.
    fn tls(&self, authority: &str, registry: &str) -> Arc<ClientConfig> {
        let name =
            [authority, registry].into_iter().find(|name| self.hosts.contains_key(*name)).unwrap_or("");
        let mut configs = self.tls.lock().expect("nobody panics while holding the map");
        if let Some(config) = configs.get(name) {
            return Arc::clone(config);
        }
        let config = Arc::new(match self.hosts.get(name) {
            Some((options, authorities)) => tls::client_config(authorities, options.insecure_skip_verify),
            None => tls::client_config(&[], false),
        });
        configs.insert(name.to_owned(), Arc::clone(&config));
        config
    }
}

/// Whether a URL points at this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] Arc<io::Error>),
    #[error("no TLS with {0}")]
    Handshake(String, #[source] Arc<io::Error>),
    #[error("no connection to {0} within {secs} s", secs = .1.as_secs())]
    Timeout(String, Duration),
}

#[derive(Clone)]
pub(super) struct Dialer {
    shared: Arc<Shared>,
    registry: Arc<str>,
}

impl Dialer {
    pub(super) fn new(shared: &Arc<Shared>, registry: &str) -> Self {
        Self { shared: Arc::clone(shared), registry: registry.into() }
    }

    async fn dial(self, uri: Uri) -> Result<Stream, DialError> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let address = format!("{}:{port}", uri.host().unwrap_or_default());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let limit = self.shared.limits.connect;
        let connector = &self.shared.connector;
        let longer = limit + connector.patience();
        let link = tokio::time::timeout(longer, connector.connect(Target { host, port, secure })).await;
        let link = link.map_err(|_elapsed| DialError::Timeout(address.clone(), longer))?;
        let Link { io, endless, forwards } =
            link.map_err(|error| DialError::Connect(address.clone(), Arc::new(error)))?;
        if !secure {
            return Ok(Stream { io: TokioIo::new(io), h2: false, endless, forwards });
        }
        let failed = |error| DialError::Handshake(address.clone(), Arc::new(error));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
        let mut config = self.shared.tls(authority, &self.registry);
        if endless {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let io = tokio::time::timeout(limit, TlsConnector::from(config).connect(name, io)).await;
        let io = io.map_err(|_elapsed| DialError::Timeout(address.clone(), limit))?.map_err(failed)?;
        let h2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { io: TokioIo::new(Box::new(io)), h2, endless, forwards })
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection, and whether HTTP/2 was agreed on it.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    h2: bool,
    endless: bool,
    forwards: bool,
}

/// Marks an answer on a connection whose end nobody may tell.
#[derive(Clone)]
pub(super) struct Endless;

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.forwards);
        let connected = if self.h2 { connected.negotiated_h2() } else { connected };
        if self.endless { connected.extra(Endless) } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
