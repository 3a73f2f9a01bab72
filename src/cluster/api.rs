//! One call to the API server: its end, its retries, and what its refusal means.

use super::connect::CredentialError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// The longest wait for the answer to one ordinary request, unless `--request-timeout` says otherwise.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// How often a request is repeated that the server was too busy for.
const ATTEMPTS: u32 = 5;

/// What is asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The RBAC verb: `get`, `list`, `watch`, `create`, `delete`, ….
    pub verb: &'static str,
    /// The RBAC resource: `pods`, `pods/exec`, `deployments.apps`, ….
    pub resource: &'static str,
    /// The object's name, where it has one.
    pub name: Option<Box<str>>,
    /// The namespace; `None` for what belongs to the whole cluster.
    pub namespace: Option<Box<str>>,
}

impl Operation {
    /// Returns an operation on one object in a namespace.
    pub(super) fn one(verb: &'static str, resource: &'static str, namespace: &str, name: &str) -> Self {
        Self { verb, resource, name: Some(name.into()), namespace: Some(namespace.into()) }
    }

    /// Returns an operation on the objects of one kind in a namespace.
    pub(super) fn many(verb: &'static str, resource: &'static str, namespace: &str) -> Self {
        Self { verb, resource, name: None, namespace: Some(namespace.into()) }
    }

    /// Returns an operation on the objects of one kind in the whole cluster.
    pub(super) fn everywhere(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource, name: None, namespace: None }
    }

    /// Whether doing it twice is the same as doing it once.
    fn is_repeatable(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace `{namespace}`"),
            None => Ok(()),
        }
    }
}

/// Text that came from the other side, as the cause of an error of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub String);

/// Why a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The credentials are missing, wrong or expired (401).
    #[error("the API server at {server} does not accept your credentials")]
    Unauthorized {
        /// Its URL.
        server: String,
        /// What it said.
        #[source]
        source: Said,
    },
    /// RBAC does not allow it.
    #[error("you are not allowed to {operation}")]
    Forbidden {
        /// What was asked.
        operation: Operation,
        /// What the server said.
        #[source]
        source: Said,
    },
    /// A quota, Pod Security, a policy or a webhook refuses the object.
    #[error("the cluster refuses to {operation}")]
    Denied {
        /// What was asked.
        operation: Operation,
        /// What the server said.
        #[source]
        source: Said,
    },
    /// There is no such object.
    #[error("cannot {operation}: not found")]
    NotFound {
        /// What was asked.
        operation: Operation,
    },
    /// An object of this name exists already.
    #[error("cannot {operation}: it exists already")]
    AlreadyExists {
        /// What was asked.
        operation: Operation,
    },
    /// No answer in time.
    #[error("the API server at {server} did not answer within {} s (asked to {operation})", after.as_secs())]
    Timeout {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: Operation,
        /// How long was waited.
        after: Duration,
    },
    /// No connection.
    #[error("cannot reach the API server at {server}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// The deepest cause.
        #[source]
        source: Said,
    },
    /// A connection, and no trust in it.
    #[error("cannot trust the API server at {server}")]
    Untrusted {
        /// Its URL.
        server: String,
        /// What is wrong with its certificate.
        #[source]
        source: Said,
    },
    /// The credentials could not be had.
    #[error("cannot get credentials for the API server at {server}")]
    Credential {
        /// Its URL.
        server: String,
        /// Why not.
        #[source]
        source: CredentialError,
    },
    /// Anything else that the server said.
    #[error("the API server failed to {operation}")]
    Server {
        /// What was asked.
        operation: Operation,
        /// The HTTP status; 0 where there was none.
        code: u16,
        /// What it said.
        #[source]
        source: Said,
    },
}

impl ApiError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unauthorized { .. } => Some(
                "log in again, or choose other credentials with `--context`, `--user` or `--token`; \
                 `kubectl auth whoami` shows who you are"
                    .to_owned(),
            ),
            Self::Forbidden { operation, .. } => {
                let Operation { verb, resource, namespace, .. } = operation;
                let scope = namespace.as_ref().map_or(String::new(), |name| format!(" -n {name}"));
                let also = match *resource {
                    // A WebSocket opens with GET, so both verbs are looked at (RFC 6455 §4.1).
                    "pods/exec" | "pods/portforward" => " (the verbs `create` and `get`)",
                    _ => "",
                };
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let subresource = match subresource {
                    "" => String::new(),
                    name => format!(" --subresource={name}"),
                };
                Some(format!(
                    "ask for a role with the verb `{verb}` on `{}`{also}; \
                     `kubectl auth can-i {verb} {resource}{subresource}{scope}` tells when you have it",
                    operation.resource
                ))
            }
            Self::Denied { operation, source } => {
                denial_hint(&source.0, operation.namespace.as_deref().unwrap_or("default"))
            }
            Self::Timeout { .. } => {
                Some("`kubectl cluster-info` tells whether the cluster is there; `--request-timeout` waits longer".to_owned())
            }
            Self::Unreachable { .. } => Some(
                "check the network and the cluster's address: `kubectl cluster-info`; \
                 another cluster is chosen with `--context`"
                    .to_owned(),
            ),
            Self::Untrusted { .. } => Some(
                "the kubeconfig's certificate-authority must be the one that signed the server's certificate; \
                 `--certificate-authority FILE` names another, `--tls-server-name` another name"
                    .to_owned(),
            ),
            Self::Credential { source, .. } => source.hint(),
            // What is to be made isn't there of course: it is the namespace that is missing.
            Self::NotFound { operation: Operation { verb: "create", namespace: Some(namespace), .. } } => {
                Some(format!(
                    "is there a namespace `{namespace}`? `kubectl create namespace {namespace}` makes it, `-n` chooses another"
                ))
            }
            Self::NotFound { .. } | Self::AlreadyExists { .. } | Self::Server { .. } => None,
        }
    }

    /// Whether asking again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Server { code, source, .. } => *code >= 500 || *code == 429 || is_transient_text(&source.0),
            _ => false,
        }
    }

    /// Whether RBAC is the reason.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Turns the library's error into ours.
    pub(super) fn from_kube(operation: Operation, server: &str, error: kube::Error) -> Self {
        let server = server.to_owned();
        let source = match error {
            kube::Error::Api(status) => {
                let said = Said(status.message.clone());
                return match (status.code, status.reason.as_str()) {
                    (401, _) => Self::Unauthorized { server, source: said },
                    (409, "AlreadyExists") => Self::AlreadyExists { operation },
                    (404, _) if !says_more_than_not_found(&status.message) => Self::NotFound { operation },
                    _ if is_denial(&status.message) => Self::Denied { operation, source: said },
                    (403, _) => Self::Forbidden { operation, source: said },
                    (422, _) => Self::Denied { operation, source: said },
                    (code, _) => Self::Server { operation, code, source: said },
                };
            }
            kube::Error::Service(error) => match error.downcast::<CredentialError>() {
                Ok(source) => return Self::Credential { server, source: *source },
                Err(error) => root(error.as_ref()),
            },
            other => root(&other),
        };
        if source.contains("certificate") || source.contains("UnknownIssuer") {
            Self::Untrusted { server, source: Said(source) }
        } else if source.contains("expected value") || source.contains("missing field") {
            Self::Server { operation, code: 0, source: Said(source) }
        } else {
            Self::Unreachable { server, source: Said(source) }
        }
    }
}

/// Returns the deepest cause's text: the layers above say only that something below failed.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Whether a 404 is about something other than the object that was asked for, such as an API that is missing.
fn says_more_than_not_found(message: &str) -> bool {
    !message.is_empty() && !message.contains("not found")
}

/// Whether a refusal comes from quota or admission and not from RBAC, whose refusals are 403 too.
pub(super) fn is_denial(text: &str) -> bool {
    text.contains("exceeded quota")
        || text.contains("violates PodSecurity")
        || text.contains("admission webhook")
        || text.contains("ValidatingAdmissionPolicy")
        || text.contains("unable to validate against any security context constraint")
        || text.contains("is forbidden: failed quota")
        || text.contains("maximum ") && text.contains(" usage per ")
        || text.contains("minimum ") && text.contains(" usage per ")
}

/// Returns what a person can do about a refusal by quota or admission.
pub(super) fn denial_hint(text: &str, namespace: &str) -> Option<String> {
    if text.contains("violates PodSecurity") {
        Some(format!(
            "the namespace's Pod Security level does not admit builders; an administrator can allow them with \
             `kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged`, \
             or choose another namespace with `-n`"
        ))
    } else if text.contains("quota") {
        Some(format!(
            "free some of the quota or have it raised: `kubectl describe resourcequota -n {namespace}` shows it"
        ))
    } else if text.contains(" usage per ") {
        Some(format!("the namespace's limits stand in the way: `kubectl describe limitrange -n {namespace}`"))
    } else if text.contains("security context constraint") {
        Some(format!(
            "an administrator can allow builders with `oc adm policy add-scc-to-user privileged -z default -n {namespace}`, \
             or try `--mode userns` or `--mode rootless`"
        ))
    } else if text.contains("admission webhook") || text.contains("ValidatingAdmissionPolicy") {
        Some(format!(
            "a policy of the cluster refuses it: ask those who run the cluster for an exception for namespace `{namespace}`, \
             or try another `--mode` or another namespace with `-n`"
        ))
    } else {
        None
    }
}

/// Whether this is the text of a failure that passes: a kubelet that restarts or whose certificate is not
/// approved yet (`tls: internal error`), a connection that broke on the way.
pub(super) fn is_transient_text(text: &str) -> bool {
    const PASSING: &[&str] = &[
        "connection refused",
        "Connection refused",
        "connection reset",
        "Connection reset",
        "i/o timeout",
        "timed out",
        "tls: internal error",
        "TLS handshake timeout",
        "use of closed network connection",
        "unexpected EOF",
        "error dialing backend",
        "no route to host",
        "container not found",
        "too many requests",
        "http2: client connection lost",
        "channel closed",
        "connection closed before message completed",
    ];
    PASSING.iter().any(|passing| text.contains(passing))
}

/// Asks the API server, with an end to the wait, and again (a few times, a little later) where it was too busy
/// or, for what only reads, where the connection broke.
pub(super) async fn call<T, F>(
    server: &str,
    timeout: Duration,
    operation: Operation,
    mut ask: impl FnMut() -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut pause = Duration::from_millis(100);
    let mut attempt = 1;
    loop {
        let (error, retry_after) = match tokio::time::timeout(timeout, ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let asked = retry_after(&error);
                (ApiError::from_kube(operation.clone(), server, error), asked)
            }
            Err(_) => {
                return Err(ApiError::Timeout { server: server.to_owned(), operation, after: timeout });
            }
        };
        // A 429 was refused before anything was done, so it is repeatable whatever was asked.
        let busy = matches!(&error, ApiError::Server { code: 429, .. });
        let again = busy || operation.is_repeatable() && error.is_transient();
        // A name that does not resolve or a port where nobody listens will not change within a second.
        let hopeless = matches!(&error, ApiError::Unreachable { source, .. } if !source.0.contains("reset") && !source.0.contains("closed"));
        if !again || hopeless || attempt == ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(%operation, attempt, error = %error, "asking again");
        tokio::time::sleep(retry_after.unwrap_or(pause).min(Duration::from_secs(5))).await;
        pause *= 2;
        attempt += 1;
    }
}

/// Returns how long the server asks to be left alone.
fn retry_after(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) => {
            let seconds = status.details.as_ref()?.retry_after_seconds;
            (seconds > 0).then(|| Duration::from_secs(seconds.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, reason: &str, message: &str) -> ApiError {
        let status = kube::core::Status::failure(message, reason).with_code(code);
        let operation = Operation::one("create", "pods", "ci", "buildkit-0");
        ApiError::from_kube(operation, "https://k8s.example", kube::Error::Api(status.boxed()))
    }

    #[test]
    fn the_three_kinds_of_403_are_told_apart() {
        let rbac = said(
            403,
            "Forbidden",
            "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\"",
        );
        assert!(rbac.is_forbidden());
        assert!(rbac.hint().unwrap().contains("kubectl auth can-i create pods -n ci"), "{:?}", rbac.hint());

        let quota = said(
            403,
            "Forbidden",
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1",
        );
        assert!(matches!(quota, ApiError::Denied { .. }));
        assert!(quota.hint().unwrap().contains("kubectl describe resourcequota -n ci"));

        let nowhere = said(404, "NotFound", "namespaces \"ci\" not found");
        assert!(nowhere.hint().unwrap().contains("kubectl create namespace ci"));

        let security = said(
            403,
            "Forbidden",
            "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": privileged",
        );
        assert!(
            security.hint().unwrap().contains("namespace ci pod-security.kubernetes.io/enforce=privileged")
        );
    }

    #[test]
    fn a_refused_exec_names_both_verbs() {
        let operation = Operation::one("create", "pods/exec", "ci", "p");
        let status =
            kube::core::Status::failure("pods \"p\" is forbidden: User cannot", "Forbidden").with_code(403);
        let error = ApiError::from_kube(operation, "s", kube::Error::Api(status.boxed()));
        let hint = error.hint().unwrap();
        assert!(hint.contains("`create` and `get`") && hint.contains("--subresource=exec"), "{hint}");
    }

    #[test]
    fn passing_failures_are_transient_and_refusals_are_not() {
        assert!(
            said(500, "InternalError", "error dialing backend: remote error: tls: internal error")
                .is_transient()
        );
        assert!(said(503, "ServiceUnavailable", "apiserver is shutting down").is_transient());
        assert!(!said(403, "Forbidden", "pods is forbidden").is_transient());
        assert!(!said(404, "NotFound", "pods \"x\" not found").is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_ends_the_wait() {
        let operation = Operation::many("list", "pods", "ci");
        let error =
            call("https://k8s.example", REQUEST_TIMEOUT, operation, std::future::pending::<kube::Result<()>>)
                .await
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the API server at https://k8s.example did not answer within 12 s (asked to list pods in namespace `ci`)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again_but_not_for_ever() {
        let mut asked = 0;
        let operation = Operation::one("create", "pods", "ci", "p");
        let outcome: Result<(), _> = call("s", REQUEST_TIMEOUT, operation, || {
            asked += 1;
            let status = kube::core::Status::failure("slow down", "TooManyRequests").with_code(429);
            std::future::ready(Err(kube::Error::Api(status.boxed())))
        })
        .await;
        assert!(matches!(outcome, Err(ApiError::Server { code: 429, .. })));
        assert_eq!(asked, 5);
    }
}
