//! What comes after the push: sign in every repository, verify, and only then write the tags.
//!
//! `build` and `sign` both end here, so an interrupted build is finished by the same lines that would have finished
//! it.

use super::outcome::Unfinished;
use super::store::RegistryStore;
use crate::event::Events;
use crate::registry::{self, Descriptor, Kind, Reference, RegistryError, Repository};
use crate::sign::{self, Attested, Formats, SignError, SignOptions, SignReport, SignRequest, Signer};
use crate::task::{Cancel, Cause};

/// What is finished.
pub struct Finish<'a> {
    /// The registries.
    pub client: &'a registry::Client,
    /// Who signs.
    pub signers: &'a [Box<dyn Signer>],
    /// The formats.
    pub formats: Formats,
    /// What else is special about the signatures.
    pub options: &'a SignOptions,
    /// The image, in each of the repositories.
    pub image: Descriptor,
    /// The repositories.
    pub repositories: Vec<Repository>,
    /// The tags to write.
    pub tags: Vec<Reference>,
    /// What the builder attested is signed, too.
    pub attest: bool,
    /// It was read from the builder, else it is from each repository.
    pub attested: Option<Attested>,
}

/// What was signed, by repository.
pub type Signed = Vec<(Repository, SignReport)>;

/// Why the job isn't finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Signing or the check of the signature failed.
    #[error("the image was pushed, but not signed")]
    Sign(#[source] SignError),
    /// A tag could not be written.
    #[error("the image was pushed, but writing `{tag}` failed")]
    Tag {
        /// The tag.
        tag: String,
        /// Why not.
        #[source]
        source: Box<RegistryError>,
    },
    /// The image is gone from where it was pushed to.
    #[error("the image {image} is not in {repository} any more")]
    Gone {
        /// Its digest.
        image: String,
        /// Where it was.
        repository: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted after the push")]
    Interrupted(Cause),
}

impl Finish<'_> {
    /// Signs, verifies, writes the tags.
    ///
    /// # Errors
    /// What failed, and what is left to do. No tag has been written unless it is listed, or not certain.
    pub async fn run(self, events: &Events, cancel: &Cancel) -> Result<Signed, (FinishError, Unfinished)> {
        let mut moved = Moved::default();
        let done = match cancel.guard(self.steps(events, &mut moved)).await {
            Ok(result) => result,
            Err(cause) => Err(FinishError::Interrupted(cause)),
        };
        done.map_err(|error| {
            let signs = !self.signers.is_empty();
            let Self { image, repositories, tags, .. } = self;
            let Moved { written, under_way: unsure } = moved;
            (error, Unfinished { image, repositories, tags, written, unsure, signs })
        })
    }

    async fn steps(&self, events: &Events, moved: &mut Moved) -> Result<Signed, FinishError> {
        // What the tags will stand for is read while it is signed; a failure counts only when it is their turn.
        let (signed, manifests) = tokio::join!(self.sign(events), self.manifests());
        let signed = signed.map_err(FinishError::Sign)?;
        self.write_tags(manifests, events, moved).await?;
        Ok(signed)
    }

    async fn sign(&self, events: &Events) -> Result<Signed, SignError> {
        let store = RegistryStore::new(self.client.clone());
        let mut signed = Signed::new();
        for repository in self.repositories.iter().filter(|_| !self.signers.is_empty()) {
            let tags = self.tags.iter().filter(|tag| tag.repository == *repository);
            let request = SignRequest {
                attested_as: self.attest.then(|| tags.cloned().collect()),
                attested: self.attested.clone(),
                ..self.options.request(repository.clone(), self.image.clone(), self.formats)
            };
            let report = sign::sign_image(&store, self.signers, &request, events).await?;
            signed.push((repository.clone(), report));
        }
        Ok(signed)
    }

    /// Reads the image's manifest by its digest in each repository that has a tag to be written.
    async fn manifests(&self) -> Manifests<'_> {
        let digest = &self.image.digest.to_string();
        let tagged = self.repositories.iter().filter(|at| self.tags.iter().any(|tag| tag.repository == **at));
        let reads = tagged.map(async |at| (at, self.client.get_manifest(at, digest).await));
        futures_util::future::join_all(reads).await
    }

    /// Moves the tags: the manifest's own bytes are put under each.
    async fn write_tags(
        &self,
        mut manifests: Manifests<'_>,
        events: &Events,
        moved: &mut Moved,
    ) -> Result<(), FinishError> {
        for tag in &self.tags {
            let Some(name) = tag.tag.as_deref() else { continue };
            let step = events.step(&format!("tag {tag}"), format!("writing {tag}"));
            let failed = |source| FinishError::Tag { tag: tag.to_string(), source: Box::new(source) };
            let at = manifests.iter().position(|(repository, _)| **repository == tag.repository);
            let at = at.expect("tags are in the repositories");
            let put = async {
                let manifest = match &manifests[at].1 {
                    Ok(Some(manifest)) => manifest,
                    Ok(None) => {
                        let (image, repository) = (self.image.digest.to_string(), tag.repository.to_string());
                        return Err(FinishError::Gone { image, repository });
                    }
                    Err(_) => return Err(failed(manifests.swap_remove(at).1.expect_err("it failed"))),
                };
                let registry::Manifest { descriptor, bytes } = manifest;
                let put =
                    self.client.put_manifest(&tag.repository, name, &descriptor.media_type, bytes.clone());
                moved.under_way = Some(tag.clone());
                put.await.map_err(|source| {
                    if is_refusal(&source) {
                        moved.under_way = None;
                    }
                    failed(source)
                })
            };
            step.end(put.await)?;
            moved.under_way = None;
            moved.written.push(tag.clone());
        }
        Ok(())
    }
}

/// The image's manifest as each repository gives it.
type Manifests<'a> = Vec<(&'a Repository, Result<Option<registry::Manifest>, RegistryError>)>;

/// How far the tags have come.
#[derive(Default)]
struct Moved {
    written: Vec<Reference>,
    /// The tag that is being written, or was when all ended: only an answer says what became of it.
    under_way: Option<Reference>,
}

/// Whether a registry answered that it won't write, rather than with trouble of its own or not at all.
fn is_refusal(error: &RegistryError) -> bool {
    matches!(
        error.kind(),
        Kind::Unauthorized
            | Kind::Denied
            | Kind::NotFound
            | Kind::TagImmutable
            | Kind::RateLimited { .. }
            | Kind::Rejected
    )
}
