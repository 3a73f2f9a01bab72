//! `kubectl build`.

use super::{cluster, registry, signing};
use clap::{ArgAction, Args, Parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// Builds an image in your Kubernetes cluster with BuildKit, pushes it, signs it, and moves the tag last.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl build",
    bin_name = "kubectl build",
    version,
    override_usage = "kubectl build [OPTIONS] PATH\n       kubectl build create|ls|rm|sign|verify|key|version [OPTIONS]",
    after_help = "Example: kubectl build -t REGISTRY/app:1 --push --sign --cosign-key cosign.key ."
)]
pub struct BuildArgs {
    /// Directory that holds the build context
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub options: OptionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub builder: BuilderArgs,
    #[command(flatten)]
    pub signing: signing::SigningArgs,
    #[command(flatten)]
    pub registry: registry::RegistryArgs,
    #[command(flatten)]
    pub cluster: cluster::ClusterArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// What is built.
#[derive(Debug, Args)]
#[command(next_help_heading = "Build")]
pub struct OptionArgs {
    /// Name of the image, `REGISTRY/NAME:TAG`; repeat it for several
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]", action = ArgAction::Append)]
    pub tags: Vec<String>,
    /// Dockerfile (default `PATH/Dockerfile`)
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<OsString>,
    /// Build-time variable; without `=VALUE` it takes the environment's
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", action = ArgAction::Append)]
    pub build_args: Vec<String>,
    /// Stage of the Dockerfile to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY[=VALUE]", action = ArgAction::Append)]
    pub labels: Vec<String>,
    /// Platforms of the image, such as `linux/amd64,linux/arm64` (default: the builder's)
    #[arg(long = "platform", value_name = "PLATFORM[,PLATFORM]", action = ArgAction::Append)]
    pub platforms: Vec<String>,
    /// Let QEMU run what no node runs natively
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub emulate: Option<bool>,
    /// The Dockerfile cross-compiles, so any node builds any platform (known if it has a stage
    /// `FROM --platform=$BUILDPLATFORM`)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cross: Option<bool>,
    /// Annotation of the image; `index:`, `manifest-descriptor:` and so on before it say of what else, `[PLATFORM]` of
    /// which
    #[arg(long = "annotation", value_name = "[TYPE:]KEY=VALUE", action = ArgAction::Append)]
    pub annotations: Vec<String>,
    /// Attestation to attach, `type=provenance` or `type=sbom` with further settings
    #[arg(long = "attest", value_name = "type=TYPE[,…]", action = ArgAction::Append)]
    pub attest: Vec<String>,
    /// Attach the build's provenance: short for `--attest type=provenance`
    #[arg(long, value_name = "BOOL|mode=MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    /// Attach a software bill of materials: short for `--attest type=sbom`
    #[arg(long, value_name = "BOOL|generator=IMAGE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sbom: Option<String>,
    /// Run every step, whatever is cached
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_cache: Option<bool>,
    /// Begin from the cache in a registry, `NAME:TAG`, too; repeat it for several
    #[arg(long = "cache-from", value_name = "NAME|type=registry,ref=NAME", action = ArgAction::Append)]
    pub cache_from: Vec<String>,
    /// Leave the cache in a registry, `type=registry,ref=NAME:TAG` (`mode=max`: of all stages), or in the image, `type=inline`
    #[arg(long = "cache-to", value_name = "NAME|type=TYPE[,…]", action = ArgAction::Append)]
    pub cache_to: Vec<String>,
    /// Look for newer base images
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pull: Option<bool>,
    /// Network of RUN steps: `default`, `none` or `host` (`host` needs a builder that allows it)
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// Extra line of /etc/hosts in RUN steps
    #[arg(long = "add-host", value_name = "HOST:IP", action = ArgAction::Append)]
    pub add_hosts: Vec<String>,
    /// Size of /dev/shm in RUN steps, such as `64m`
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Resource limit of RUN steps, such as `nofile=1024:2048`
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", action = ArgAction::Append)]
    pub ulimits: Vec<String>,
    /// Extra right for the build: `network.host` or `security.insecure`
    #[arg(long = "allow", value_name = "RIGHT", action = ArgAction::Append, value_delimiter = ',')]
    pub allow: Vec<String>,
}

/// What comes out.
#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
pub struct OutputArgs {
    /// Push the image to the registries of its tags
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub push: Option<bool>,
    /// How progress is shown: `auto`, `plain`, `tty`, `rawjson` or `quiet`
    #[arg(long, value_name = "MODE")]
    pub progress: Option<String>,
    /// Show nothing but the digest at the end
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write the digest of the image's manifest to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built, pushed and signed to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write the first pushed tag to this file (in Tekton by default the result IMAGE_URL)
    #[arg(long, value_name = "FILE")]
    pub image_url_file: Option<PathBuf>,
    /// Write the pushed image's digest to this file (in Tekton by default the result IMAGE_DIGEST)
    #[arg(long, value_name = "FILE")]
    pub image_digest_file: Option<PathBuf>,
    /// Write all that was pushed, REPOSITORY@DIGEST, to this file (in Tekton by default the result IMAGES)
    #[arg(long, value_name = "FILE")]
    pub images_file: Option<PathBuf>,
    /// Form of the final report on standard output: `text` or `json`
    #[arg(long, value_name = "FORM")]
    pub report: Option<String>,
}

/// Who builds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Builder")]
pub struct BuilderArgs {
    /// Builder's name, made on first use (default `buildkit`), or a daemon's address: `unix://PATH`, `tcp://HOST:PORT`
    #[arg(long, value_name = "NAME|ADDR")]
    pub builder: Option<String>,
    /// Image for a builder that has to be made
    #[arg(long, value_name = "IMAGE")]
    pub builder_image: Option<String>,
    /// Longest wait for the builder to be ready, such as `90s` (default `5m`)
    #[arg(long, value_name = "TIME")]
    pub builder_timeout: Option<String>,
    /// CA certificates (PEM) that a `tcp://` builder is checked with
    #[arg(long, value_name = "FILE")]
    pub builder_tls_ca: Option<PathBuf>,
    /// Client certificate (PEM) for a `tcp://` builder
    #[arg(long, value_name = "FILE")]
    pub builder_tls_cert: Option<PathBuf>,
    /// Key (PEM) of the client certificate
    #[arg(long, value_name = "FILE")]
    pub builder_tls_key: Option<PathBuf>,
    /// Name in the `tcp://` builder's certificate, where it is not the address's host
    #[arg(long, value_name = "NAME")]
    pub builder_tls_server_name: Option<String>,
}

/// What is logged beside the progress.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log what is done; twice for every request
    #[arg(short = 'v', long = "verbose", action = ArgAction::Count, global = true)]
    pub verbose: u8,
}
