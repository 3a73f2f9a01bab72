//! Flags about registries, shared by `build`, `sign` and `verify`.

use clap::{ArgAction, Args};

/// How registries are reached. On `create` these become the builder's own configuration.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// CA certificates (PEM file) for a registry; without `HOST=` for all
    #[arg(long = "registry-ca", value_name = "[HOST=]FILE", action = ArgAction::Append)]
    pub ca: Vec<String>,
    /// Registry that speaks plain HTTP
    #[arg(long = "registry-http", value_name = "HOST", action = ArgAction::Append)]
    pub http: Vec<String>,
    /// Registry whose certificate is not checked
    #[arg(long = "registry-insecure", value_name = "HOST", action = ArgAction::Append)]
    pub insecure: Vec<String>,
    /// Secret of type kubernetes.io/dockerconfigjson with credentials for pull, push and signatures
    #[arg(long = "registry-secret", value_name = "SECRET")]
    pub secret: Option<String>,
    /// Service account whose pull secrets hold credentials too (in a pod without docker's configuration: the pod's own)
    #[arg(long = "registry-service-account", value_name = "[NAMESPACE/]NAME")]
    pub registry_service_account: Option<String>,
    /// How registries are reached: `auto` (default: from here, and through the cluster where only it knows the name), `direct`, `service` (a port of the Service's pod) or `builder` (from the builder's pod)
    #[arg(long = "registry-via", value_name = "WAY")]
    pub via: Option<String>,
}
