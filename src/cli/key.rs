//! `kubectl buildkit key`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What is done with a key.
#[derive(Debug, Args)]
pub struct KeyVerbArgs {
    #[command(subcommand)]
    pub verb: KeyVerb,
}

/// What is done with a key.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a signing key (ECDSA P-256): files or a Secret in cosign's format, or a key of a key service
    Generate(GenerateArgs),
    /// Put a PEM key (PKCS#8, encrypted or not, SEC1 or PKCS#1) into cosign's format, encrypted
    Import(ImportArgs),
    /// Print the public half of a key
    Public(PublicArgs),
}

/// Where a new key goes.
#[derive(Debug, Args)]
pub struct NewKeyArgs {
    /// Files to write: PREFIX.key (0600) and PREFIX.pub
    #[arg(long, value_name = "PREFIX", default_value = "cosign")]
    pub output_key_prefix: PathBuf,
    /// File that holds the new key's password (else COSIGN_PASSWORD, or a prompt that asks twice)
    #[arg(long, value_name = "FILE")]
    pub cosign_password_file: Option<PathBuf>,
}

/// `kubectl buildkit key generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Where to make it, if not in files: `k8s://NAMESPACE/SECRET`, `gitlab://PROJECT`, `hashivault://NAME`,
    /// `openbao://NAME`, `awskms:///alias/NAME`, `gcpkms://…`, `azurekms://…`, or a plugin's `NAME://…`; the public
    /// half is written to PREFIX.pub too
    #[arg(value_name = "PLACE")]
    pub place: Option<String>,
    #[command(flatten)]
    pub new: NewKeyArgs,
}

/// `kubectl buildkit key import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Key to import: a PEM file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub new: NewKeyArgs,
}

/// `kubectl buildkit key public`.
#[derive(Debug, Args)]
pub struct PublicArgs {
    /// Key: everything that `--cosign-key` takes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// File that holds the key's password (else COSIGN_PASSWORD, or a prompt)
    #[arg(long, value_name = "FILE")]
    pub cosign_password_file: Option<PathBuf>,
}
