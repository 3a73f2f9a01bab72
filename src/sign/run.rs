//! One signing run: what is common to all its images and formats.

use super::SignRequest;
use super::check::Expected;
use super::error::SignError;
use super::evidence::Signer;
use super::log::LogPlace;
use super::payload;
use super::store::Store;
use crate::event::Events;
use crate::registry::{Digest, Repository};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Much longer than the time between another writer's last look and his write.
const SETTLING: Duration = Duration::from_millis(400);

/// Where one signature stands.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The manifest that holds it.
    pub(super) location: Digest,
    /// It was there before.
    pub(super) reused: bool,
    /// Where logs have it, if it was recorded just now.
    pub(super) logged: Vec<LogPlace>,
}

pub(super) struct Run<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) signers: &'a [Box<dyn Signer>],
    pub(super) request: &'a SignRequest,
    pub(super) events: &'a Events,
    uploads: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
    contended: AtomicBool,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        signers: &'a [Box<dyn Signer>],
        request: &'a SignRequest,
        events: &'a Events,
    ) -> Self {
        let (uploads, contended) = (Mutex::default(), AtomicBool::new(false));
        Self { store, signers, request, events, uploads, contended }
    }

    /// Returns the repository that signatures name.
    pub(super) fn repository(&self) -> &Repository {
        &self.request.repository
    }

    /// Returns the repository that signatures are kept in.
    pub(super) fn storage(&self) -> &Repository {
        self.request.storage.as_ref().unwrap_or(&self.request.repository)
    }

    /// Returns the name that `.sig` signatures state.
    pub(super) fn docker_reference(&self) -> String {
        self.request.identity.clone().unwrap_or_else(|| self.repository().signing_name())
    }

    /// Returns what this signer signs along: the request's annotations and, over them, its own.
    pub(super) fn annotations(&self, signer: &dyn Signer) -> BTreeMap<String, String> {
        let mut annotations = self.request.annotations.clone();
        annotations.extend(signer.annotations().clone());
        annotations
    }

    /// Returns what this signer's signature of this image must say when it is read back.
    pub(super) fn expected(&self, image: &Digest, signer: &dyn Signer) -> Expected {
        Expected {
            image: *image,
            docker_reference: Some(self.docker_reference()),
            kind: Some(payload::IMAGE_SIGNATURE),
            annotations: self.annotations(signer),
        }
    }

    /// Says that another writer is at work on a tag of ours.
    pub(super) fn note_other_writer(&self, tag: &str) {
        self.contended.store(true, Ordering::Relaxed);
        let at = self.storage();
        self.events.note(format!("another writer changed the tag {tag} in {at}; adding the signature again"));
    }

    /// Waits, if another writer was at work, until what he had read before our write has been written: only then
    /// does a last look tell whether our signature stays.
    pub(super) async fn settle(&self) {
        if self.contended.load(Ordering::Relaxed) {
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Shows work that writes signatures to the registry as a step of its own.
    pub(super) async fn upload_step<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, SignError>>,
    ) -> Result<T, SignError> {
        let name = format!("uploading {what} to {}", self.storage());
        let step = self.events.step_among("upload", name);
        step.end(work.await)
    }

    /// Uploads a blob, or waits until it is: several signatures share contents, and all referrers their config.
    pub(super) async fn upload(&self, bytes: Bytes) -> Result<(), SignError> {
        let digest = Digest::of(&bytes);
        let uploads = || self.uploads.lock().expect("nobody panics while holding the map");
        let once = Arc::clone(uploads().entry(digest).or_default());
        once.get_or_try_init(|| self.store.put_blob(self.storage(), bytes)).await?;
        Ok(())
    }

    pub(super) fn does_not_verify(&self, image: &Digest, signer: &dyn Signer, reason: String) -> SignError {
        let (signer, repository) = (signer.name().to_owned(), self.storage().to_string());
        SignError::DoesNotVerify { image: *image, signer, repository, reason }
    }
}
