//! What a daemon says when it refuses: the gRPC status with BuildKit's typed details.

use super::excerpt::{self, Source};
use crate::pb;
use prost::Message as _;
use serde::Deserialize;
use tonic::{Code, Status};

/// The exit code that a shell gives a process that SIGKILL ended.
pub const KILLED: u32 = 137;
/// The exit code of a process whose end BuildKit did not see (moby/buildkit frontend/gateway/pb/exit.go,
/// `UnknownExitStatus`).
const NEVER_ENDED: u32 = 255;

/// An answer of the daemon that isn't success.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub class: Class,
    /// The gRPC code.
    pub code: Code,
    /// The daemon's text, whole.
    pub message: String,
    /// The digest of the step that failed; the same as its [`crate::event::StepId`].
    pub vertex: Option<String>,
    /// The places in Dockerfiles that are at fault, in the order to print them.
    pub sources: Vec<Source>,
    /// The exit code of the process that failed in a `RUN`.
    pub exit_code: Option<u32>,
    /// A capability or request that the frontend lacks; a newer daemon or frontend has it.
    pub unsupported: Option<String>,
}

/// Why a call failed, as far as exit codes and hints differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The build itself failed: a `RUN`, the Dockerfile, a pull or a push.
    BuildFailed,
    /// The daemon cancelled it; when nobody asked, the daemon is stopping or someone deleted the build.
    Cancelled,
    /// BuildKit says that the fault is its own.
    Internal,
    /// The daemon's machine is out of disk, memory or the like.
    ResourceExhausted,
    /// A message beyond gRPC's limits, which wears the same code as an exhausted resource.
    MessageTooLarge,
    /// The daemon, or what it depends on, can't be reached now.
    Unavailable,
    /// The daemon or the frontend is too old for the request.
    Unsupported,
    /// Something that the daemon waited for, such as the client's session, took too long.
    Timeout,
}

impl Failure {
    /// Reads a status that the daemon sent. Unknown details are left out, malformed ones too: an error must
    /// never hide behind another one about its own form.
    pub fn from_status(status: &Status) -> Self {
        let mut failure = Self {
            class: classify(status.code(), status.message()),
            code: status.code(),
            message: status.message().to_owned(),
            vertex: None,
            sources: Vec::new(),
            exit_code: None,
            unsupported: None,
        };
        let details = pb::google::rpc::Status::decode(status.details()).unwrap_or_default();
        for detail in details.details {
            failure.add(&detail.type_url, &detail.value);
        }
        // They come from the outside in; the innermost is nearest to the cause, and buildctl prints it first.
        failure.sources.reverse();
        failure
    }

    /// Whether a daemon that is being stopped fails builds like this: it cancels them, and kills their processes.
    pub fn may_come_from_stopping(&self) -> bool {
        matches!(self.class, Class::Cancelled | Class::Unavailable | Class::Internal | Class::Timeout)
            || self.exit_code.is_some_and(|code| code == KILLED || code == NEVER_ENDED)
            || self.message.contains("context canceled")
    }

    /// Adds one detail. Its value is JSON although the envelope is protobuf (moby/buildkit
    /// util/grpcerrors/grpcerrors.go).
    fn add(&mut self, type_url: &str, json: &[u8]) {
        let name = type_url.rsplit('/').next().unwrap_or(type_url);
        match name.strip_suffix("+json").unwrap_or(name) {
            "errdefs.Vertex" => {
                if let Ok(Vertex { digest }) = serde_json::from_slice(json) {
                    // Steps of an inner build come last and are the ones that really failed.
                    self.vertex = Some(digest);
                }
            }
            "errdefs.Source" => {
                let source = excerpt::from_json(json);
                self.sources.extend(source.filter(|source| !self.sources.contains(source)));
            }
            "gatewayapi.ExitMessage" => {
                if let Ok(Exit { code }) = serde_json::from_slice(json) {
                    self.exit_code = Some(code);
                }
            }
            "errdefs.FrontendCap" | "errdefs.Subrequest" => {
                if let Ok(Named { name }) = serde_json::from_slice(json) {
                    self.unsupported = Some(name);
                    self.class = Class::Unsupported;
                }
            }
            _ => {}
        }
    }
}

#[derive(Deserialize)]
struct Vertex {
    digest: String,
}

#[derive(Deserialize)]
struct Exit {
    #[serde(rename = "Code", alias = "code", default)]
    code: u32,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

fn classify(code: Code, message: &str) -> Class {
    match code {
        Code::Internal => Class::Internal,
        Code::ResourceExhausted | Code::OutOfRange if is_about_size(message) => Class::MessageTooLarge,
        Code::ResourceExhausted => Class::ResourceExhausted,
        Code::Cancelled => Class::Cancelled,
        Code::Unavailable => Class::Unavailable,
        Code::Unimplemented => Class::Unsupported,
        Code::DeadlineExceeded => Class::Timeout,
        _ => Class::BuildFailed,
    }
}

/// Whether a text is grpc-go's or tonic's about a message beyond its limit. Only the wording tells.
fn is_about_size(message: &str) -> bool {
    message.contains("larger than max") || message.contains("message length too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::LineRange;
    use prost_types::Any;

    fn status(code: Code, message: &str, details: &[(&str, &str)]) -> Status {
        let details = details.iter().map(|(name, json)| Any {
            type_url: format!("github.com/moby/buildkit/{name}+json"),
            value: json.as_bytes().to_vec(),
        });
        let envelope = pb::google::rpc::Status {
            code: code as i32,
            message: message.to_owned(),
            details: details.collect(),
        };
        Status::with_details(code, message, envelope.encode_to_vec().into())
    }

    #[test]
    fn typed_details_are_decoded() {
        let status = status(
            Code::Unknown,
            r#"process "/bin/sh -c false" did not complete successfully: exit code: 1"#,
            &[
                ("stack.Stack", r#"{"frames":[{"Name":"main"}],"pid":7}"#),
                (
                    "errdefs.Source",
                    r#"{"info":{"filename":"outer","data":"YQ=="},"ranges":[{"start":{"line":1}}]}"#,
                ),
                ("errdefs.Vertex", r#"{"digest":"sha256:abc"}"#),
                ("errdefs.Solve", r#"{"inputIDs":["x"],"op":{"exec":{}}}"#),
                ("gatewayapi.ExitMessage", r#"{"Code":1}"#),
                (
                    "errdefs.Source",
                    r#"{"info":{"filename":"inner","data":"YQ=="},"ranges":[{"start":{"line":1}}]}"#,
                ),
                (
                    "errdefs.Source",
                    r#"{"info":{"filename":"inner","data":"YQ=="},"ranges":[{"start":{"line":1}}]}"#,
                ),
                ("someone.Else", "not json"),
            ],
        );
        let failure = Failure::from_status(&status);
        assert_eq!(failure.class, Class::BuildFailed);
        assert_eq!(failure.vertex.as_deref(), Some("sha256:abc"));
        assert_eq!(failure.exit_code, Some(1));
        let names: Vec<_> = failure.sources.iter().map(|source| source.filename.as_str()).collect();
        assert_eq!(names, ["inner", "outer"]);
        assert_eq!(failure.sources[0].ranges, [LineRange { start: 1, end: 1 }]);
    }

    #[test]
    fn malformed_details_never_hide_the_message() {
        let bare = Status::with_details(Code::Unknown, "boom", b"\xff\xff".as_slice().into());
        assert_eq!(Failure::from_status(&bare).to_string(), "boom");
        let odd = status(Code::Unknown, "boom", &[("errdefs.Vertex", "{"), ("errdefs.Source", "7")]);
        let failure = Failure::from_status(&odd);
        assert_eq!((failure.vertex, failure.sources.len()), (None, 0));
    }

    #[test]
    fn the_class_decides_between_lookalikes() {
        let class = |code, message| Failure::from_status(&Status::new(code, message)).class;
        assert_eq!(class(Code::Internal, "failed to write history"), Class::Internal);
        assert_eq!(class(Code::ResourceExhausted, "no space left on device"), Class::ResourceExhausted);
        let go = "grpc: received message larger than max (17000000 vs. 16777216)";
        assert_eq!(class(Code::ResourceExhausted, go), Class::MessageTooLarge);
        let go = "trying to send message larger than max (17000000 vs. 16777216)";
        assert_eq!(class(Code::ResourceExhausted, go), Class::MessageTooLarge);
        let tonic =
            "Error, decoded message length too large: found 17000000 bytes, the limit is: 16777216 bytes";
        assert_eq!(class(Code::OutOfRange, tonic), Class::MessageTooLarge);
        assert_eq!(class(Code::Unknown, "failed to push"), Class::BuildFailed);
        let cap = ("errdefs.FrontendCap", r#"{"name":"moby.buildkit.frontend.contexts"}"#);
        let failure =
            Failure::from_status(&status(Code::Unimplemented, "unsupported frontend capability", &[cap]));
        assert_eq!(failure.class, Class::Unsupported);
        assert_eq!(failure.unsupported.as_deref(), Some("moby.buildkit.frontend.contexts"));
    }
}
