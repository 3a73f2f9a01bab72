//! How a process in a pod, or the stream to it, ended.

use serde::Deserialize;
use std::io;

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecEnd {
    /// The process ended.
    #[error("the process ended with exit code {code}")]
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The process could not be run, or the node lost it.
    #[error("the process could not be run: {message}")]
    Failed {
        /// What the API server or the kubelet said.
        message: String,
    },
    /// Nobody takes connections on the port of the pod.
    #[error("no connection to the port: {message}")]
    Refused {
        /// What the kubelet said.
        message: String,
    },
    /// The API server closed the stream without saying how the process ended.
    #[error("the API server closed the stream{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Closed {
        /// What it said, possibly nothing.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke: {detail}")]
    Cut {
        /// The system's words.
        detail: String,
    },
    /// Neither data nor an answer to a ping came.
    #[error("nothing was heard for {seconds} s")]
    Silent {
        /// For how long, in whole seconds.
        seconds: u64,
    },
}

impl ExecEnd {
    /// Whether the process ended by itself and well.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    /// Returns the error that readers and writers of the stream get.
    pub(super) fn to_io(&self) -> io::Error {
        let kind = match self {
            Self::Exited { .. } | Self::Failed { .. } | Self::Refused { .. } => io::ErrorKind::BrokenPipe,
            Self::Closed { .. } | Self::Cut { .. } => io::ErrorKind::ConnectionReset,
            Self::Silent { .. } => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, self.clone())
    }

    /// Reads the `metav1.Status` of channel 3.
    pub(super) fn from_status(bytes: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Status>(bytes) else {
            return Self::Failed { message: String::from_utf8_lossy(bytes).trim().to_owned() };
        };
        if status.status.as_deref() == Some("Success") {
            return Self::Exited { code: 0 };
        }
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let code = causes
            .iter()
            .find(|cause| cause.reason == "ExitCode")
            .and_then(|cause| cause.message.parse().ok());
        match code {
            Some(code) => Self::Exited { code },
            None => Self::Failed { message: status.message.unwrap_or_default() },
        }
    }
}

#[derive(Deserialize)]
struct Status {
    status: Option<String>,
    message: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// What is known of a process and its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The end of what the process wrote to standard error.
    pub stderr: String,
    /// How the stream ended, once it has.
    pub end: Option<ExecEnd>,
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.end {
            Some(end) => write!(f, "{end}")?,
            None => write!(f, "the stream is open")?,
        }
        match self.stderr.trim() {
            "" => Ok(()),
            text => write!(f, "; it said: {text}"),
        }
    }
}
