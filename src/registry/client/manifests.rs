//! Manifests, by tag or digest.

use super::{Access, Call, Client, MANIFEST_MAX, Target};
use crate::registry::descriptor::media_type;
use crate::registry::error::{Kind, RegistryError, Trouble};
use crate::registry::{Descriptor, Digest, Manifest, Repository};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Sent by registries that list the manifest among its subject's referrers (distribution spec 1.1, "pushing
/// manifests with subject").
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// What a registry says to a manifest that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutManifest {
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether the registry said that it keeps the referrer itself. If not, the fallback tag is the client's to
    /// write; some registries have the API and don't say so, which [`Client::referrers`] tells.
    pub oci_subject: bool,
}

impl Client {
    /// Returns what a tag or digest stands for, without its bytes; none if it does not exist.
    ///
    /// # Errors
    /// As every call.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Descriptor>, RegistryError> {
        self.run(repository, &format!("look up `{reference}` in"), async {
            let mut call = get(repository, reference);
            call.method = Method::HEAD;
            let response = self.call(call).await?;
            match response.status {
                StatusCode::NOT_FOUND => return Ok(None),
                status if !status.is_success() => return Err(response.refusal().await),
                _ => {}
            }
            let digest = content_digest(&response.headers)?;
            let size = response.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
            match (response.media_type(), digest, size) {
                (Some(media_type), Some(digest), Some(size)) => {
                    Ok(Some(Descriptor::bare(media_type, digest, size)))
                }
                // Some registries leave the digest out.
                _ => Ok(self.manifest(repository, reference).await?.map(|manifest| manifest.descriptor)),
            }
        })
        .await
    }

    /// Returns a manifest or index; none if it does not exist. Its bytes are those of its digest, checked.
    ///
    /// # Errors
    /// As every call; [`Kind::DigestMismatch`] if the bytes are others than asked for or announced.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Manifest>, RegistryError> {
        let action = format!("read `{reference}` of");
        self.run(repository, &action, self.manifest(repository, reference)).await
    }

    async fn manifest(&self, repository: &Repository, reference: &str) -> Result<Option<Manifest>, Trouble> {
        let Some((headers, bytes)) = self.read(|| get(repository, reference), MANIFEST_MAX).await? else {
            return Ok(None);
        };
        let digest = Digest::of(&bytes);
        let asked = reference.parse::<Digest>().ok();
        if let Some(other) = asked.or(content_digest(&headers)?).filter(|other| *other != digest) {
            let what = format!("the content has digest {digest}, not {other}");
            return Err(Trouble::new(Kind::DigestMismatch, what));
        }
        let media_type = media_type_of(&headers, &bytes);
        Ok(Some(Manifest { descriptor: Descriptor::bare(media_type, digest, bytes.len() as u64), bytes }))
    }

    /// Writes a manifest or index under a tag or its digest. Writing the same bytes again is no error, not even
    /// under a tag that nobody may move.
    ///
    /// # Errors
    /// As every call; [`Kind::TagImmutable`] if the tag stands for something else and may not be moved.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<PutManifest, RegistryError> {
        let digest = Digest::of(&bytes);
        self.run(repository, &format!("write `{reference}` to"), async {
            let target = Target::Path(format!("manifests/{reference}"));
            let mut call = Call::new(Method::PUT, repository, Access::Push, target);
            let content_type = HeaderValue::from_str(media_type).map_err(|error| {
                Trouble::new(Kind::Protocol, format!("`{media_type}` is no media type")).caused_by(error)
            })?;
            call.headers.insert(CONTENT_TYPE, content_type);
            call.body = bytes;
            let response = self.call(call).await?;
            if !response.status.is_success() {
                let trouble = immutable(reference, response.refusal().await);
                // The same content under the tag is what was wanted: an earlier run, or an attempt of this
                // one whose answer was lost.
                if trouble.kind == Kind::TagImmutable
                    && let Ok(Some(standing)) = self.head_manifest(repository, reference).await
                    && standing.digest == digest
                {
                    return Ok(PutManifest { digest, oci_subject: false });
                }
                return Err(trouble);
            }
            let oci_subject = response.headers.contains_key(OCI_SUBJECT);
            let stored = content_digest(&response.headers)?;
            response.discard().await;
            match stored.filter(|stored| *stored != digest) {
                None => Ok(PutManifest { digest, oci_subject }),
                Some(other) => {
                    let what = format!("the registry stored {other} where {digest} was sent");
                    Err(Trouble::new(Kind::DigestMismatch, what))
                }
            }
        })
        .await
    }
}

fn get<'a>(repository: &'a Repository, reference: &str) -> Call<'a> {
    let mut call = Call::get(repository, format!("manifests/{reference}"));
    let accepted = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_LIST,
        media_type::DOCKER_MANIFEST,
    ];
    let accepted = HeaderValue::from_str(&accepted.join(", ")).expect("media types are fit for a header");
    call.headers.insert(ACCEPT, accepted);
    call
}

/// Reads the header with the digest. Digests of other algorithms count as absent: we hash for ourselves.
fn content_digest(headers: &HeaderMap) -> Result<Option<Digest>, Trouble> {
    let Some(text) = headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(crate::registry::DigestError::Algorithm(_)) => Ok(None),
        Err(error) => {
            Err(Trouble::new(Kind::Protocol, "the answer names a malformed digest").caused_by(error))
        }
    }
}

/// Returns the type by the header, or by the manifest itself where a registry sends none of use.
fn media_type_of(headers: &HeaderMap, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let header = header.split(';').next().unwrap_or_default().trim();
    if !matches!(header, "" | "application/json" | "application/octet-stream" | "text/plain") {
        return header.to_owned();
    }
    let inside = serde_json::from_slice::<Typed>(bytes).ok().and_then(|typed| typed.media_type);
    inside.unwrap_or_else(|| header.to_owned())
}

/// There is no code for it in the spec: Harbor answers 412, ECR 400 and TAG_INVALID, Quay 409; each says the word.
fn immutable(reference: &str, mut trouble: Trouble) -> Trouble {
    let is_tag = reference.parse::<Digest>().is_err();
    let refused = matches!(trouble.status, Some(400..=403 | 405 | 409 | 412 | 422));
    if is_tag && refused && trouble.what.to_ascii_lowercase().contains("immutable") {
        trouble.kind = Kind::TagImmutable;
    }
    trouble
}
