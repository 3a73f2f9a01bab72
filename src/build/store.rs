//! The registry as signing sees it.

use crate::registry::{self, Descriptor, Digest, Kind, RegistryError, Repository};
use crate::sign::{Manifest, Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many calls are made at the same time, however many images are signed: each has a connection of its own, which
/// may go through a pod.
const AT_ONCE: usize = 16;

/// A registry client as a store of signatures.
#[derive(Debug)]
pub struct RegistryStore {
    client: registry::Client,
    permits: Semaphore,
}

impl RegistryStore {
    /// Returns the store.
    pub fn new(client: registry::Client) -> Self {
        Self { client, permits: Semaphore::new(AT_ONCE) }
    }

    /// Returns the client when it is one's turn.
    async fn client(&self) -> (&registry::Client, SemaphorePermit<'_>) {
        (&self.client, self.permits.acquire().await.expect("nobody closes it"))
    }
}

fn failed(error: RegistryError) -> StoreError {
    match error.kind() {
        Kind::TagImmutable => StoreError::TagImmutable(Box::new(error)),
        _ => StoreError::Other(Box::new(error)),
    }
}

#[async_trait]
impl Store for RegistryStore {
    async fn get_manifest(&self, at: &Repository, reference: &str) -> Result<Option<Manifest>, StoreError> {
        let (client, _turn) = self.client().await;
        let manifest = client.get_manifest(at, reference).await.map_err(failed)?;
        Ok(manifest.map(|found| Manifest { media_type: found.descriptor.media_type, bytes: found.bytes }))
    }

    async fn put_manifest(
        &self,
        at: &Repository,
        reference: &str,
        manifest: Manifest,
    ) -> Result<(), StoreError> {
        let (client, _turn) = self.client().await;
        let put = client.put_manifest(at, reference, &manifest.media_type, manifest.bytes).await;
        put.map(drop).map_err(failed)
    }

    async fn get_blob(&self, at: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        let (client, _turn) = self.client().await;
        let blob = client.get_blob(at, digest, limit as u64).await.map_err(failed)?;
        blob.ok_or_else(|| StoreError::Other(format!("the blob {digest} is not in {at}").into()))
    }

    async fn put_blob(&self, at: &Repository, bytes: Bytes) -> Result<(), StoreError> {
        let (client, _turn) = self.client().await;
        client.put_blob(at, bytes).await.map(|_| ()).map_err(failed)
    }

    async fn referrers(
        &self,
        at: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        let (client, _turn) = self.client().await;
        client.referrers(at, subject).await.map_err(failed)
    }
}
