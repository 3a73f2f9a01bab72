//! Logging in: a person proves at an OpenID Connect provider who he is, and a token says so.
//!
//! Two flows: a browser on this machine comes back to a listener on loopback (authorization code with PKCE, RFC 8252),
//! or one anywhere confirms a code (device flow, RFC 8628). What it owns: discovery, both flows, the check of the
//! token that comes of them, refreshing it. It spawns nothing and lives as long as its futures: a dropped login
//! listens no more.

mod browser;
mod device;
mod discovery;
mod token;

use super::http::{Http, HttpError};
use super::identity::{IdentityError, IdentityToken};
use crate::event::Events;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use discovery::Provider;
use secrecy::SecretString;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

/// Opens a page in the person's browser, as well as it can.
pub type Opener = Arc<dyn Fn(&str) + Send + Sync>;

/// How a person logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// In a browser on this machine.
    Browser,
    /// In a browser anywhere, by a code.
    Device,
}

/// How to log in.
#[derive(Clone)]
pub struct LoginSettings {
    /// Who we are to the provider.
    pub client_id: String,
    /// What we show for it, where the provider wants something.
    pub client_secret: Option<SecretString>,
    /// The flow, if it was said; else the browser where there is one.
    pub flow: Option<Flow>,
    /// What opens a browser on this machine, where there is one.
    pub open: Option<Opener>,
    /// Where the browser comes back to, where the provider doesn't take any port.
    pub redirect: Option<Url>,
    /// How long a login is waited for when there is nothing else to do.
    pub timeout: Duration,
}

impl fmt::Debug for LoginSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LoginSettings({}, {:?})", self.client_id, self.flow)
    }
}

/// Why nobody is logged in. No text holds a byte of a token, code or secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The provider doesn't say what it takes to log in.
    #[error("{issuer} offers no login: {reason}")]
    Provider {
        /// Who.
        issuer: String,
        /// Why not.
        reason: String,
    },
    /// Whoever gives certificates knows us by another name.
    #[error(
        "the certificate authority takes no token that {issuer} gives to the client `{client}`, only to `{wanted}`"
    )]
    Client {
        /// The provider.
        issuer: String,
        /// Who we were to be.
        client: String,
        /// Who we should be.
        wanted: String,
    },
    /// Where the browser would come back to can't be listened on.
    #[error("the browser cannot come back: no listener on {at}")]
    Listen {
        /// The address.
        at: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The person or the provider said no.
    #[error("{issuer} refused the login: {reason}")]
    Refused {
        /// Who.
        issuer: String,
        /// What it said.
        reason: String,
    },
    /// Nobody confirmed the code in its time.
    #[error("nobody confirmed the code while it was good")]
    CodeEnded,
    /// Nobody came.
    #[error("nobody logged in within {}", words(*.after))]
    TimedOut {
        /// How long he was waited for.
        after: Duration,
    },
    /// The token isn't what was asked for.
    #[error("the identity token of {issuer} is not accepted: {reason}")]
    Token {
        /// Who gave it.
        issuer: String,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else than before.
    #[error("`{now}` logged in, but `{before}` did before: one signature has one signer")]
    SomebodyElse {
        /// Who came.
        now: String,
        /// Who was there.
        before: String,
    },
    /// A call to the provider.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Text that is no token.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cryptographic provider.
    #[error("the system gives no random numbers")]
    Random,
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Somebody is logged in.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who, by the provider's word, which has been checked.
    pub token: IdentityToken,
    /// What gets another token without asking the person again.
    pub refresh: Option<SecretString>,
}

/// A provider at which somebody may log in.
pub struct Login {
    provider: Provider,
    settings: LoginSettings,
    flow: Flow,
    http: Http,
    events: Events,
    /// What was asked for last, and stands.
    asked: Mutex<Option<String>>,
}

impl Login {
    /// Finds out what the provider offers, and chooses the flow. Nobody is asked for anything yet.
    ///
    /// # Errors
    /// It doesn't answer, isn't who it should be, or offers no login that we can do.
    pub async fn discover(
        issuer: &Url,
        settings: LoginSettings,
        http: Http,
        events: Events,
    ) -> Result<Self, LoginError> {
        let provider = discovery::ask(&http, issuer).await?;
        let no =
            |reason: &str| LoginError::Provider { issuer: provider.issuer.clone(), reason: reason.into() };
        let (browser, device) = (provider.by_browser(), provider.device.is_some());
        let flow = match settings.flow {
            Some(Flow::Browser) if !browser => {
                return Err(no("it has no authorization endpoint with PKCE (S256)"));
            }
            Some(Flow::Device) if !device => return Err(no("it has no device flow")),
            Some(flow) => flow,
            None if browser && (settings.open.is_some() || !device) => Flow::Browser,
            None if device => Flow::Device,
            None => {
                return Err(no(
                    "it has neither an authorization endpoint with PKCE (S256) nor a device flow",
                ));
            }
        };
        Ok(Self { provider, settings, flow, http, events, asked: Mutex::default() })
    }

    /// Returns the provider's name, as its tokens have it.
    pub fn issuer(&self) -> &str {
        &self.provider.issuer
    }

    /// Returns whom its tokens are for.
    pub fn client_id(&self) -> &str {
        &self.settings.client_id
    }

    /// Returns how long a login is waited for.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Returns what messages call it.
    pub fn place(&self) -> String {
        format!("the login at {}", self.provider.issuer)
    }

    /// Asks the person, and waits until somebody has logged in, for as long as it takes.
    ///
    /// # Errors
    /// There is no point in waiting on.
    pub async fn run(&self) -> Result<LoggedIn, LoginError> {
        // However this ends, what was asked for doesn't stand any more.
        let _asked = Asked(self);
        match self.flow {
            Flow::Browser => match self.by_browser().await {
                Err(error @ LoginError::Listen { .. }) if self.may_turn() => {
                    self.events.note(format!("{}: a code will do instead", super::witness::chain(&error)));
                    self.by_device().await
                }
                done => done,
            },
            Flow::Device => self.by_device().await,
        }
    }

    /// Whether a code will do where a browser can't: nobody said otherwise, and the provider has such.
    fn may_turn(&self) -> bool {
        self.settings.flow.is_none() && self.provider.device.is_some()
    }

    fn ask(&self, text: String) {
        *self.asked.lock().expect("nobody panics while holding it") = Some(text.clone());
        self.events.request(text);
    }

    /// Asks again for what was asked for, if it still stands.
    pub fn remind(&self) {
        let asked = self.asked.lock().expect("nobody panics while holding it").clone();
        if let Some(text) = asked {
            self.events.request(text);
        }
    }
}

struct Asked<'a>(&'a Login);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

/// A secret that goes around by its hash (RFC 7636).
struct Pkce {
    verifier: SecretString,
    challenge: String,
}

impl Pkce {
    fn new() -> Result<Self, LoginError> {
        let verifier = random()?;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
        Ok(Self { challenge: URL_SAFE_NO_PAD.encode(hash), verifier: verifier.into() })
    }
}

/// 256 random bits, fit for URLs.
fn random() -> Result<String, LoginError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
