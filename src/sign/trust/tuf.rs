//! Trust that stays fresh: an instance says by its TUF repository who its authorities, logs and clocks are today.
//!
//! The only module that knows `sigstore-tuf`, which does the protocol. What is fetched goes through our HTTP client, with
//! short limits: signing can do with what was fetched before, or with what is built in.

use super::TrustRoot;
use crate::sign::ServicePlan;
use crate::sign::http::{Http, HttpError, Limits, Request, shown};
use crate::sign::witness::path;
use http::StatusCode;
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{Error as LibraryError, FileStore, Repository, StoreRepository, Updater};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// The public instance's, and the root metadata that all of it chains from, as it was published there.
const PUBLIC_MIRROR: &str = "https://tuf-repo-cdn.sigstore.dev";
const PUBLIC_ROOT: &[u8] = include_bytes!("tuf-root.json");
/// The files that instances publish for their clients.
const TRUSTED_ROOT: &str = "trusted_root.json";
const SIGNING_CONFIG: &str = "signing_config.v0.2.json";
/// One file: they are small, and there are five or so.
const FILE_LIMIT: Duration = Duration::from_secs(5);
/// All of them.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest file that is read.
const LARGEST: usize = 8 << 20;

/// An instance's TUF repository, and where trust in it begins.
#[derive(Clone, Debug)]
pub struct TufRepository {
    /// Where it is served.
    pub mirror: Url,
    /// The root metadata that all others must chain from; `None` for the public instance's, which is built in.
    pub root: Option<Vec<u8>>,
    /// The folder that keeps what was fetched, if there is one.
    pub cache: Option<PathBuf>,
}

/// What a repository says.
#[derive(Debug)]
pub struct Refreshed {
    /// Who is trusted.
    pub trust: TrustRoot,
    /// Which services to use, if it says.
    pub services: Option<ServicePlan>,
    /// What is to be said about it: it isn't today's.
    pub note: Option<String>,
}

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TufError {
    /// It can't be reached, and nothing of it was kept.
    #[error(
        "the TUF repository {mirror} cannot be reached, and there is no earlier copy that is still valid"
    )]
    Unreachable {
        /// Where.
        mirror: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody is to be asked, and nothing of it was kept.
    #[error("nothing of the TUF repository {mirror} was kept here")]
    NothingKept {
        /// Where it is.
        mirror: String,
    },
    /// What it serves is expired, older than what was seen before, or not signed by whom it should be.
    #[error("what the TUF repository {mirror} serves is not to be trusted")]
    Refused {
        /// Where.
        mirror: String,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl TufRepository {
    /// Returns the public instance's address.
    pub fn public_mirror() -> Url {
        PUBLIC_MIRROR.parse().expect("it is a URL")
    }

    /// Fetches what is new. If the mirror can't be reached, what was fetched before does while it is valid, and for the
    /// public instance what is built in; what is served and wrong is never passed over.
    ///
    /// # Errors
    /// [`TufError`].
    pub async fn refresh(&self, http: &Http) -> Result<Refreshed, TufError> {
        let online = Mirror { http: http.clone(), base: self.mirror.clone() };
        let fetched = tokio::time::timeout(LIMIT, self.read(online)).await;
        let unreachable = match fetched {
            Ok(Err(Failed::Unreachable(error))) => error,
            Ok(read) => return read.map_err(|error| self.refused(error)),
            Err(_) => {
                format!("the TUF repository {} did not answer within {LIMIT:.0?}", shown(&self.mirror)).into()
            }
        };
        self.instead(unreachable).await
    }

    /// Returns what was fetched before while it is valid, or for the public instance what is built in; nobody is asked.
    ///
    /// # Errors
    /// [`TufError`].
    pub async fn kept(&self) -> Result<Refreshed, TufError> {
        let kept = self.instead("nobody is asked for a newer one".into()).await;
        kept.map_err(|_| TufError::NothingKept { mirror: shown(&self.mirror) })
    }

    async fn instead(&self, unreachable: Box<dyn Error + Send + Sync>) -> Result<Refreshed, TufError> {
        let note = |instead: &str| Some(format!("{unreachable}: {instead} is used"));
        if let Some(folder) = &self.cache
            && let Ok(kept) = self.read(StoreRepository::new(FileStore::new(folder))).await
        {
            return Ok(Refreshed { note: note("the trust root that was fetched before"), ..kept });
        }
        if self.root.is_none() {
            let note = note("the trust root that is built into this program");
            return Ok(Refreshed { trust: TrustRoot::public(), services: None, note });
        }
        Err(TufError::Unreachable { mirror: shown(&self.mirror), source: unreachable })
    }

    async fn read(&self, from: impl Repository + 'static) -> Result<Refreshed, Failed> {
        let now = jiff::Timestamp::now();
        let root = self.root.as_deref().unwrap_or(PUBLIC_ROOT);
        let mut updater = Updater::new(from, root)?;
        if let Some(folder) = &self.cache {
            updater = updater.with_store(FileStore::new(folder));
        }
        updater.refresh(now).await?;
        let trust = updater.get_target(TRUSTED_ROOT, now).await?;
        let trust = TrustRoot::parse(&trust).map_err(|error| Failed::Refused(Box::new(error)))?;
        let services = match updater.get_target(SIGNING_CONFIG, now).await {
            Ok(json) => Some(ServicePlan::parse(&json).map_err(|error| Failed::Refused(Box::new(error)))?),
            Err(LibraryError::TargetNotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Refreshed { trust, services, note: None })
    }

    fn refused(&self, error: Failed) -> TufError {
        let (Failed::Refused(source) | Failed::Unreachable(source)) = error;
        TufError::Refused { mirror: shown(&self.mirror), source }
    }
}

enum Failed {
    Unreachable(Box<dyn Error + Send + Sync>),
    Refused(Box<dyn Error + Send + Sync>),
}

impl From<LibraryError> for Failed {
    fn from(error: LibraryError) -> Self {
        match error {
            LibraryError::Transport { source: Some(source), .. } => Self::Unreachable(source),
            error @ LibraryError::Transport { .. } => Self::Unreachable(Box::new(error)),
            error => Self::Refused(Box::new(error)),
        }
    }
}

/// A mirror, asked by our client.
struct Mirror {
    http: Http,
    base: Url,
}

impl Mirror {
    async fn fetch(&self, name: String, max: u64) -> Result<Option<Vec<u8>>, LibraryError> {
        let max_body = usize::try_from(max).unwrap_or(LARGEST).min(LARGEST);
        let request = Request::get(path(&self.base, &name)).once();
        let limits = Limits { timeout: FILE_LIMIT, max_body };
        let failed = |error: HttpError| match error {
            // Whoever serves too much does serve.
            HttpError::TooLong { .. } => LibraryError::IntegrityMismatch(error.to_string()),
            error => LibraryError::transport_with_source("the mirror", error),
        };
        let answer = self.http.send("the TUF repository", request, limits).await.map_err(failed)?;
        match answer.status {
            status if status.is_success() => Ok(Some(answer.body.to_vec())),
            // Stores of objects say either of what they don't have.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(failed(answer.refused(""))),
        }
    }
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch(name.to_owned(), max))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch(format!("targets/{path}"), max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_where_the_public_instance_s_trust_begins() {
        let nowhere = StoreRepository::new(FileStore::new("/nonexistent"));
        let updater = Updater::new(nowhere, PUBLIC_ROOT).unwrap();
        assert!(updater.trusted().root().version >= 10);
        assert_eq!(TufRepository::public_mirror().as_str(), "https://tuf-repo-cdn.sigstore.dev/");
    }
}
