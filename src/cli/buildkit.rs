//! `kubectl buildkit VERB`.

use super::{build, cluster, key, registry, signing, verify};
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// Manages the BuildKit builders of your cluster, and signs what they pushed.
#[derive(Debug, Parser)]
#[command(name = "kubectl buildkit", bin_name = "kubectl buildkit", version, subcommand_required = true)]
pub struct BuildkitArgs {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub cluster: cluster::ClusterArgs,
    #[command(flatten)]
    pub log: build::LogArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build an image: the same as `kubectl build`
    #[command(override_usage = "kubectl buildkit build [OPTIONS] PATH")]
    Build(Box<VerbBuildArgs>),
    /// Make a builder and wait until it is ready
    Create(Box<CreateArgs>),
    /// List the builders of the namespace
    Ls(LsArgs),
    /// Remove builders
    Rm(RmArgs),
    /// Sign a pushed image by its digest, verify the signature, then write tags: finishes an interrupted build
    Sign(Box<SignArgs>),
    /// Verify who signed an image, as a stranger would: exits with 10 if nobody did, 11 if it is not there, 12 if others did
    Verify(Box<verify::VerifyArgs>),
    /// Make, import and show signing keys
    Key(key::KeyVerbArgs),
    /// Print the version
    Version,
}

/// `kubectl buildkit build`: a build's arguments; those of the cluster and the log belong to the whole line.
#[derive(Debug, Args)]
pub struct VerbBuildArgs {
    /// Directory that holds the build context
    #[arg(value_name = "PATH")]
    pub paths: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub options: build::OptionArgs,
    #[command(flatten)]
    pub output: build::OutputArgs,
    #[command(flatten)]
    pub builder: build::BuilderArgs,
    #[command(flatten)]
    pub signing: signing::SigningArgs,
    #[command(flatten)]
    pub registry: registry::RegistryArgs,
}

/// `kubectl buildkit create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Builder's name (default `buildkit`)
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Image of the builder
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// How the builder is confined: `auto`, `userns`, `rootless` or `privileged`
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Let QEMU run, in every build, what no node runs natively
    #[arg(long)]
    pub emulate: bool,
    /// buildkitd.toml to use
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// ConfigMap to mount at /etc/config, for certificates and the like
    #[arg(long, value_name = "CONFIGMAP")]
    pub custom_config: Option<String>,
    /// Key that signs, beside the user's, whatever is built there and signed: its reference is kept with the builder, never the key
    #[arg(long, value_name = "REF")]
    pub builder_key: Option<String>,
    /// Longest wait for the builder to be ready, such as `90s` (default `5m`)
    #[arg(long, value_name = "TIME")]
    pub builder_timeout: Option<String>,
    /// Mirror that pulls from a registry try first
    #[arg(long = "registry-mirror", value_name = "HOST=MIRROR", action = ArgAction::Append, help_heading = "Registries")]
    pub mirrors: Vec<String>,
    #[command(flatten)]
    pub registry: CreateRegistryArgs,
    /// How progress is shown: `auto`, `plain`, `tty`, `rawjson` or `quiet`
    #[arg(long, value_name = "MODE")]
    pub progress: Option<String>,
}

/// The registry flags that become the builder's configuration.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct CreateRegistryArgs {
    /// CA certificates (PEM file) for a registry
    #[arg(long = "registry-ca", value_name = "HOST=FILE", action = ArgAction::Append)]
    pub ca: Vec<String>,
    /// Registry that speaks plain HTTP
    #[arg(long = "registry-http", value_name = "HOST", action = ArgAction::Append)]
    pub http: Vec<String>,
    /// Registry whose certificate is not checked
    #[arg(long = "registry-insecure", value_name = "HOST", action = ArgAction::Append)]
    pub insecure: Vec<String>,
}

/// `kubectl buildkit ls`.
#[derive(Debug, Args)]
pub struct LsArgs {}

/// `kubectl buildkit rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names of builders (default `buildkit`)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// `kubectl buildkit sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Pushed image, `REPOSITORY@sha256:…`; repeat it for several repositories of one build
    #[arg(value_name = "REF@DIGEST", required = true)]
    pub references: Vec<String>,
    /// Tag to write once everything is signed and verified
    #[arg(long = "tag", value_name = "NAME:TAG", action = ArgAction::Append)]
    pub tags: Vec<String>,
    /// Sign what BuildKit attested of the image (provenance, bills of materials), too
    #[arg(long)]
    pub attestations: bool,
    #[command(flatten)]
    pub keys: signing::KeyArgs,
    /// Annotation to sign along with the image; repeat it for several
    #[arg(short = 'a', long = "annotations", alias = "sign-annotation", value_name = "KEY=VALUE", action = ArgAction::Append, help_heading = "Signing")]
    pub annotations: Vec<String>,
    #[command(flatten)]
    pub how: signing::HowArgs,
    /// Builder whose registry settings (CAs, plain HTTP) are used too
    #[arg(long, value_name = "NAME")]
    pub builder: Option<String>,
    #[command(flatten)]
    pub registry: registry::RegistryArgs,
    /// How progress is shown: `auto`, `plain`, `tty`, `rawjson` or `quiet`
    #[arg(long, value_name = "MODE")]
    pub progress: Option<String>,
}
