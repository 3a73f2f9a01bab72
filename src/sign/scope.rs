//! Which manifests of an image are signed.

use super::Subject;
use super::store::{Store, StoreError};
use crate::registry::{Descriptor, Digest, Repository};
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Nobody's index has more; a longer one is a mistake or an attack.
const MANIFESTS_MAX: usize = 1000;

/// How far to go into an index (`--sign-scope`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The root alone: what a tag points to.
    Index,
    /// The root and each runnable manifest, since runtimes may pull by the digest of one platform.
    #[default]
    Platforms,
    /// Everything, BuildKit's attestation manifests included.
    All,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "index" => Ok(Self::Index),
            "platforms" => Ok(Self::Platforms),
            "all" => Ok(Self::All),
            other => Err(format!("unknown signing scope `{other}`; use `index`, `platforms` or `all`")),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Index => "index",
            Self::Platforms => "platforms",
            Self::All => "all",
        })
    }
}

/// Why an image could not be walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The registry refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such manifest.
    #[error("{repository} has no manifest {digest}")]
    Missing {
        /// What was read.
        digest: Digest,
        /// Where.
        repository: String,
    },
    /// It is none, though its media type says so.
    #[error("{digest} in {repository} is no index")]
    NotAnIndex {
        /// What was read.
        digest: Digest,
        /// Where.
        repository: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// More manifests than we are ready to sign.
    #[error("{0} has more than {MANIFESTS_MAX} manifests")]
    TooMany(Digest),
}

#[derive(Deserialize)]
struct IndexJson {
    manifests: Vec<Descriptor>,
}

/// Whether this is an index, by either of its names.
pub(super) fn is_index(descriptor: &Descriptor) -> bool {
    descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list")
}

/// Returns the root and what the scope takes in below it, each manifest once, the root first. Only indexes are read.
///
/// # Errors
/// [`ScopeError`].
pub(super) async fn expand(
    store: &dyn Store,
    repository: &Repository,
    root: &Descriptor,
    scope: Scope,
) -> Result<Vec<Subject>, ScopeError> {
    let role = if is_index(root) { "index" } else { "image" }.to_owned();
    let mut subjects = vec![Subject { descriptor: root.clone(), role }];
    // Indexes may nest; breadth first keeps the order of the index.
    let mut open = std::collections::VecDeque::new();
    if is_index(root) && scope != Scope::Index {
        open.push_back(root.digest);
    }
    while let Some(digest) = open.pop_front() {
        let found = store
            .get_manifest(repository, &digest.to_string())
            .await?
            .ok_or_else(|| ScopeError::Missing { digest, repository: repository.to_string() })?;
        let IndexJson { manifests } = serde_json::from_slice(&found.bytes).map_err(|source| {
            ScopeError::NotAnIndex { digest, repository: repository.to_string(), source }
        })?;
        for child in manifests {
            let (role, wanted) = classify(&child, scope);
            let known = subjects.iter().any(|subject| subject.descriptor.digest == child.digest);
            if !wanted || known {
                continue;
            }
            if subjects.len() == MANIFESTS_MAX {
                return Err(ScopeError::TooMany(root.digest));
            }
            if is_index(&child) {
                open.push_back(child.digest);
            }
            let descriptor = Descriptor::bare(child.media_type, child.digest, child.size);
            subjects.push(Subject { descriptor, role });
        }
    }
    Ok(subjects)
}

/// Takes any descriptor for an entry of an index.
#[cfg(any(test, fuzzing))]
pub(super) fn describe(entry: &Descriptor) {
    let _either_way = classify(entry, Scope::All);
}

/// Returns what an entry of an index is, and whether the scope takes it in.
fn classify(entry: &Descriptor, scope: Scope) -> (String, bool) {
    // BuildKit marks what isn't an image with this annotation; the platform alone (`unknown/unknown`) also
    // marks images whose platform nobody told.
    if let Some(kind) = entry.annotations.get("vnd.docker.reference.type") {
        let of = entry.annotations.get("vnd.docker.reference.digest").map_or("", |digest| digest.as_str());
        let short = of.get(..19).unwrap_or(of);
        return (format!("{kind} of {short}"), scope == Scope::All);
    }
    let role = match &entry.platform {
        Some(platform) => {
            let variant = platform.variant.iter().map(|variant| format!("/{variant}"));
            format!("{}/{}{}", platform.os, platform.architecture, variant.collect::<String>())
        }
        None => "manifest".to_owned(),
    };
    (role, scope != Scope::Index)
}
