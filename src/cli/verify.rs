//! `kubectl buildkit verify`.

use super::registry;
use clap::{ArgAction, Args};
use std::path::PathBuf;

/// What is verified, and with what.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Image, by digest or tag; repeat it for several
    #[arg(value_name = "REF", required = true)]
    pub references: Vec<String>,
    #[command(flatten)]
    pub by: VerifyByArgs,
    /// Verify attestations of this type instead: `slsaprovenance1`, `spdxjson` and the like, or a predicate type's URI
    #[arg(long, visible_alias = "type", value_name = "TYPE")]
    pub attestation: Option<String>,
    /// Standard output: `json` (cosign's array; attestations as one envelope a line) or `text`
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "json")]
    pub output: String,
    /// Builder whose registry settings (CAs, plain HTTP) are used too
    #[arg(long, value_name = "NAME")]
    pub builder: Option<String>,
    #[command(flatten)]
    pub registry: registry::RegistryArgs,
}

/// Whose signature it must be, and what it must say.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Signature")]
pub struct VerifyByArgs {
    /// Key to verify with: a PEM file (public or private), `env://NAME`, `k8s://NAMESPACE/SECRET` (default: COSIGN_KEY); with several, each must have signed
    #[arg(long = "key", alias = "cosign-key", value_name = "REF", action = ArgAction::Append)]
    pub keys: Vec<String>,
    /// Verify with the key of the PIV security key that is plugged in
    #[arg(long)]
    pub sk: bool,
    /// Slot of the security key: `authentication`, `signature` (default), `card-authentication` or `key-management`
    #[arg(long, value_name = "SLOT", requires = "sk")]
    pub slot: Option<String>,
    /// File that holds the password, where the key is an encrypted private one
    #[arg(long, value_name = "FILE")]
    pub cosign_password_file: Option<PathBuf>,
    /// Annotation that must have been signed; repeat it for several
    #[arg(short = 'a', long = "annotations", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub annotations: Vec<String>,
    /// Repository that signatures are in, if it is not the image's (default: COSIGN_REPOSITORY)
    #[arg(long, value_name = "REPOSITORY")]
    pub signature_repository: Option<String>,
    /// Identity that the certificate must be for, such as an e-mail address or `https://kubernetes.io/namespaces/NS/serviceaccounts/NAME`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["keys", "sk", "certificate_identity_regexp"])]
    pub certificate_identity: Option<String>,
    /// The same as a regular expression, which may match anywhere: anchor it with `^…$`
    #[arg(long, value_name = "REGEXP", conflicts_with_all = ["keys", "sk"])]
    pub certificate_identity_regexp: Option<String>,
    /// Issuer of the token that the certificate was given for
    #[arg(long, value_name = "URL", conflicts_with_all = ["keys", "sk", "certificate_oidc_issuer_regexp"])]
    pub certificate_oidc_issuer: Option<String>,
    /// The same as a regular expression
    #[arg(long, value_name = "REGEXP", conflicts_with_all = ["keys", "sk"])]
    pub certificate_oidc_issuer_regexp: Option<String>,
    /// File with the authorities, logs and clocks to believe (default: COSIGN_TRUSTED_ROOT, else those of the public instance)
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// Take certificates that no certificate log has, as private authorities give
    #[arg(long)]
    pub insecure_ignore_sct: bool,
    /// Ask nobody for a newer trust root: the one named, kept or built in counts
    #[arg(long)]
    pub offline: bool,
    /// Ask for no transparency log; for keys that is so unless this is `false`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_ignore_tlog: Option<bool>,
}
