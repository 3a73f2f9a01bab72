//! How registries are reached: flags and docker's configuration, read.

use super::env::{Environment, names};
use super::misuse::Misuse;
use crate::build::route::Via;
use crate::cli::registry::RegistryArgs;
use crate::registry::Repository;
use crate::registry::proxy::Proxies;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the flags say of one registry, or of all where `host` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// `host[:port]`; empty for all.
    pub host: String,
    /// CA certificates (PEM).
    pub ca: Vec<Vec<u8>>,
    /// It speaks plain HTTP.
    pub plain_http: bool,
    /// Its certificate isn't checked.
    pub insecure: bool,
}

/// How registries are reached.
#[derive(Debug)]
pub struct RegistrySettings {
    /// What the flags say, by registry.
    pub hosts: Vec<HostSettings>,
    /// Docker configurations, strongest first: the text and where it came from.
    pub docker_configs: Vec<(SecretString, String)>,
    /// `--registry-secret`.
    pub secret: Option<String>,
    /// Whose pull secrets hold credentials too.
    pub account: Option<Account>,
    /// `--registry-via`.
    pub via: Via,
    /// The environment's proxies.
    pub proxies: Proxies,
    /// What credential helpers run in.
    pub helper_environment: Vec<(OsString, OsString)>,
    /// The files that `--registry-ca` names, as given, each with its registry (empty for all).
    pub ca_files: Vec<(String, String)>,
    /// The flags as given, for command lines that we print to be run again.
    pub flags: Vec<String>,
}

/// A service account whose pull secrets are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace; the builder's if none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// It is that of the pod that this process runs in, and nobody asked for it: what it may not read is passed over.
    pub own: bool,
}

impl RegistrySettings {
    /// Whether credentials stand in the cluster.
    pub fn needs_cluster(&self) -> bool {
        self.secret.is_some() || self.account.is_some()
    }

    /// Returns, for each registry of these repositories that the flags give one CA file, that file: all that other
    /// tools take.
    pub fn ca_file_of_each(&self, repositories: &[Repository]) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for Repository { registry, .. } in repositories {
            let fits = |(host, _): &&(String, String)| host.is_empty() || host == registry;
            if let [(_, file)] = self.ca_files.iter().filter(fits).collect::<Vec<_>>()[..] {
                files.insert(registry.clone(), file.clone());
            }
        }
        files
    }

    /// Returns what the flags say by registry, those without a host spread over the registries of these
    /// repositories.
    pub fn for_repositories(&self, repositories: &[Repository]) -> Vec<HostSettings> {
        let mut hosts: Vec<HostSettings> = Vec::new();
        for flag in &self.hosts {
            let names: Vec<&str> = match flag.host.as_str() {
                "" => repositories.iter().map(|repository| repository.registry.as_str()).collect(),
                host => vec![host],
            };
            for name in names {
                let host = entry(&mut hosts, name);
                let new: Vec<_> = flag.ca.iter().filter(|pem| !host.ca.contains(pem)).cloned().collect();
                host.ca.extend(new);
                host.plain_http |= flag.plain_http;
                host.insecure |= flag.insecure;
            }
        }
        hosts
    }
}

fn entry<'a>(hosts: &'a mut Vec<HostSettings>, host: &str) -> &'a mut HostSettings {
    let at = hosts.iter().position(|known| known.host == host).unwrap_or_else(|| {
        hosts.push(HostSettings { host: host.to_owned(), ..HostSettings::default() });
        hosts.len() - 1
    });
    &mut hosts[at]
}

/// Resolves the registry flags and reads docker's configuration.
///
/// # Errors
/// Files that can't be read.
pub fn resolve(
    args: RegistryArgs,
    directory: &Path,
    env: &dyn Environment,
) -> Result<RegistrySettings, Misuse> {
    let hosts = hosts(&args.ca, &args.http, &args.insecure, directory)?;
    let mut flags = Vec::new();
    let lists = [
        ("--registry-ca", &args.ca),
        ("--registry-http", &args.http),
        ("--registry-insecure", &args.insecure),
    ];
    for (name, values) in lists {
        flags.extend(values.iter().flat_map(|value| [name.to_owned(), value.clone()]));
    }
    let singles = [
        ("--registry-secret", &args.secret),
        ("--registry-service-account", &args.registry_service_account),
        ("--registry-via", &args.via),
    ];
    for (name, value) in singles {
        flags.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
    }
    let split = |value: &String| {
        let (host, file) = value.split_once('=').unwrap_or(("", value));
        (host.to_owned(), file.to_owned())
    };
    let ca_files = args.ca.iter().map(split).collect();
    let docker_configs = docker_configs(env)?;
    let account = match args.registry_service_account {
        Some(text) => Some(account(&text)?),
        None if docker_configs.is_empty() && args.secret.is_none() => own_account(env),
        None => None,
    };
    Ok(RegistrySettings {
        hosts,
        docker_configs,
        secret: args.secret,
        account,
        via: args.via.as_deref().map_or(Ok(Via::default()), via)?,
        ca_files,
        proxies: proxies(env)?,
        helper_environment: env.all(),
        flags,
    })
}

fn proxies(env: &dyn Environment) -> Result<Proxies, Misuse> {
    let value = |name: &str| {
        let value = env.get_filled(&name.to_uppercase()).or_else(|| env.get_filled(name));
        value.unwrap_or_default()
    };
    let proxy = |name: &'static str| {
        let address = value(name);
        match address.is_empty() || Proxies::takes(&address) {
            true => Ok(address),
            false => Err(Misuse::Proxy(name.to_uppercase())),
        }
    };
    Ok(Proxies::new(&proxy("https_proxy")?, &proxy("http_proxy")?, &value("no_proxy")))
}

fn via(text: &str) -> Result<Via, Misuse> {
    Ok(match text {
        "auto" => Via::Auto,
        "direct" => Via::Direct,
        "service" => Via::Service,
        "builder" => Via::Builder,
        other => {
            let reason = "it is none of auto, direct, service and builder".to_owned();
            return Err(Misuse::Value { name: "--registry-via".to_owned(), value: other.to_owned(), reason });
        }
    })
}

fn account(text: &str) -> Result<Account, Misuse> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, text.to_owned()),
    };
    if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
        let reason = "a service account is written like `NAME` or `NAMESPACE/NAME`".to_owned();
        let name = "--registry-service-account".to_owned();
        return Err(Misuse::Value { name, value: text.to_owned(), reason });
    }
    Ok(Account { namespace, name, own: false })
}

/// Returns the service account of the pod that this process runs in, if it runs in one that has a token of it.
fn own_account(env: &dyn Environment) -> Option<Account> {
    let pod = super::cluster::in_cluster(env)?;
    // Whoever has a kubeconfig means another cluster, perhaps.
    if env.get_os(names::KUBECONFIG).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let token = std::fs::read_to_string(pod.service_account.join("token")).ok()?;
    let subject = subject(&token)?;
    let (namespace, name) = subject.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some(Account { namespace: Some(namespace.to_owned()), name: name.to_owned(), own: true })
}

/// Returns whom a token is for. It is ours: nothing needs to be checked.
fn subject(token: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&payload).ok()?.sub)
}

/// Gathers `[HOST=]FILE` and host flags by registry.
///
/// # Errors
/// Files that can't be read.
pub fn hosts(
    ca: &[String],
    http: &[String],
    insecure: &[String],
    directory: &Path,
) -> Result<Vec<HostSettings>, Misuse> {
    let mut hosts = Vec::new();
    for value in ca {
        let (host, file) = value.split_once('=').unwrap_or(("", value));
        let path = directory.join(file);
        let pem =
            std::fs::read(&path).map_err(|source| Misuse::File { name: "--registry-ca", path, source })?;
        entry(&mut hosts, host).ca.push(pem);
    }
    for host in http {
        entry(&mut hosts, host).plain_http = true;
    }
    for host in insecure {
        entry(&mut hosts, host).insecure = true;
    }
    Ok(hosts)
}

fn docker_configs(env: &dyn Environment) -> Result<Vec<(SecretString, String)>, Misuse> {
    let mut configs = Vec::new();
    if let Some(text) = env.get_filled(names::DOCKER_AUTH_CONFIG) {
        configs.push((SecretString::from(text), names::DOCKER_AUTH_CONFIG.to_owned()));
    }
    let directory = match env.get_os(names::DOCKER_CONFIG).filter(|value| !value.is_empty()) {
        Some(directory) => Some(PathBuf::from(directory)),
        None => env
            .get_os(names::HOME)
            .filter(|home| !home.is_empty())
            .map(|home| PathBuf::from(home).join(".docker")),
    };
    if let Some(path) = directory.map(|directory| directory.join("config.json")) {
        match std::fs::read_to_string(&path) {
            Ok(text) => configs.push((SecretString::from(text), path.display().to_string())),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) => {}
            Err(source) => return Err(Misuse::File { name: "docker's configuration", path, source }),
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_token_names_its_account() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"x","sub":"system:serviceaccount:ci:builder"}"#);
        assert_eq!(
            subject(&format!("e30.{claims}.sig\n")).as_deref(),
            Some("system:serviceaccount:ci:builder")
        );
        assert_eq!(subject("not a token"), None);
    }

    #[test]
    fn accounts_and_ways_are_what_they_may_be() {
        let named = |namespace: Option<&str>| Account {
            namespace: namespace.map(str::to_owned),
            name: "puller".to_owned(),
            own: false,
        };
        assert_eq!(account("puller").unwrap(), named(None));
        assert_eq!(account("ci/puller").unwrap(), named(Some("ci")));
        for wrong in ["", "/puller", "ci/", "a/b/c"] {
            assert!(account(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(via("service").unwrap(), Via::Service);
        let wrong = via("proxy").unwrap_err().to_string();
        assert!(wrong.contains("--registry-via") && wrong.contains("none of auto"), "{wrong}");
    }
}
