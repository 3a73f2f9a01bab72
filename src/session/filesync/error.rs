//! What can go wrong while a directory is sent.

use super::patterns::PatternError;
use std::io;
use std::path::PathBuf;

/// A directory could not be sent, or not as it is. Each names the path that it is about.
///
/// The daemon gets the text too, but its own error may wrap, cut or lose it: take this one from
/// [`Report`](super::Report).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A file or directory cannot be opened, or its attributes cannot be read.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// `open`, `read`, `list`, `examine`.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root is no directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A file was announced and then removed before it was sent.
    #[error("{} vanished while it was being sent", .0.display())]
    Vanished(PathBuf),
    /// A file was announced and then changed before all of it was sent.
    #[error("{} changed while it was being sent", .0.display())]
    Changed(PathBuf),
    /// The daemon sent a pattern that cannot be read.
    #[error("the daemon asks for a directory by a bad pattern")]
    Pattern(#[source] PatternError),
    /// The daemon could not take what was sent.
    #[error("the daemon failed to receive `{directory}`: {text}")]
    Refused {
        /// The name under which the daemon knows the directory.
        directory: String,
        /// Its words.
        text: String,
    },
    /// The daemon broke the transfer's protocol.
    #[error("the daemon broke the file transfer's protocol: {0}")]
    Protocol(&'static str),
}

impl SyncError {
    /// The error with its causes on one line, for the daemon.
    pub(super) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
