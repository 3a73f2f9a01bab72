//! Reads the `.sig` tag.

use super::SignatureImage;
use crate::registry::{Digest, Repository};
use crate::sign::error::SignError;
use crate::sign::store::{Manifest, Store};

/// The largest config or payload that is read; cosign's take a few hundred bytes for each signature.
pub(in crate::sign) const BLOB_LIMIT: usize = 4 << 20;

/// What stands at the tag, unopened.
pub(in crate::sign) struct Standing(pub(super) Option<Manifest>);

/// What stands at the tag, ready to be added to.
pub(in crate::sign) struct Opened {
    pub(in crate::sign) image: SignatureImage,
    pub(in crate::sign) manifest: Option<Manifest>,
}

impl Standing {
    /// Reads the tag.
    pub(in crate::sign) async fn read(
        store: &dyn Store,
        at: &Repository,
        tag: &str,
    ) -> Result<Self, SignError> {
        Ok(Self(store.get_manifest(at, tag).await?))
    }

    /// Reads the config as well and takes both apart; an absent tag is an image without signatures.
    pub(in crate::sign) async fn open(
        self,
        store: &dyn Store,
        at: &Repository,
        tag: &str,
    ) -> Result<Opened, SignError> {
        let Some(manifest) = self.0 else {
            return Ok(Opened { image: SignatureImage::empty(), manifest: None });
        };
        let config = SignatureImage::config_digest(&manifest.bytes).map_err(SignError::foreign(at, tag))?;
        let config = store.get_blob(at, &config, BLOB_LIMIT).await?;
        let image = SignatureImage::parse(&manifest.bytes, &config).map_err(SignError::foreign(at, tag))?;
        Ok(Opened { image, manifest: Some(manifest) })
    }
}

impl Opened {
    /// Returns it, or, where nothing stands at the tag, an image without signatures, if wanted of docker's media types.
    pub(in crate::sign) fn or_new(self, docker: bool) -> Self {
        match self.manifest {
            None if docker => Self { image: SignatureImage::empty_docker(), manifest: None },
            _ => self,
        }
    }

    /// Returns the digest of the manifest under the tag, or of nothing.
    pub(in crate::sign) fn digest(&self) -> Digest {
        Digest::of(self.manifest.as_ref().map_or(&[][..], |manifest| &manifest.bytes))
    }
}
