//! What one signer says of an image, signed at most once in a run: wherever it stands, and however often another writer
//! removes it, the signature is the same.

use super::bundle;
use super::error::SignError;
use super::evidence::{Content, Evidence, Signer};
use super::log::LogPlace;
use crate::registry::Digest;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A signature that may have to be made.
pub(super) struct Once<'a> {
    pub(super) signer: &'a dyn Signer,
    made: OnceCell<Evidence>,
}

impl<'a> Once<'a> {
    pub(super) fn by(signer: &'a dyn Signer) -> Self {
        Self { signer, made: OnceCell::new() }
    }

    /// Returns the signature, made on first use.
    pub(super) async fn sign(&self, content: Content<'_>) -> Result<&Evidence, SignError> {
        let sign = || async { Ok::<_, SignError>(self.signer.sign(content).await?) };
        self.made.get_or_try_init(sign).await
    }

    /// Returns the signature if it has been made.
    pub(super) fn made(&self) -> Option<&Evidence> {
        self.made.get()
    }

    /// Whether this is the signature that was made in this run.
    pub(super) fn is_own(&self, evidence: &Evidence) -> bool {
        self.made().is_some_and(|made| made.signature == evidence.signature)
    }

    /// Returns where logs have a signature of this signer's.
    pub(super) fn logged(&self, evidence: &Evidence) -> Vec<LogPlace> {
        evidence.log_places(self.signer.verifier().trust())
    }
}

/// A statement and who signs it.
pub(super) struct Claim<'a> {
    pub(super) once: Once<'a>,
    pub(super) statement: Arc<[u8]>,
    pub(super) predicate_type: &'a str,
}

impl<'a> Claim<'a> {
    pub(super) fn new(signer: &'a dyn Signer, statement: Arc<[u8]>, predicate_type: &'a str) -> Self {
        Self { once: Once::by(signer), statement, predicate_type }
    }

    /// Returns the statement as what is signed.
    pub(super) fn content(&self) -> Content<'_> {
        Content::Statement(&self.statement)
    }

    /// Whether what was found says of this image what is about to be said, signed just now or as well as now.
    pub(super) async fn is(&self, found: &bundle::Opened, image: &Digest) -> Result<bool, SignError> {
        if self.once.is_own(&found.evidence) {
            return Ok(found.statement == *self.statement);
        }
        let content = Content::Statement(&found.statement);
        Ok(self.says(&found.statement, image) && self.once.signer.has_made(content, &found.evidence).await?)
    }

    /// Statements that say "signed" are compared by their meaning: cosign's builds differ in the spaces that they write.
    fn says(&self, statement: &[u8], image: &Digest) -> bool {
        if statement == &*self.statement || self.predicate_type != bundle::SIGNED {
            return statement == &*self.statement;
        }
        let said = |statement: &[u8]| {
            let parsed = bundle::Statement::parse(statement).ok()?;
            Some((parsed.about(image)?, parsed.predicate_type))
        };
        said(statement).is_some_and(|found| Some(found) == said(&self.statement))
    }
}
