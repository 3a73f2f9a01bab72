//! Flags for signing, shared by `build` and `sign`.

use clap::{ArgAction, Args};
use std::path::PathBuf;

/// Whether and how a build signs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub struct SigningArgs {
    /// Sign what is pushed, verify the signature, then move the tags (a value only with `=`: `true`, `false`, `cosign`)
    #[arg(long, value_name = "WHO", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sign: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Annotation to sign along with the image; repeat it for several
    #[arg(long = "sign-annotation", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub sign_annotations: Vec<String>,
    #[command(flatten)]
    pub how: HowArgs,
}

/// What is signed, and where signatures go.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Signing")]
pub struct HowArgs {
    /// How far to go into an index: `index` (it alone), `platforms` (default: each image in it too) or `all` (attestations too)
    #[arg(long = "sign-scope", value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Key that signs for the builder, beside yours; its signatures name the builder (default: what `create --builder-key` said)
    #[arg(long, value_name = "REF")]
    pub builder_key: Option<String>,
    /// Repository that signatures go to, if it is not the image's (default: COSIGN_REPOSITORY)
    #[arg(long, value_name = "REPOSITORY")]
    pub signature_repository: Option<String>,
    /// Name that `.sig` signatures state instead of the repository, such as that of a proxy that serves the image
    #[arg(long = "sign-container-identity", value_name = "NAME")]
    pub container_identity: Option<String>,
}

/// Which keys sign, and how.
#[derive(Debug, Default, Args)]
pub struct KeyArgs {
    /// Key to sign with: a PEM file, `env://NAME`, `k8s://NAMESPACE/SECRET`, `https://…`, `gitlab://PROJECT`, or a
    /// key service's `awskms://`, `gcpkms://`, `azurekms://`, `hashivault://`, `openbao://` or plugin's `NAME://`
    /// (default: COSIGN_KEY); repeat it for several
    #[arg(long = "cosign-key", alias = "key", value_name = "REF", action = ArgAction::Append, help_heading = "Signing")]
    pub keys: Vec<String>,
    /// Sign with the PIV security key (such as a YubiKey) that is plugged in
    #[arg(long, help_heading = "Signing")]
    pub sk: bool,
    /// Slot of the security key: `authentication`, `signature` (default), `card-authentication` or `key-management`
    #[arg(long, value_name = "SLOT", requires = "sk", help_heading = "Signing")]
    pub slot: Option<String>,
    /// File that holds the key's password (else the Secret's own, COSIGN_PASSWORD, or a prompt)
    #[arg(long, value_name = "FILE", help_heading = "Signing")]
    pub cosign_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// What is written: `both` (default), `legacy` (`.sig` tag) or `bundle` (OCI referrer)
    #[arg(long, value_name = "FORMAT", help_heading = "Signing")]
    pub signature_format: Option<String>,
}

/// Signing with an identity, and the services that take part.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Signing")]
pub struct IdentityArgs {
    /// Sign with an identity token and a short-lived certificate instead of a key, or beside one (default without a key: COSIGN_EXPERIMENTAL)
    #[arg(long)]
    pub keyless: bool,
    /// Identity token to sign with: the token, its file, or `-` for standard input (else SIGSTORE_ID_TOKEN, what the CI system or cloud offers, or a login)
    #[arg(long, value_name = "TOKEN|FILE|-", conflicts_with = "service_account")]
    pub identity_token: Option<String>,
    /// Sign as this service account of the cluster, with a token that the API server makes
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub service_account: Option<String>,
    /// Record signatures in a transparency log: `true`, `false` or, for keys, `best-effort` (a value only with `=`)
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rekor: Option<String>,
    /// Certificate authority for identities
    #[arg(long, value_name = "URL")]
    pub fulcio_url: Option<String>,
    /// Transparency log
    #[arg(long, value_name = "URL")]
    pub rekor_url: Option<String>,
    /// Timestamp authority (RFC 3161)
    #[arg(long, value_name = "URL")]
    pub timestamp_server_url: Option<String>,
    /// Issuer that the identity token must come from, and where a person logs in (default: sigstore's, or what `--signing-config` says)
    #[arg(long, value_name = "URL")]
    pub oidc_issuer: Option<String>,
    /// Client that a person logs in as (default `sigstore`)
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// File that holds the client's secret, where it has one
    #[arg(long, value_name = "FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Address on this machine that the browser comes back to after a login (default: `http://localhost:0/auth/callback`, at any port)
    #[arg(long, value_name = "URL")]
    pub oidc_redirect_url: Option<String>,
    /// Pass over tokens that CI systems, clouds, files and variables offer, and log in
    #[arg(long)]
    pub oidc_disable_ambient_providers: bool,
    /// How a person logs in: `normal` (a browser on this machine) or `device` (a code for any browser)
    #[arg(long, value_name = "FLOW")]
    pub fulcio_auth_flow: Option<String>,
    /// How long a login is waited for once the build is done (default 5m), and the longest wait for any answer of a signing service
    #[arg(long, value_name = "TIME")]
    pub sign_timeout: Option<String>,
    /// File that names the services, instead of the flags (`cosign signing-config create` writes one)
    #[arg(long, value_name = "FILE")]
    pub signing_config: Option<PathBuf>,
    /// File with the authorities and logs that signatures are checked against (`cosign trusted-root create` writes one)
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// Agree to publish a key's signatures in the public log (KUBECTL_BUILD_YES)
    #[arg(long)]
    pub yes: bool,
}
