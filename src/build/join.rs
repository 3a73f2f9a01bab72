//! Makes one image of what several builders pushed: reads their indexes, joins them, pushes the index by digest.

use super::error::BuildError;
use crate::event::Events;
use crate::image::Platform;
use crate::image::annotation::{Annotation, Carrier};
use crate::image::index::{self, IndexError, Source};
use crate::registry::{self, Descriptor, Digest, Manifest, RegistryError, Repository};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Why what was pushed did not become one image.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The registry.
    #[error("the platforms were pushed, but their index was not")]
    Registry(#[source] Box<RegistryError>),
    /// What was pushed is gone.
    #[error("{digest} was pushed to {repository} and is not there any more")]
    Gone {
        /// What.
        digest: Digest,
        /// Where.
        repository: Repository,
    },
    /// What was pushed cannot be joined.
    #[error("the platforms were pushed, but make no index")]
    Index(#[from] IndexError),
}

/// What is joined.
pub(super) struct Join<'a> {
    pub(super) client: &'a registry::Client,
    /// What each builder pushed, to every repository.
    pub(super) pushed: &'a [Descriptor],
    pub(super) repositories: &'a [Repository],
    /// The platforms in the order asked for.
    pub(super) platforms: &'a [Platform],
    pub(super) annotations: &'a [Annotation],
}

impl Join<'_> {
    /// Joins what was pushed and pushes the index by its digest, to every repository.
    ///
    /// # Errors
    /// [`JoinError`]; no tag was written.
    pub(super) async fn run(&self, events: &Events) -> Result<Descriptor, BuildError> {
        let step = events.step("index", "pushing the index of all platforms");
        let pushed = self.push().await;
        if let Ok(image) = &pushed {
            self.repositories
                .iter()
                .for_each(|repository| step.line(format!("{repository}@{}", image.digest)));
        }
        Ok(step.end(pushed)?)
    }

    async fn push(&self) -> Result<Descriptor, JoinError> {
        let trouble = |error| JoinError::Registry(Box::new(error));
        // The same bytes are in each repository, and a digest is what the daemon said.
        let first = self.repositories.first().expect("a push has a repository");
        let read = self.pushed.iter().map(|pushed| async move {
            let found = self.client.get_manifest(first, &pushed.digest.to_string()).await.map_err(trouble)?;
            found.ok_or_else(|| JoinError::Gone { digest: pushed.digest, repository: first.clone() })
        });
        let read: Vec<Manifest> = futures_util::future::try_join_all(read).await?;
        let sources: Vec<_> = read
            .iter()
            .map(|manifest| Source {
                descriptor: &manifest.descriptor,
                bytes: &manifest.bytes,
                platform: None,
            })
            .collect();
        let annotations = self.annotations_of(Carrier::Index);
        let index = index::assemble(&sources, self.platforms, &annotations)?;
        let (bytes, mut descriptor) = (Bytes::from(index.bytes), index.descriptor);
        let (digest, media_type) = (descriptor.digest.to_string(), descriptor.media_type.clone());
        let puts = self
            .repositories
            .iter()
            .map(|repository| self.client.put_manifest(repository, &digest, &media_type, bytes.clone()));
        futures_util::future::try_join_all(puts).await.map_err(trouble)?;
        descriptor.annotations = self.annotations_of(Carrier::IndexDescriptor);
        Ok(descriptor)
    }

    /// What an image carries was written where it was built.
    fn annotations_of(&self, carrier: Carrier) -> BTreeMap<String, String> {
        let of = self.annotations.iter().filter(|annotation| annotation.carrier == carrier);
        of.map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
    }
}
