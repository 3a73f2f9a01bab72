//! What the user wants built: plain values, already validated.

use super::cache::Caches;
use super::record::Detail;
use crate::image::{Annotation, Platform};
use crate::registry::{Reference, Repository};
use crate::sign::SignOptions;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One build.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Directory of the build context.
    pub context: PathBuf,
    /// Directory that the Dockerfile is read from.
    pub dockerfile_dir: PathBuf,
    /// Name of the Dockerfile in that directory.
    pub dockerfile_name: String,
    /// Names that the image is pushed as.
    pub tags: Vec<Reference>,
    /// The platforms to build for, each once; the builder's own if none.
    pub platforms: Vec<Platform>,
    /// What the image and its index are annotated with.
    pub annotations: Vec<Annotation>,
    /// What is attested, by type, each with the fields that the frontend reads.
    pub attests: BTreeMap<String, String>,
    /// Platforms that nothing runs natively may be emulated.
    pub emulate: bool,
    /// The Dockerfile cross-compiles: what runs in it runs on the builder's own platform.
    pub cross: bool,
    /// What the frontend is told.
    pub options: FrontendOptions,
    /// The caches beside the builder's own.
    pub caches: Caches,
    /// Rights that the build asks the daemon for.
    pub entitlements: Vec<String>,
    /// Push the image.
    pub push: bool,
    /// How it is signed, if it is.
    pub signing: SignOptions,
    /// Registries that the daemon may push to without checking their certificates, or over plain HTTP, beyond those
    /// that its own configuration says this of.
    pub insecure_hosts: Vec<String>,
    /// The digest is wanted even if nothing is pushed.
    pub digest_wanted: bool,
    /// How much is wanted of the provenance that the daemons record of each build.
    pub recorded: Option<Detail>,
    /// The warnings of the builds are wanted, beside their progress.
    pub warnings_wanted: bool,
}

impl BuildRequest {
    /// Returns the distinct repositories of the tags, in their order.
    pub fn repositories(&self) -> Vec<Repository> {
        distinct(self.tagged())
    }

    /// Returns these and those that caches are in: all that the daemon itself calls for more than base images.
    pub fn with_caches(&self) -> Vec<Repository> {
        distinct(self.tagged().chain(self.caches.repositories()))
    }

    /// Returns the repositories that something is written to: those of the tags, and where signatures go.
    pub fn written_to(&self) -> Vec<Repository> {
        distinct(self.tagged().chain(&self.signing.storage))
    }

    fn tagged(&self) -> impl Iterator<Item = &Repository> {
        self.tags.iter().map(|tag| &tag.repository)
    }
}

fn distinct<'a>(all: impl Iterator<Item = &'a Repository>) -> Vec<Repository> {
    let mut repositories: Vec<Repository> = Vec::new();
    for repository in all {
        if !repositories.contains(repository) {
            repositories.push(repository.clone());
        }
    }
    repositories
}

/// What the Dockerfile frontend is told (buildkit frontend/dockerui/config.go).
#[derive(Clone, Debug, Default)]
pub struct FrontendOptions {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--pull`.
    pub pull: bool,
    /// `--network`, where it isn't the default.
    pub network: Option<String>,
    /// `--add-host`, each `host=ip`.
    pub add_hosts: Vec<String>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<String>,
}
