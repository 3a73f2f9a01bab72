//! How registries are reached: flags and docker's configuration, read.

use super::env::{Environment, names};
use super::misuse::Misuse;
use crate::cli::registry::RegistryArgs;
use crate::registry::Repository;
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
    /// What credential helpers run in.
    pub helper_environment: Vec<(OsString, OsString)>,
    /// The files that `--registry-ca` names, as given, each with its registry (empty for all).
    pub ca_files: Vec<(String, String)>,
    /// The flags as given, for command lines that we print to be run again.
    pub flags: Vec<String>,
}

impl RegistrySettings {
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
    flags.extend(args.secret.iter().flat_map(|secret| ["--registry-secret".to_owned(), secret.clone()]));
    let split = |value: &String| {
        let (host, file) = value.split_once('=').unwrap_or(("", value));
        (host.to_owned(), file.to_owned())
    };
    let ca_files = args.ca.iter().map(split).collect();
    Ok(RegistrySettings {
        hosts,
        docker_configs: docker_configs(env)?,
        secret: args.secret,
        ca_files,
        helper_environment: env.all(),
        flags,
    })
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
