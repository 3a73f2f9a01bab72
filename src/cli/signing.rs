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
}

/// Which keys sign, and how.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Key to sign with: a PEM file, `env://NAME` or `k8s://NAMESPACE/SECRET` (default: COSIGN_KEY); repeat it for several
    #[arg(long = "cosign-key", alias = "key", value_name = "REF", action = ArgAction::Append, help_heading = "Signing")]
    pub keys: Vec<String>,
    /// File that holds the key's password (else the Secret's own, COSIGN_PASSWORD, or a prompt)
    #[arg(long, value_name = "FILE", help_heading = "Signing")]
    pub cosign_password_file: Option<PathBuf>,
    /// What is written: `both` (default), `legacy` (`.sig` tag) or `bundle` (OCI referrer)
    #[arg(long, value_name = "FORMAT", help_heading = "Signing")]
    pub signature_format: Option<String>,
}
