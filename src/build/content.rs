//! What the builder attested, read from the builder itself right after the solve: later its garbage collector may have
//! taken it. That spares the registry the questions, once for each repository.

use crate::buildkit::{Client, MESSAGE_LIMIT};
use crate::registry::{Descriptor, Digest};
use crate::sign::{self, Attested, AttestedContent, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// What takes longer is left to the registry.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns what was attested of an image that this daemon exported; nothing if the daemon doesn't give it, as an old one
/// doesn't.
pub(super) async fn attested(client: &Client, image: &Descriptor) -> Option<Attested> {
    let error = match tokio::time::timeout(LIMIT, sign::attested(&Kept(client), image)).await {
        Ok(Ok(attested)) => return Some(attested),
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::debug!(error, "attestations are read from the registry");
    None
}

struct Kept<'a>(&'a Client);

#[async_trait]
impl AttestedContent for Kept<'_> {
    async fn manifest(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        self.blob(digest, MESSAGE_LIMIT).await
    }

    async fn blob(&self, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        let read = self.0.content(&digest.to_string(), limit).await;
        read.map(Bytes::from).map_err(|error| StoreError::Other(Box::new(error)))
    }
}
