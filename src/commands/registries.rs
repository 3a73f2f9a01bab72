//! Makes the registry client: credentials from the Secret and docker's configuration, connection settings from the
//! flags and from the builder, which was configured for the same registries.

use super::failure::Failure;
use crate::build::route::{Cluster, Router, Through, Ways};
use crate::cluster::buildkitd::RegistrySettings as BuilderRegistries;
use crate::cluster::{self, ConnectOptions, Connection};
use crate::config;
use crate::config::registry::{Account, HostSettings, RegistrySettings};
use crate::event::Events;
use crate::registry::credentials::{Document, HelperEnvironment, Resolver};
use crate::registry::{Client, HostOptions, Options, Repository};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// The key of a Secret of type kubernetes.io/dockerconfigjson.
const DOCKER_CONFIG_JSON: &str = ".dockerconfigjson";
/// The key of a Secret of type kubernetes.io/dockercfg.
const DOCKER_CFG: &str = ".dockercfg";

/// Our own client and the credentials behind it.
pub(super) struct Registries {
    /// For our own calls.
    pub(super) client: Client,
    /// For the daemon's.
    pub(super) resolver: Arc<Resolver>,
    /// What is special about some of them.
    pub(super) hosts: Vec<HostOptions>,
    /// How they are reached.
    pub(super) router: Arc<Router>,
}

/// The cluster and the builder that lead to registries which only they reach.
pub(super) struct Passable<'a> {
    /// The connection, if there is one already.
    pub(super) connection: Option<&'a Connection>,
    /// How to connect when that is needed.
    pub(super) options: &'a ConnectOptions,
    /// The builder.
    pub(super) through: Through,
    /// Whom it is told to.
    pub(super) events: Events,
}

/// Makes the client.
///
/// # Errors
/// Documents and certificates that are none, a Secret that can't be read.
pub(super) async fn open(
    settings: &RegistrySettings,
    passable: Passable<'_>,
    builder: &BuilderRegistries,
    repositories: &[Repository],
) -> Result<Registries, Failure> {
    let Passable { connection: cluster, options: connect, through, events } = passable;
    let mut documents = Vec::new();
    if let Some(name) = &settings.secret {
        let cluster = cluster.ok_or_else(|| Failure::secret_without_cluster(name))?;
        let namespace = cluster.namespace().to_owned();
        let entries = cluster::secret::read(cluster, &namespace, name).await;
        let entries =
            entries.map_err(|error| Failure::secret(&format!("k8s://{namespace}/{name}"), error))?;
        let Some(config) = entries.get(DOCKER_CONFIG_JSON) else {
            return Err(Failure::not_a_docker_secret(&namespace, name));
        };
        let document = Document::parse(format!("Secret {namespace}/{name}"), config.expose_secret());
        documents.push(document.map_err(Failure::credentials)?);
    }
    if let (Some(account), Some(cluster)) = (&settings.account, cluster) {
        documents.extend(of_account(account, cluster).await?);
    }
    for (text, name) in &settings.docker_configs {
        let document = Document::parse(name.clone(), text.expose_secret().as_bytes());
        documents.push(document.map_err(Failure::credentials)?);
    }
    let variables = settings.helper_environment.clone();
    let path =
        variables.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone()).unwrap_or_default();
    let environment = HelperEnvironment { path, variables, ..HelperEnvironment::default() };
    let resolver = Arc::new(Resolver::new(documents, environment));
    let mut options = Options::new(Arc::clone(&resolver));
    let hosts = merge(&settings.for_repositories(repositories), builder);
    options.hosts.clone_from(&hosts);
    let reached = match cluster {
        Some(connection) => Cluster::Known(connection.clone()),
        None => Cluster::Options(Box::new(connect.clone())),
    };
    let router = Arc::new(Router::new(settings.via, reached, through, settings.proxies.clone(), events));
    options.connector = Arc::new(Ways(Arc::clone(&router)));
    let client = Client::new(options).map_err(Failure::registry_options)?;
    Ok(Registries { client, resolver, hosts, router })
}

/// Reads the credentials that a service account's pods would pull with.
async fn of_account(account: &Account, cluster: &Connection) -> Result<Vec<Document>, Failure> {
    let Account { namespace, name, own } = account;
    let namespace = namespace.as_deref().unwrap_or(cluster.namespace());
    let secrets = match cluster::account::secrets(cluster, namespace, name).await {
        Ok(secrets) => secrets,
        Err(error) if *own => {
            tracing::debug!(%error, "no credentials from the pod's own service account");
            return Ok(Vec::new());
        }
        Err(error) => return Err(Failure::cluster(error)),
    };
    let mut documents = Vec::new();
    for (secret, content) in secrets {
        let title = || format!("Secret {namespace}/{secret} of service account {name}");
        // An account's other Secrets, such as its token, are none.
        let document = match (content.get(DOCKER_CONFIG_JSON), content.get(DOCKER_CFG)) {
            (Some(config), _) => Document::parse(title(), config.expose_secret()),
            (None, Some(config)) => Document::parse_dockercfg(title(), config.expose_secret()),
            (None, None) => continue,
        };
        documents.push(document.map_err(Failure::credentials)?);
    }
    if documents.is_empty() && !own {
        return Err(Failure::no_pull_secrets(namespace, name));
    }
    Ok(documents)
}

/// Returns the builder that `sign` and `verify` may go through: the one that was named, or the default one.
pub(super) fn through(builder: Option<&str>) -> Through {
    Through::Named(builder.unwrap_or(config::builder::DEFAULT_NAME).to_owned())
}

/// Reads the settings of a builder that was named, so that its registries are ours too.
///
/// # Errors
/// No such builder, or the cluster's trouble.
pub(super) async fn of_builder(
    name: Option<&str>,
    cluster: Option<&Connection>,
) -> Result<BuilderRegistries, Failure> {
    match (name, cluster) {
        (Some(name), Some(cluster)) => {
            cluster::builder::registries(cluster, name).await.map_err(Failure::cluster)
        }
        _ => Ok(BuilderRegistries::default()),
    }
}

/// Returns the registries that the daemon must be told to loosen its checks for, with each push: those that the flags
/// name and its own configuration doesn't.
pub(super) fn to_loosen(flags: &[HostSettings], builder: &BuilderRegistries) -> Vec<String> {
    let told = |flag: &&HostSettings| {
        let own = builder.hosts.get(&flag.host);
        flag.plain_http && !own.is_some_and(|own| own.http)
            || flag.insecure && !own.is_some_and(|own| own.insecure)
    };
    flags.iter().filter(told).map(|flag| flag.host.clone()).collect()
}

/// Merges what the flags and the builder say of each registry.
fn merge(flags: &[HostSettings], builder: &BuilderRegistries) -> Vec<HostOptions> {
    let mut hosts: Vec<HostOptions> = builder
        .hosts
        .iter()
        .map(|(host, settings)| HostOptions {
            host: host.clone(),
            ca_pem: settings.ca_pem.clone(),
            plain_http: settings.http,
            insecure_skip_verify: settings.insecure,
        })
        .collect();
    for flag in flags {
        let at = hosts.iter().position(|host| host.host == flag.host).unwrap_or_else(|| {
            hosts.push(HostOptions { host: flag.host.clone(), ..HostOptions::default() });
            hosts.len() - 1
        });
        let host = &mut hosts[at];
        let new = flag.ca.iter().filter(|pem| !host.ca_pem.contains(pem)).cloned().collect::<Vec<_>>();
        host.ca_pem.extend(new);
        host.plain_http |= flag.plain_http;
        host.insecure_skip_verify |= flag.insecure;
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_builder_share_one_configuration() {
        let mut builder = BuilderRegistries::default();
        builder.hosts.entry("r.example".to_owned()).or_default().ca_pem.push(b"builder".to_vec());
        let ca = |host: &str| HostSettings {
            host: host.to_owned(),
            ca: vec![b"flag".to_vec()],
            ..HostSettings::default()
        };
        let http = HostSettings { host: "h.example".to_owned(), plain_http: true, ..HostSettings::default() };
        let hosts = merge(&[ca("r.example"), ca("s.example"), http], &builder);
        let of = |name: &str| hosts.iter().find(|host| host.host == name).expect(name);
        assert_eq!(of("r.example").ca_pem, [b"builder".to_vec(), b"flag".to_vec()]);
        assert_eq!(of("s.example").ca_pem, [b"flag".to_vec()]);
        assert!(of("h.example").plain_http && of("h.example").ca_pem.is_empty());
    }

    #[test]
    fn a_builder_is_told_only_what_it_does_not_know() {
        let mut builder = BuilderRegistries::default();
        builder.hosts.entry("known.example".to_owned()).or_default().http = true;
        let flag = |host: &str, plain_http, insecure| HostSettings {
            host: host.to_owned(),
            plain_http,
            insecure,
            ..HostSettings::default()
        };
        let flags = [
            flag("known.example", true, false),
            flag("new.example", true, false),
            flag("ca.example", false, false),
        ];
        assert_eq!(to_loosen(&flags, &builder), ["new.example"]);
        assert_eq!(to_loosen(&[flag("known.example", true, true)], &builder), ["known.example"]);
    }
}
