//! Why a build did not come to its end.

use super::finish::FinishError;
use super::join::JoinError;
use super::outcome::Unfinished;
use super::placement::Unplaced;
use super::preflight::PreflightError;
use super::reach::ReachError;
use crate::buildkit::Lost;
use crate::buildkit::failure::Failure;
use crate::cluster::watch::Loss;
use crate::registry::{RegistryError, Repository};
use crate::session::SessionError;
use crate::session::filesync::SyncError;
use crate::task::Cause;

/// Why a build did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A key or a registry would have failed it at the end.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// A platform that nothing builds.
    #[error(transparent)]
    Platform(#[from] Box<Unplaced>),
    /// No builder.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The session could not be opened, or ended.
    #[error("the session with BuildKit failed")]
    Session(#[source] SessionError),
    /// The build context could not be sent.
    #[error("the build context could not be sent")]
    Context(#[source] SyncError),
    /// The daemon says that the build failed.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The builder's pod is lost.
    #[error(transparent)]
    Pod(#[from] Loss),
    /// The connection is lost, and nothing is known of why.
    #[error("the builder {builder} is lost")]
    Lost {
        /// Its name or address, with the pod's and the node's names where they are known.
        builder: String,
        /// What was seen of it.
        #[source]
        source: Lost,
    },
    /// One of several builders failed; the others were stopped.
    #[error("building {platforms} failed")]
    Part {
        /// What it was building.
        platforms: String,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// Several builders pushed, and no index came of it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The daemon pushes and pushes, or reads a cache, and the registry says nothing to us either.
    #[error("the build stands still: {repository} was asked twice, and says nothing")]
    Mute {
        /// Where.
        repository: Repository,
        /// What was seen.
        #[source]
        source: Box<RegistryError>,
    },
    /// The daemon's reply makes no sense.
    #[error("BuildKit's reply holds no image digest")]
    NoDigest,
    /// Pushed, but not finished.
    #[error("{error}")]
    Unfinished {
        /// Why.
        #[source]
        error: FinishError,
        /// What is left to do.
        unfinished: Box<Unfinished>,
    },
    /// Somebody asked to stop; nothing was pushed.
    #[error("interrupted")]
    Interrupted(Cause),
}
