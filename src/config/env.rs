//! The process environment, behind a trait so that tests bring their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Every variable that is read, with what it means.
pub mod names {
    /// `true`: a build that pushes also signs.
    pub const SIGN: &str = "KUBECTL_BUILD_SIGN";
    /// Name or address of the builder.
    pub const BUILDER: &str = "KUBECTL_BUILD_BUILDER";
    /// Image for a builder that has to be made.
    pub const BUILDER_IMAGE: &str = "KUBECTL_BUILD_BUILDER_IMAGE";
    /// Filter of the log, in tracing's syntax.
    pub const LOG: &str = "KUBECTL_BUILD_LOG";
    /// Reference of the signing key, as cosign's.
    pub const COSIGN_KEY: &str = "COSIGN_KEY";
    /// Password of the signing key; set counts, even if empty.
    pub const COSIGN_PASSWORD: &str = "COSIGN_PASSWORD";
    /// Repository that signatures go to, if it isn't the image's.
    pub const COSIGN_REPOSITORY: &str = "COSIGN_REPOSITORY";
    /// `1`: `.sig` manifests are of docker's media types.
    pub const COSIGN_DOCKER_MEDIA_TYPES: &str = "COSIGN_DOCKER_MEDIA_TYPES";
    /// `1`: sign with an identity where no key is given, as cosign 1 did.
    pub const COSIGN_EXPERIMENTAL: &str = "COSIGN_EXPERIMENTAL";
    /// Certificate authority, as `--fulcio-url`; cosign's name, as those that follow.
    pub const COSIGN_FULCIO_URL: &str = "COSIGN_FULCIO_URL";
    /// Transparency log, as `--rekor-url`.
    pub const COSIGN_REKOR_URL: &str = "COSIGN_REKOR_URL";
    /// Timestamp authority, as `--timestamp-server-url`.
    pub const COSIGN_TIMESTAMP_SERVER_URL: &str = "COSIGN_TIMESTAMP_SERVER_URL";
    /// Issuer, as `--oidc-issuer`.
    pub const COSIGN_OIDC_ISSUER: &str = "COSIGN_OIDC_ISSUER";
    /// Client to log in as, as `--oidc-client-id`.
    pub const COSIGN_OIDC_CLIENT_ID: &str = "COSIGN_OIDC_CLIENT_ID";
    /// File, as `--oidc-client-secret-file`.
    pub const COSIGN_OIDC_CLIENT_SECRET_FILE: &str = "COSIGN_OIDC_CLIENT_SECRET_FILE";
    /// As `--oidc-redirect-url`.
    pub const COSIGN_OIDC_REDIRECT_URL: &str = "COSIGN_OIDC_REDIRECT_URL";
    /// As `--fulcio-auth-flow`.
    pub const COSIGN_FULCIO_AUTH_FLOW: &str = "COSIGN_FULCIO_AUTH_FLOW";
    /// Set: nobody is there to log in.
    pub const CI: &str = "CI";
    /// Set where a display is: a browser can be opened.
    pub const DISPLAYS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];
    /// Set in a session from elsewhere: a browser would open on the wrong machine.
    pub const SSH: [&str; 3] = ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"];
    /// The browser, or what opens one where the person sits.
    pub const BROWSER: &str = "BROWSER";
    /// Socket of the SPIFFE Workload API.
    pub const SPIFFE_ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
    /// Google: service account that signs in our place, as cosign has it.
    pub const GOOGLE_SERVICE_ACCOUNT_NAME: &str = "GOOGLE_SERVICE_ACCOUNT_NAME";
    /// Google: address of the API that makes its tokens.
    pub const IAM_CREDENTIALS_ENDPOINT: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS";
    /// File, as `--signing-config`.
    pub const COSIGN_SIGNING_CONFIG: &str = "COSIGN_SIGNING_CONFIG";
    /// File, as `--trusted-root`.
    pub const COSIGN_TRUSTED_ROOT: &str = "COSIGN_TRUSTED_ROOT";
    /// `true` or `false`, as `--rekor`.
    pub const COSIGN_TLOG_UPLOAD: &str = "COSIGN_TLOG_UPLOAD";
    /// `true`: as `--yes`.
    pub const COSIGN_YES: &str = "COSIGN_YES";
    /// Who must have signed, as `--certificate-identity` and `--certificate-identity-regexp`.
    pub const COSIGN_CERTIFICATE_IDENTITY: [&str; 2] =
        ["COSIGN_CERTIFICATE_IDENTITY", "COSIGN_CERTIFICATE_IDENTITY_REGEXP"];
    /// By whose word, likewise.
    pub const COSIGN_CERTIFICATE_OIDC_ISSUER: [&str; 2] =
        ["COSIGN_CERTIFICATE_OIDC_ISSUER", "COSIGN_CERTIFICATE_OIDC_ISSUER_REGEXP"];
    /// The largest attestation that is read, in bytes or as `128MiB`.
    pub const COSIGN_MAX_ATTACHMENT_SIZE: &str = "COSIGN_MAX_ATTACHMENT_SIZE";
    /// File with the certificate authority's certificates, instead of the public instance's.
    pub const SIGSTORE_ROOT_FILE: &str = "SIGSTORE_ROOT_FILE";
    /// File with the transparency log's key, likewise.
    pub const SIGSTORE_REKOR_PUBLIC_KEY: &str = "SIGSTORE_REKOR_PUBLIC_KEY";
    /// File with the certificate log's key, likewise.
    pub const SIGSTORE_CT_LOG_PUBLIC_KEY_FILE: &str = "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE";
    /// File with the timestamp authority's certificates, likewise.
    pub const SIGSTORE_TSA_CERTIFICATE_FILE: &str = "SIGSTORE_TSA_CERTIFICATE_FILE";
    /// Folder of what TUF repositories said, as cosign's (default `~/.sigstore/root`).
    pub const TUF_ROOT: &str = "TUF_ROOT";
    /// Address of the TUF repository.
    pub const TUF_MIRROR: &str = "TUF_MIRROR";
    /// File with the root metadata of that repository.
    pub const TUF_ROOT_JSON: &str = "TUF_ROOT_JSON";
    /// Identity token.
    pub const SIGSTORE_ID_TOKEN: &str = "SIGSTORE_ID_TOKEN";
    /// `1`: agree to publish a key's signatures, as `--yes`.
    pub const YES: &str = "KUBECTL_BUILD_YES";
    /// Progress mode where the flag is absent or `auto`.
    pub const PROGRESS: &str = "BUILDKIT_PROGRESS";
    /// Colours of the progress, as BuildKit's.
    pub const COLORS: &str = "BUILDKIT_COLORS";
    /// Lines of a running step's output that tty progress shows.
    pub const TTY_LOG_LINES: &str = "BUILDKIT_TTY_LOG_LINES";
    /// Set to anything: no colours.
    pub const NO_COLOR: &str = "NO_COLOR";
    /// How much of the recorded provenance goes into the metadata file: `min`, `max` or `disabled`; buildx's.
    pub const METADATA_PROVENANCE: &str = "BUILDX_METADATA_PROVENANCE";
    /// `true`: warnings go into the metadata file; buildx's.
    pub const METADATA_WARNINGS: &str = "BUILDX_METADATA_WARNINGS";
    /// Kind of terminal.
    pub const TERM: &str = "TERM";
    /// Platform where `--platform` is absent.
    pub const PLATFORM: &str = "DOCKER_DEFAULT_PLATFORM";
    /// Clock of a reproducible build, in seconds.
    pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
    /// Directory of docker's config.json.
    pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
    /// A docker config in the variable itself; its entries come first.
    pub const DOCKER_AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
    /// List of kubeconfig files.
    pub const KUBECONFIG: &str = "KUBECONFIG";
    /// The file that a step of GitHub Actions adds its outputs to.
    pub const GITHUB_OUTPUT: &str = "GITHUB_OUTPUT";
    /// The home directory.
    pub const HOME: &str = "HOME";
    /// Where credential helpers are looked up.
    pub const PATH: &str = "PATH";
    /// Proxy for `https://`, in both spellings.
    pub const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
    /// Proxy for `http://`.
    pub const HTTP_PROXY: &str = "http_proxy";
    /// What is reached without.
    pub const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
    /// GitLab's address, for `gitlab://` keys.
    pub const GITLAB_HOST: &str = "GITLAB_HOST";
    /// GitLab's token.
    pub const GITLAB_TOKEN: &str = "GITLAB_TOKEN";
    /// Address of the server, behind `VAULT_` or `BAO_`.
    pub const VAULT_ADDR: &str = "ADDR";
    /// Token, likewise.
    pub const VAULT_TOKEN: &str = "TOKEN";
    /// Namespace, likewise.
    pub const VAULT_NAMESPACE: &str = "NAMESPACE";
    /// CA file, likewise.
    pub const VAULT_CACERT: &str = "CACERT";
    /// No certificate is checked, likewise.
    pub const VAULT_SKIP_VERIFY: &str = "SKIP_VERIFY";
    /// Where the transit engine is mounted.
    pub const TRANSIT_SECRET_ENGINE_PATH: &str = "TRANSIT_SECRET_ENGINE_PATH";
    /// Library of a PKCS#11 token.
    pub const COSIGN_PKCS11_MODULE_PATH: &str = "COSIGN_PKCS11_MODULE_PATH";
    /// PIN of a PKCS#11 token.
    pub const COSIGN_PKCS11_PIN: &str = "COSIGN_PKCS11_PIN";
    /// `1`: a certificate on the token is passed over.
    pub const COSIGN_PKCS11_IGNORE_CERTIFICATE: &str = "COSIGN_PKCS11_IGNORE_CERTIFICATE";
    /// AWS: keys.
    pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    /// AWS: keys.
    pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    /// AWS: keys.
    pub const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
    /// AWS: region.
    pub const AWS_REGION: &str = "AWS_REGION";
    /// AWS: region, older.
    pub const AWS_DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
    /// AWS: profile.
    pub const AWS_PROFILE: &str = "AWS_PROFILE";
    /// AWS: where the profiles are.
    pub const AWS_CONFIG_FILE: &str = "AWS_CONFIG_FILE";
    /// AWS: where the profiles' keys are.
    pub const AWS_SHARED_CREDENTIALS_FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";
    /// AWS: role of a web identity.
    pub const AWS_ROLE_ARN: &str = "AWS_ROLE_ARN";
    /// AWS: name of the role's session.
    pub const AWS_ROLE_SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
    /// AWS: token of a web identity.
    pub const AWS_WEB_IDENTITY_TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
    /// AWS: a container's credentials, at the usual host.
    pub const AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    /// AWS: a container's credentials.
    pub const AWS_CONTAINER_CREDENTIALS_FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    /// AWS: what the container shows for them.
    pub const AWS_CONTAINER_AUTHORIZATION_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    /// AWS: what the container shows for them, in a file.
    pub const AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    /// AWS: the machine is not asked.
    pub const AWS_EC2_METADATA_DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
    /// AWS: where the machine is asked.
    pub const AWS_EC2_METADATA_SERVICE_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    /// AWS: address of all services.
    pub const AWS_ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
    /// AWS: address of KMS.
    pub const AWS_ENDPOINT_URL_KMS: &str = "AWS_ENDPOINT_URL_KMS";
    /// AWS: address of STS.
    pub const AWS_ENDPOINT_URL_STS: &str = "AWS_ENDPOINT_URL_STS";
    /// AWS: CA file.
    pub const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";
    /// AWS: `1`, no certificate is checked (cosign's).
    pub const AWS_TLS_INSECURE_SKIP_VERIFY: &str = "AWS_TLS_INSECURE_SKIP_VERIFY";
    /// Google: credentials file.
    pub const GOOGLE_APPLICATION_CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
    /// Google: the project whose quota calls count against.
    pub const GOOGLE_CLOUD_QUOTA_PROJECT: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";
    /// Google: gcloud's folder.
    pub const CLOUDSDK_CONFIG: &str = "CLOUDSDK_CONFIG";
    /// Google: where the machine is asked.
    pub const GCE_METADATA_HOST: &str = "GCE_METADATA_HOST";
    /// Google: address of KMS.
    pub const CLOUDKMS_ENDPOINT: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS";
    /// Azure: tenant.
    pub const AZURE_TENANT_ID: &str = "AZURE_TENANT_ID";
    /// Azure: application.
    pub const AZURE_CLIENT_ID: &str = "AZURE_CLIENT_ID";
    /// Azure: the application's secret.
    pub const AZURE_CLIENT_SECRET: &str = "AZURE_CLIENT_SECRET";
    /// Azure: token of a workload identity.
    pub const AZURE_FEDERATED_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    /// Azure: certificate of an application, which is refused.
    pub const AZURE_CLIENT_CERTIFICATE_PATH: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
    /// Azure: where applications log in.
    pub const AZURE_AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";
    /// Azure: which cloud.
    pub const AZURE_ENVIRONMENT: &str = "AZURE_ENVIRONMENT";
    /// Azure: where the machine is asked.
    pub const AZURE_POD_IDENTITY_AUTHORITY_HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
    /// Azure: where an app service is asked.
    pub const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";
    /// Azure: what an app service shows for it.
    pub const IDENTITY_HEADER: &str = "IDENTITY_HEADER";
}

/// What the process was started in.
pub trait Environment: Send + Sync {
    /// Returns the variable, if set.
    fn get_os(&self, name: &str) -> Option<OsString>;

    /// Returns the working directory.
    fn current_dir(&self) -> std::io::Result<PathBuf>;

    /// Whether standard error is a terminal.
    fn has_terminal(&self) -> bool;

    /// Returns all variables, for processes that we start.
    fn all(&self) -> Vec<(OsString, OsString)>;

    /// Returns the variable if it is set and UTF-8.
    fn get(&self, name: &str) -> Option<String> {
        self.get_os(name).and_then(|value| value.into_string().ok())
    }

    /// Returns the variable if it is set and not empty.
    fn get_filled(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// The real environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
impl Environment for Process {
    fn get_os(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn current_dir(&self) -> std::io::Result<PathBuf> {
        std::env::current_dir()
    }

    fn has_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&std::io::stderr())
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }
}

/// An environment made of a map.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// The working directory.
    pub directory: PathBuf,
    /// Standard error is a terminal.
    pub terminal: bool,
}

impl Fixed {
    /// Returns an environment with these variables, standing in `/`.
    pub fn new<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { variables, directory: PathBuf::from("/"), terminal: false }
    }
}

impl Environment for Fixed {
    fn get_os(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).map(OsString::from)
    }

    fn current_dir(&self) -> std::io::Result<PathBuf> {
        Ok(self.directory.clone())
    }

    fn has_terminal(&self) -> bool {
        self.terminal
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }
}
