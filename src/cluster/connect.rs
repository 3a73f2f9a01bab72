//! From kubectl's connection flags, kubeconfig files or a pod's service account to a client of one cluster.
//!
//! Precedence is kubectl's: flags, then the kubeconfig's context, then (with no kubeconfig at all) the pod's own
//! service account. Everything arrives as values; this module reads files, never the environment.

mod credential;
mod kubeconfig;
mod transport;

pub use credential::CredentialError;

use super::api::{self, ApiError, Operation, Said};
use crate::event::Events;
use secrecy::SecretString;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

/// Where kubeconfigs are looked for.
#[derive(Clone, Debug)]
pub enum KubeconfigSource {
    /// `--kubeconfig FILE`: it must be there.
    Explicit(PathBuf),
    /// The files of `KUBECONFIG`, or `~/.kube/config`: merged, the first to say something wins; missing ones
    /// are passed over.
    List(Vec<PathBuf>),
}

impl Default for KubeconfigSource {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// What a pod knows of its cluster without a kubeconfig.
#[derive(Clone, Debug)]
pub struct InCluster {
    /// `KUBERNETES_SERVICE_HOST`.
    pub host: String,
    /// `KUBERNETES_SERVICE_PORT`.
    pub port: String,
    /// `POD_NAMESPACE`, which client-go prefers to the service account's namespace.
    pub namespace: Option<String>,
    /// `/var/run/secrets/kubernetes.io/serviceaccount`: the directory of `token`, `ca.crt` and `namespace`.
    pub service_account: PathBuf,
}

/// The connection flags, with kubectl's names and meanings; `None` is "not given".
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// `--kubeconfig`, `KUBECONFIG`, `~/.kube/config`.
    pub kubeconfig: KubeconfigSource,
    /// `--context`.
    pub context: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `-n`, `--namespace`.
    pub namespace: Option<String>,
    /// `-s`, `--server`.
    pub server: Option<String>,
    /// `--tls-server-name`.
    pub tls_server_name: Option<String>,
    /// `--insecure-skip-tls-verify`.
    pub insecure_skip_tls_verify: Option<bool>,
    /// `--certificate-authority`.
    pub certificate_authority: Option<PathBuf>,
    /// `--client-certificate`.
    pub client_certificate: Option<PathBuf>,
    /// `--client-key`.
    pub client_key: Option<PathBuf>,
    /// `--token`.
    pub token: Option<SecretString>,
    /// `--username`.
    pub username: Option<String>,
    /// `--password`.
    pub password: Option<SecretString>,
    /// `--as`.
    pub impersonate: Option<String>,
    /// `--as-uid`.
    pub impersonate_uid: Option<String>,
    /// `--as-group`, repeatable.
    pub impersonate_groups: Vec<String>,
    /// `--request-timeout`; zero is kubectl's "no end", for which ours is taken: a wait has an end here.
    pub request_timeout: Option<Duration>,
    /// `HTTPS_PROXY`, for clusters without a `proxy-url` of their own.
    pub https_proxy: Option<String>,
    /// `HTTP_PROXY`, for clusters reached without TLS.
    pub http_proxy: Option<String>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// Set when the process runs in a pod.
    pub in_cluster: Option<InCluster>,
    /// Whether credential plugins may ask on the terminal: standard input is one, and nothing else reads it.
    pub interactive: bool,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster to connect to: {looked}")]
    NoCluster {
        /// Where was looked.
        looked: String,
    },
    /// A file could not be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What the file is: `kubeconfig`, `certificate authority`, ….
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A kubeconfig is not one.
    #[error("cannot parse kubeconfig {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Said,
    },
    /// A context, cluster or user that no kubeconfig has.
    #[error("{kind} `{name}` does not exist")]
    Absent {
        /// `context`, `cluster` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The settings contradict themselves or are malformed.
    #[error("the connection settings of {subject} are not usable")]
    Settings {
        /// The context or server that they belong to.
        subject: String,
        /// What is wrong.
        #[source]
        source: Said,
    },
    /// A credential plugin or token file failed.
    #[error("cannot get credentials for {server}")]
    Credential {
        /// The cluster's URL.
        server: String,
        /// Why not.
        #[source]
        source: CredentialError,
    },
}

impl ConnectError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoCluster { .. } => Some(
                "set KUBECONFIG or `--kubeconfig FILE`, or run in a pod with a service account".to_owned(),
            ),
            Self::Read { .. } => None,
            Self::Parse { path, .. } => Some(format!(
                "`kubectl --kubeconfig {} config view` shows what kubectl reads",
                path.display()
            )),
            Self::Absent { kind, known, .. } if known.is_empty() => {
                Some(format!("the kubeconfig has no {kind}s"))
            }
            Self::Absent { kind, known, .. } => {
                Some(format!("the kubeconfig has the {kind}s {}", known.join(", ")))
            }
            Self::Settings { .. } => {
                Some("`kubectl config view --minify` shows the settings in use".to_owned())
            }
            Self::Credential { source, .. } => source.hint(),
        }
    }
}

/// A client of one cluster, and the namespace that builders live in. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: kube::Client,
    namespace: String,
    server: String,
    request_timeout: Duration,
    in_cluster: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish()
    }
}

impl Connection {
    /// Reads the settings and makes a client. Nothing is asked of the API server yet; a credential plugin of
    /// the kubeconfig runs now (once: its answer is kept until it expires), and what it says goes to `events`.
    ///
    /// # Errors
    /// Whatever stands in the settings and cannot be used, by name.
    pub async fn connect(options: &ConnectOptions, events: &Events) -> Result<Self, ConnectError> {
        let settings = kubeconfig::resolve(options)?;
        let request_timeout =
            options.request_timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(api::REQUEST_TIMEOUT);
        let namespace = settings.namespace.clone();
        let server = settings.server.clone();
        let in_cluster = settings.ca_file.is_some();
        let client = transport::client(settings, options, events).await?;
        Ok(Self { client, namespace, server, request_timeout, in_cluster })
    }

    /// Wraps a client that exists already; tests play the API server behind it.
    pub fn over(client: kube::Client, namespace: &str, server: &str) -> Self {
        let request_timeout = api::REQUEST_TIMEOUT;
        let (namespace, server) = (namespace.to_owned(), server.to_owned());
        Self { client, namespace, server, request_timeout, in_cluster: false }
    }

    /// Returns the client.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Returns the namespace that flags, context or service account chose.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether this process runs in a pod of that cluster, by all that it knows: the pod's service account led there.
    pub fn is_from_inside(&self) -> bool {
        self.in_cluster
    }

    /// Asks the API server, with an end to the wait and retries where they cannot harm.
    pub(super) async fn call<T, F>(&self, operation: Operation, ask: impl FnMut() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        api::call(&self.server, self.request_timeout, operation, ask).await
    }

    /// Names the failure of a call that was not made through [`Self::call`].
    pub(super) fn explain(&self, operation: Operation, error: kube::Error) -> ApiError {
        ApiError::from_kube(operation, &self.server, error)
    }
}
