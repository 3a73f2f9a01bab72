//! The registry as signing sees it.

use crate::registry::{self, Descriptor, Digest, Kind, RegistryError, Repository};
use crate::sign::{Manifest, Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;

/// A registry client as a store of signatures.
#[derive(Clone, Debug)]
pub struct RegistryStore(pub registry::Client);

fn failed(error: RegistryError) -> StoreError {
    match error.kind() {
        Kind::TagImmutable => StoreError::TagImmutable(Box::new(error)),
        _ => StoreError::Other(Box::new(error)),
    }
}

#[async_trait]
impl Store for RegistryStore {
    async fn get_manifest(&self, at: &Repository, reference: &str) -> Result<Option<Manifest>, StoreError> {
        let manifest = self.0.get_manifest(at, reference).await.map_err(failed)?;
        Ok(manifest.map(|found| Manifest { media_type: found.descriptor.media_type, bytes: found.bytes }))
    }

    async fn put_manifest(
        &self,
        at: &Repository,
        reference: &str,
        manifest: Manifest,
    ) -> Result<(), StoreError> {
        let put = self.0.put_manifest(at, reference, &manifest.media_type, manifest.bytes).await;
        put.map(drop).map_err(failed)
    }

    async fn get_blob(&self, at: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        let blob = self.0.get_blob(at, digest, limit as u64).await.map_err(failed)?;
        blob.ok_or_else(|| StoreError::Other(format!("the blob {digest} is not in {at}").into()))
    }

    async fn put_blob(&self, at: &Repository, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put_blob(at, bytes).await.map(|_| ()).map_err(failed)
    }

    async fn referrers(
        &self,
        at: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        self.0.referrers(at, subject).await.map_err(failed)
    }
}
