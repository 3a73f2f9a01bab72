//! Blobs: small ones, as signatures and configs are.

use super::{Access, Call, Client, Target, location};
use crate::registry::error::{Kind, RegistryError, Trouble};
use crate::registry::{Digest, Repository};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use url::Url;

/// Uploads are begun anew this often: what a broken one left behind is not known.
const UPLOADS_MAX: usize = 2;

impl Client {
    /// Returns a blob of at most `max` bytes; none if it does not exist. Its bytes are those of its digest,
    /// checked.
    ///
    /// # Errors
    /// As every call; [`Kind::TooLarge`] and [`Kind::DigestMismatch`].
    pub async fn get_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<Bytes>, RegistryError> {
        self.run(repository, &format!("read blob {digest} of"), async {
            let call = || Call::get(repository, format!("blobs/{digest}"));
            let Some((_, bytes)) = self.read(call, max).await? else {
                return Ok(None);
            };
            match Digest::of(&bytes) {
                found if found == *digest => Ok(Some(bytes)),
                found => {
                    let what = format!("the content has digest {found}, not {digest}");
                    Err(Trouble::new(Kind::DigestMismatch, what))
                }
            }
        })
        .await
    }

    /// Returns whether a blob exists.
    ///
    /// # Errors
    /// As every call.
    pub async fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        self.run(repository, &format!("look up blob {digest} in"), self.blob_exists(repository, digest)).await
    }

    async fn blob_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, Trouble> {
        let mut call = Call::get(repository, format!("blobs/{digest}"));
        // With the access of the upload that may follow, lest a second token be fetched for it.
        (call.method, call.access) = (Method::HEAD, Access::Push);
        let response = self.call(call).await?;
        match response.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(response.refusal().await),
        }
    }

    /// Uploads a blob in two round trips. Only the empty JSON object, which most repositories with signatures
    /// have, is looked for before: other content of ours is new.
    ///
    /// # Errors
    /// As every call.
    pub async fn put_blob(&self, repository: &Repository, bytes: Bytes) -> Result<Digest, RegistryError> {
        let digest = Digest::of(&bytes);
        self.run(repository, "upload a blob to", async {
            let mut look = &*bytes == b"{}";
            for attempt in 1.. {
                if look && self.blob_exists(repository, &digest).await? {
                    break;
                }
                match self.upload(repository, &digest, bytes.clone()).await {
                    Ok(()) => break,
                    Err(trouble) if attempt < UPLOADS_MAX && is_passing(&trouble) => look = true,
                    Err(trouble) => return Err(trouble),
                }
            }
            Ok(digest)
        })
        .await
    }

    async fn upload(&self, repository: &Repository, digest: &Digest, bytes: Bytes) -> Result<(), Trouble> {
        let mut url = self.start_upload(repository).await?;
        // Not by `query_pairs_mut`, which would rewrite the registry's own state in the query.
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
            _ => format!("digest={digest}"),
        };
        url.set_query(Some(&query));
        let mut call = Call::new(Method::PUT, repository, Access::Push, Target::Url(url));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        (call.body, call.repeatable) = (bytes, false);
        let response = self.call(call).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        response.discard().await;
        Ok(())
    }

    async fn start_upload(&self, repository: &Repository) -> Result<Url, Trouble> {
        let target = Target::Path("blobs/uploads/".to_owned());
        let response = self.call(Call::new(Method::POST, repository, Access::Push, target)).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let url = location(&response)?;
        response.discard().await;
        Ok(url)
    }

    /// Finds out whether we may push: starts an upload and gives it up. A token alone proves nothing, since
    /// token services grant less than asked for without a word.
    ///
    /// # Errors
    /// As every call, with what a push would have met.
    pub async fn check_push(&self, repository: &Repository) -> Result<(), RegistryError> {
        let url = self.run(repository, "start an upload to", self.start_upload(repository)).await?;
        let mut call = Call::new(Method::DELETE, repository, Access::Push, Target::Url(url));
        call.repeatable = false;
        match self.call(call).await {
            Ok(response) => response.discard().await,
            // Registries forget uploads that nobody goes on with.
            Err(trouble) => tracing::debug!(what = trouble.what, "the upload was not cancelled"),
        }
        Ok(())
    }
}

fn is_passing(trouble: &Trouble) -> bool {
    // 404: the upload was lost, as happens behind balancers without affinity.
    matches!(trouble.kind, Kind::Disconnected | Kind::Server) || trouble.status == Some(404)
}
