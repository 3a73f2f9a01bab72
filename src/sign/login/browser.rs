//! The authorization code flow: a page in a browser on this machine, which comes back to a listener on loopback.
//!
//! Browsers connect ahead of time, ask for icons, come back twice: whatever isn't the one answer that is waited for is
//! answered and forgotten. Every connection lives in the future that waits, so none outlives it.

use super::token::told;
use super::{LoggedIn, Login, LoginError, Pkce, random};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::ExposeSecret as _;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Where the browser comes back to, as cosign has it: at any port.
const CALLBACK: &str = "http://localhost:0/auth/callback";
/// A connection that says nothing is let go.
const SILENT: Duration = Duration::from_secs(60);
/// More connections than a browser opens.
const CONNECTIONS: usize = 64;

/// Both families' loopback at one port: `localhost` is either, and browsers choose.
struct Loopback {
    first: TcpListener,
    second: Option<TcpListener>,
}

impl Loopback {
    async fn open(port: u16) -> io::Result<Self> {
        let mut taken = None;
        for _ in 0..5 {
            let first = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(first) => first,
                // Machines without IPv4.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    let first = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await?;
                    return Ok(Self { first, second: None });
                }
                Err(error) => return Err(error),
            };
            match TcpListener::bind((Ipv6Addr::LOCALHOST, first.local_addr()?.port())).await {
                Ok(second) => return Ok(Self { first, second: Some(second) }),
                // Somebody else has this port of the other family, and would get what is ours.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = Some(error),
                Err(_) => return Ok(Self { first, second: None }),
            }
        }
        Err(taken.expect("five were tried"))
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let second = async {
            match &self.second {
                Some(second) => second.accept().await,
                None => std::future::pending().await,
            }
        };
        let (stream, _) = tokio::select! {
            one = self.first.accept() => one?,
            one = second => one?,
        };
        Ok(stream)
    }
}

/// One login that is on offer.
struct Offer<'a> {
    login: &'a Login,
    /// The page that leads to the provider's; nobody guesses it.
    start: String,
    callback: String,
    redirect: Url,
    authorization: Url,
    state: String,
    nonce: String,
    pkce: Pkce,
    logged: Mutex<Option<LoggedIn>>,
}

impl Login {
    pub(super) async fn by_browser(&self) -> Result<LoggedIn, LoginError> {
        let mut redirect = self.settings.redirect.clone().unwrap_or_else(|| CALLBACK.parse().expect("a URL"));
        let wanted = redirect.port_or_known_default().expect("http has one");
        let listening = async {
            let loopback = Loopback::open(wanted).await?;
            let port = loopback.first.local_addr()?.port();
            Ok((loopback, port))
        };
        let failed = |source| LoginError::Listen { at: format!("localhost:{wanted}"), source };
        let (loopback, port) = listening.await.map_err(failed)?;
        if wanted == 0 {
            let _http_has_ports = redirect.set_port(Some(port));
        }
        let offer = Offer::new(self, redirect)?;
        // This address fits into a line of any terminal; the provider's takes ten.
        let page = format!("http://localhost:{port}{}", offer.start);
        let how = match self.settings.open.is_some() {
            true => "log in to sign, in the browser that opens or at",
            false => "log in to sign, with a browser on this machine, at",
        };
        self.ask(format!("{how}\n{page}"));
        if let Some(open) = &self.settings.open {
            open(&page);
        }
        offer.serve(&loopback).await
    }
}

impl<'a> Offer<'a> {
    fn new(login: &'a Login, redirect: Url) -> Result<Self, LoginError> {
        let (state, nonce, pkce) = (random()?, random()?, Pkce::new()?);
        let provider = &login.provider;
        let mut authorization = provider.authorization.clone().expect("the flow was chosen for it");
        authorization
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &login.settings.client_id)
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("scope", &provider.scope)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &pkce.challenge)
            .append_pair("code_challenge_method", "S256");
        if provider.renews() {
            // Without being asked again nobody grants it (OpenID Connect Core 1.0, section 11).
            authorization.query_pairs_mut().append_pair("prompt", "consent");
        }
        let start = format!("/{}", &random()?[..22]);
        let callback = redirect.path().to_owned();
        Ok(Self {
            login,
            start,
            callback,
            redirect,
            authorization,
            state,
            nonce,
            pkce,
            logged: Mutex::default(),
        })
    }

    async fn serve(&self, loopback: &Loopback) -> Result<LoggedIn, LoginError> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                // One that ended has given its whole answer, which may have been the last.
                Some(()) = connections.next(), if !connections.is_empty() => {
                    if let Some(logged) = self.logged.lock().expect("nobody panics while holding it").take() {
                        return Ok(logged);
                    }
                }
                accepted = loopback.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok(stream) => connections.push(self.connection(stream)),
                    // Out of descriptors, perhaps: others may end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(SILENT).keep_alive(false);
        // A browser that goes away in the middle comes back, or doesn't.
        let _gone = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: &http::Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if request.method() != Method::GET {
            return page(StatusCode::METHOD_NOT_ALLOWED, "Nothing is sent here", "", None);
        }
        if path == self.start {
            let mut response = page(StatusCode::FOUND, "Log in", "", None);
            if let Ok(location) = HeaderValue::from_str(self.authorization.as_str()) {
                response.headers_mut().insert(LOCATION, location);
            }
            return response;
        }
        if path != self.callback {
            return page(StatusCode::NOT_FOUND, "Nothing is here", "", None);
        }
        let query = request.uri().query().unwrap_or_default();
        match self.came_back(query).await {
            Ok(who) => page(
                StatusCode::OK,
                &format!("Logged in as {who}"),
                "The signature is made at the terminal. This page can be closed.",
                None,
            ),
            Err(reason) => {
                self.login.events.note(format!("the login did not succeed: {reason}"));
                page(StatusCode::BAD_REQUEST, "Not logged in", &reason, Some(&self.start))
            }
        }
    }

    /// Takes what the browser came back with; returns who logged in.
    async fn came_back(&self, query: &str) -> Result<String, String> {
        let value = |name: &str| {
            let found = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
        };
        if value("state").as_deref() != Some(self.state.as_str()) {
            return Err("this is not the login that was asked for".to_owned());
        }
        // A server that another one poses as would get our code (RFC 9207).
        if value("iss").is_some_and(|issuer| issuer != self.login.provider.issuer) {
            return Err("another issuer answered".to_owned());
        }
        if let Some(error) = value("error") {
            return Err(told(&error, &value("error_description").unwrap_or_default()));
        }
        let code = value("code").ok_or("the provider sent no code")?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.redirect.as_str()),
            ("code_verifier", self.pkce.verifier.expose_secret()),
        ];
        let granted = async {
            let answer = self.login.call(&self.login.provider.token, &fields).await?;
            self.login.granted(&answer, Some(&self.nonce)).await
        };
        let logged: LoggedIn = granted.await.map_err(|error| error.to_string())?;
        let who = logged.token.subject.clone();
        *self.logged.lock().expect("nobody panics while holding it") = Some(logged);
        Ok(who)
    }
}

/// A page without anything that a browser would fetch.
fn page(status: StatusCode, title: &str, text: &str, again: Option<&str>) -> Response<Full<Bytes>> {
    let (title, text) = (escaped(title), escaped(text));
    let again = again.map(|at| format!("<p><a href=\"{at}\">Try again</a></p>")).unwrap_or_default();
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>kubectl build</title>\
         <body style=\"font-family:sans-serif;margin:4em\"><h1>{title}</h1><p>{text}</p>{again}</body></html>\n"
    );
    let mut response = Response::new(Full::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
