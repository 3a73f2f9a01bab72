//! Identity tokens: where they come from, and what can be known of them without asking anybody.
//!
//! A token is worth as much as a password for as long as it lives, so its text stays in a secret type and no message
//! holds a byte of it; its claims, which end up in a public certificate anyway, may be told.

mod ambient;
mod spiffe;
#[cfg(test)]
mod tests;

pub use ambient::{Ambient, AmbientSource};
pub use spiffe::{DEFAULT as SPIFFE_SOCKET, Socket as SpiffeSocket};

use super::http::HttpError;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Whom tokens are for, as certificate authorities of sigstore want them.
pub const AUDIENCE: &str = "sigstore";

/// The longest token that is read.
const LONGEST: u64 = 64 * 1024;

/// A token that was taken apart; its signature is for the certificate authority to check.
#[derive(Debug)]
pub struct IdentityToken {
    text: SecretString,
    /// Who vouches.
    pub issuer: String,
    /// Whom it is for.
    pub audiences: Vec<String>,
    /// Who it is about: the e-mail address where there is one.
    pub subject: String,
    /// When it ends.
    pub expires: jiff::Timestamp,
    not_before: Option<jiff::Timestamp>,
}

/// Why there is no token that can be used. None of the texts holds a byte of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Something else stands where the token should.
    #[error(
        "{0} is no identity token: a JSON Web Token has three parts, with `iss`, `aud`, `sub` and `exp` in the second"
    )]
    NotAToken(String),
    /// It ended.
    #[error("the identity token from {place} expired {ago} ago")]
    Expired {
        /// Where it came from.
        place: String,
        /// How long ago, in words.
        ago: String,
    },
    /// It hasn't begun.
    #[error("the identity token from {place} is not valid before {from}: is this machine's clock right?")]
    NotYet {
        /// Where it came from.
        place: String,
        /// When.
        from: jiff::Timestamp,
    },
    /// It is for somebody else.
    #[error("the identity token from {place} is for {found}, not for `{wanted}`")]
    Audience {
        /// Where it came from.
        place: String,
        /// Whom it is for.
        found: String,
        /// Whom it should be for.
        wanted: String,
    },
    /// The certificate authority doesn't know who vouches.
    #[error(
        "the identity token from {place} was issued by `{found}`, which {who} does not accept: {accepted}"
    )]
    Issuer {
        /// Where it came from.
        place: String,
        /// Who issued it.
        found: String,
        /// Who minds.
        who: String,
        /// What would be accepted, in words.
        accepted: String,
    },
    /// A file that can't be read.
    #[error("the identity token cannot be read from {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A service that hands out tokens.
    #[error("no identity token from {place}")]
    Service {
        /// Which.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A call to such a service.
    #[error(transparent)]
    Http(#[from] HttpError),
}

#[derive(Deserialize)]
struct ClaimsJson {
    iss: String,
    aud: Audience,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl IdentityToken {
    /// Takes a token apart; `place` is what messages say it came from.
    ///
    /// # Errors
    /// [`IdentityError::NotAToken`].
    pub fn parse(text: &str, place: &str) -> Result<Self, IdentityError> {
        let none = || IdentityError::NotAToken(place.to_owned());
        let text = text.trim();
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(none());
        };
        let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| none())?;
        let claims: ClaimsJson = serde_json::from_slice(&claims).map_err(|_| none())?;
        let time = |seconds: f64| jiff::Timestamp::from_second(seconds as i64).map_err(|_| none());
        Ok(Self {
            text: text.to_owned().into(),
            issuer: claims.iss,
            audiences: match claims.aud {
                Audience::One(one) => vec![one],
                Audience::Several(several) => several,
            },
            subject: claims.email.unwrap_or(claims.sub),
            expires: time(claims.exp)?,
            not_before: claims.nbf.map(time).transpose()?,
        })
    }

    /// Whether this text is a token rather than the path of one.
    pub fn looks_like(text: &str) -> bool {
        Self::parse(text, "").is_ok()
    }

    /// Returns the text, to be sent.
    pub(super) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Checks what can be checked here: lifetime and audience.
    ///
    /// # Errors
    /// Which of them is wrong.
    pub fn check(&self, place: &str, audience: &str, now: jiff::Timestamp) -> Result<(), IdentityError> {
        self::audience(&self.audiences, audience, place)?;
        let place = place.to_owned();
        if self.expires <= now {
            return Err(IdentityError::Expired { place, ago: words(now.duration_since(self.expires)) });
        }
        // Clocks differ by moments.
        match self.not_before {
            Some(from) if from.duration_since(now) > jiff::SignedDuration::from_secs(60) => {
                Err(IdentityError::NotYet { place, from })
            }
            _ => Ok(()),
        }
    }
}

/// Checks that whom a token is for includes whom it should be for, and returns that.
///
/// # Errors
/// [`IdentityError::Audience`].
pub(super) fn audience<'a>(found: &[String], wanted: &'a str, place: &str) -> Result<&'a str, IdentityError> {
    if found.iter().any(|found| found == wanted) {
        return Ok(wanted);
    }
    let found = found.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Err(IdentityError::Audience { place: place.to_owned(), found, wanted: wanted.to_owned() })
}

/// Whole seconds, minutes, hours or days.
pub(super) fn words(span: jiff::SignedDuration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Where tokens come from. Asked before the build and again after the push: what can give a fresh one then does.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Returns what messages call it, such as `the file /run/token`.
    fn place(&self) -> String;

    /// Returns a token, not checked but for its form.
    async fn token(&self) -> Result<IdentityToken, IdentityError>;
}

/// A token that was given.
pub struct Given {
    text: SecretString,
    place: &'static str,
}

impl Given {
    /// Returns a source of this one token.
    pub fn new(text: SecretString, place: &'static str) -> Self {
        Self { text, place }
    }
}

#[async_trait]
impl TokenSource for Given {
    fn place(&self) -> String {
        self.place.to_owned()
    }

    async fn token(&self) -> Result<IdentityToken, IdentityError> {
        IdentityToken::parse(self.text.expose_secret(), self.place)
    }
}

/// A file that holds a token. It is read each time, since whoever mounts it also renews it.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Returns a source that reads this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl TokenSource for TokenFile {
    fn place(&self) -> String {
        format!("the file {}", self.path.display())
    }

    async fn token(&self) -> Result<IdentityToken, IdentityError> {
        let failed = |source| IdentityError::File { path: self.path.clone(), source };
        let read = async {
            use tokio::io::AsyncReadExt as _;
            let mut text = String::new();
            tokio::fs::File::open(&self.path).await?.take(LONGEST).read_to_string(&mut text).await?;
            Ok(text)
        };
        // A pipe that nobody writes to would never end.
        let limit = Duration::from_secs(10);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing came for 10 s");
        let text = tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        IdentityToken::parse(&text, &self.place())
    }
}
