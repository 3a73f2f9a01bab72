//! kubectl's connection flags, with kubectl's names and meanings.

use clap::{ArgAction, Args};
use std::path::PathBuf;

/// How the cluster is reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cluster (as kubectl's)")]
pub struct ClusterArgs {
    /// Path to the kubeconfig file
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// Namespace of the builder
    #[arg(short = 'n', long, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
    /// Cluster of the kubeconfig
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(short = 's', long, value_name = "URL", global = true, hide_short_help = true)]
    pub server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, value_name = "TOKEN", global = true, hide_short_help = true)]
    pub token: Option<String>,
    /// User name for basic authentication to the API server
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub username: Option<String>,
    /// Password for basic authentication to the API server
    #[arg(long, value_name = "PASSWORD", global = true, hide_short_help = true)]
    pub password: Option<String>,
    /// User to act as
    #[arg(long = "as", value_name = "USER", global = true, hide_short_help = true)]
    pub impersonate: Option<String>,
    /// Group to act as
    #[arg(long = "as-group", value_name = "GROUP", action = ArgAction::Append, global = true, hide_short_help = true)]
    pub impersonate_groups: Vec<String>,
    /// UID to act as
    #[arg(long = "as-uid", value_name = "UID", global = true, hide_short_help = true)]
    pub impersonate_uid: Option<String>,
    /// CA certificates of the API server
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub certificate_authority: Option<PathBuf>,
    /// Client certificate for the API server
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub client_key: Option<PathBuf>,
    /// Name in the API server's certificate
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub tls_server_name: Option<String>,
    /// Do not check the API server's certificate
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", global = true, hide_short_help = true)]
    pub insecure_skip_tls_verify: Option<bool>,
    /// Longest wait for one request to the API server, such as `30s` (default: kubectl's, none)
    #[arg(long, value_name = "TIME", global = true, hide_short_help = true)]
    pub request_timeout: Option<String>,
}
