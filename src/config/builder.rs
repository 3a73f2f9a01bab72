//! Which builder a build uses, and what `create` makes.

use super::duration;
use super::env::{Environment, names};
use super::misuse::Misuse;
use super::{registry, source};
use crate::buildkit::{Address, DialError};
use crate::cli::build::BuilderArgs;
use crate::cli::buildkit::CreateArgs;
use crate::cluster::builder::{BuilderSpec, ModeChoice, NAME_LIMIT};
use crate::cluster::buildkitd::RegistrySettings;
use crate::sign::key::KeyReference;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The builder's name where nobody says one.
pub const DEFAULT_NAME: &str = "buildkit";
/// The longest wait for a builder where nobody says one.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Which builder a build uses.
#[derive(Clone, Debug)]
pub struct BuilderSettings {
    /// Where it is.
    pub place: Place,
    /// The longest wait for it to be ready.
    pub timeout: Duration,
}

/// Where a builder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the cluster, by name; made on first use, of this image if not the default one.
    Cluster {
        /// The builder's name.
        name: String,
        /// `--builder-image`.
        image: Option<String>,
    },
    /// Behind a unix socket.
    Unix(PathBuf),
    /// At a TCP address.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// With TLS, if any of its flags was given.
        tls: Option<Tls>,
    },
}

/// The PEM texts of a TLS connection, read from their files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tls {
    /// CA certificates; the system's where absent.
    pub ca: Option<Vec<u8>>,
    /// Client certificate and its key's file.
    pub client: Option<(Vec<u8>, PathBuf)>,
    /// Name in the server's certificate.
    pub server_name: Option<String>,
}

/// Resolves the builder's arguments.
///
/// # Errors
/// Names and addresses that can't be, flags that don't go together, files that can't be read.
pub fn resolve(
    args: BuilderArgs,
    directory: &Path,
    env: &dyn Environment,
) -> Result<BuilderSettings, Misuse> {
    let timeout = timeout(args.builder_timeout.as_deref())?;
    let builder = source::resolve(args.builder, "--builder", env, names::BUILDER, DEFAULT_NAME);
    let read = |name: &'static str, path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let path = directory.join(path);
        std::fs::read(&path).map(Some).map_err(|source| Misuse::File { name, path, source })
    };
    let tls_flag = [
        ("--builder-tls-ca", args.builder_tls_ca.is_some()),
        ("--builder-tls-cert", args.builder_tls_cert.is_some()),
        ("--builder-tls-key", args.builder_tls_key.is_some()),
        ("--builder-tls-server-name", args.builder_tls_server_name.is_some()),
    ];
    let tls_flag = tls_flag.into_iter().find(|(_, given)| *given).map(|(name, _)| name);
    let text = builder.value.as_str();
    if !text.contains("://") {
        if let Some(flag) = tls_flag {
            return Err(Misuse::TlsWithoutTcp(flag));
        }
        let name = name(text, &builder.source.to_string())?;
        let image = args.builder_image.or_else(|| env.get_filled(names::BUILDER_IMAGE));
        return Ok(BuilderSettings { place: Place::Cluster { name, image }, timeout });
    }
    let invalid = |error: DialError| Misuse::Value {
        name: builder.source.to_string(),
        value: text.to_owned(),
        reason: error.to_string(),
    };
    let place = match text.parse::<Address>().map_err(invalid)? {
        Address::Unix(path) => match tls_flag {
            Some(flag) => return Err(Misuse::TlsWithoutTcp(flag)),
            None => Place::Unix(path),
        },
        Address::Tcp { host, port } => {
            if args.builder_tls_cert.is_some() != args.builder_tls_key.is_some() {
                return Err(Misuse::TlsPair);
            }
            let tls = match tls_flag {
                None => None,
                Some(_) => {
                    let cert = read("--builder-tls-cert", &args.builder_tls_cert)?;
                    // The key is read by whoever uses it, so that it stands in no settings; here only whether it is there.
                    read("--builder-tls-key", &args.builder_tls_key)?;
                    let key = args.builder_tls_key.as_ref().map(|path| directory.join(path));
                    let ca = read("--builder-tls-ca", &args.builder_tls_ca)?;
                    Some(Tls { ca, client: cert.zip(key), server_name: args.builder_tls_server_name })
                }
            };
            Place::Tcp { host, port, tls }
        }
    };
    Ok(BuilderSettings { place, timeout })
}

/// Resolves `create`'s arguments into what the builder is to be.
///
/// # Errors
/// Names and modes that can't be, files that can't be read.
pub fn spec(args: CreateArgs, directory: &Path, env: &dyn Environment) -> Result<BuilderSpec, Misuse> {
    let name = name(args.name.as_deref().unwrap_or(DEFAULT_NAME), "NAME")?;
    let mode = args.mode.as_deref().unwrap_or("auto");
    let mode = mode.parse::<ModeChoice>().map_err(|error| Misuse::Value {
        name: "--mode".to_owned(),
        value: mode.to_owned(),
        reason: error.to_string(),
    })?;
    let config = match args.config {
        None => None,
        Some(path) => {
            let path = directory.join(path);
            let failed = |source| Misuse::File { name: "--config", path: path.clone(), source };
            Some(std::fs::read_to_string(&path).map_err(failed)?)
        }
    };
    let mut registries = registries(&registry::hosts(
        &args.registry.ca,
        &args.registry.http,
        &args.registry.insecure,
        directory,
    )?)?;
    for value in &args.mirrors {
        let (host, mirror) = value
            .split_once('=')
            .filter(|(host, mirror)| !host.is_empty() && !mirror.is_empty())
            .ok_or_else(|| {
                let reason = "it is written HOST=MIRROR".to_owned();
                Misuse::Value { name: "--registry-mirror".to_owned(), value: value.clone(), reason }
            })?;
        registries.hosts.entry(host.to_owned()).or_default().mirrors.push(mirror.to_owned());
    }
    registries.builder_key = args.builder_key.map(|key| shared_key(&key, "--builder-key")).transpose()?;
    let image = args.image.or_else(|| env.get_filled(names::BUILDER_IMAGE));
    let custom_config = args.custom_config;
    let timeout = timeout(args.builder_timeout.as_deref())?;
    let emulate = args.emulate;
    Ok(BuilderSpec {
        image,
        mode,
        emulate,
        config,
        custom_config,
        registries,
        ..BuilderSpec::named(name, timeout)
    })
}

/// Checks the reference of a builder's key: everyone who builds there must be able to reach it, with rights of his own.
///
/// # Errors
/// A file or variable of one machine, or what is no key at all.
pub fn shared_key(text: &str, said_by: &str) -> Result<String, Misuse> {
    let invalid = |value: String, reason: String| Misuse::Value { name: said_by.to_owned(), value, reason };
    match text.parse::<KeyReference>() {
        Err(error) => Err(invalid(error.redact(text), error.to_string())),
        Ok(KeyReference::File(_) | KeyReference::Environment(_)) => {
            let reason = "a builder's key is one that all its users can reach: `k8s://NAMESPACE/SECRET` or a key service";
            Err(invalid(text.to_owned(), reason.to_owned()))
        }
        Ok(key) => Ok(key.to_string()),
    }
}

/// Turns registry flags into a builder's settings. There every CA belongs to a host.
///
/// # Errors
/// `--registry-ca` without a host.
pub fn registries(hosts: &[registry::HostSettings]) -> Result<RegistrySettings, Misuse> {
    let mut settings = RegistrySettings::default();
    for flag in hosts {
        if flag.host.is_empty() {
            let reason = "a builder's CA is for one registry: write HOST=FILE".to_owned();
            return Err(Misuse::Value { name: "--registry-ca".to_owned(), value: String::new(), reason });
        }
        let host = settings.hosts.entry(flag.host.clone()).or_default();
        host.ca_pem.extend(flag.ca.iter().cloned());
        host.http |= flag.plain_http;
        host.insecure |= flag.insecure;
    }
    Ok(settings)
}

/// Checks a builder's name: it becomes part of the names of Kubernetes objects.
///
/// # Errors
/// A name that Kubernetes would refuse.
pub fn name(name: &str, said_by: &str) -> Result<String, Misuse> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let chars = || name.chars();
    if name.len() <= NAME_LIMIT && chars().all(inner) && edge(chars().next()) && edge(chars().last()) {
        return Ok(name.to_owned());
    }
    let reason = format!(
        "a builder's name is at most {NAME_LIMIT} of a-z, 0-9 and `-`, and begins and ends with a letter or digit"
    );
    Err(Misuse::Value { name: said_by.to_owned(), value: name.to_owned(), reason })
}

/// Parses `--builder-timeout`.
///
/// # Errors
/// Text that is no time.
pub fn timeout(flag: Option<&str>) -> Result<Duration, Misuse> {
    let Some(text) = flag else { return Ok(DEFAULT_TIMEOUT) };
    duration::parse(text).filter(|time| !time.is_zero()).ok_or_else(|| {
        let reason = "a time is written like `90s` or `5m`".to_owned();
        Misuse::Value { name: "--builder-timeout".to_owned(), value: text.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;
    use clap::Parser as _;

    #[test]
    fn the_flag_names_the_image_of_a_builder_that_has_to_be_made_over_the_variable() {
        let image = |arguments: &[&str], env: Fixed| {
            let line = ["kubectl build"].iter().chain(arguments).chain(&["."]);
            let parsed = crate::cli::build::BuildArgs::try_parse_from(line).expect("arguments");
            match resolve(parsed.builder, Path::new("/"), &env).expect("settings").place {
                Place::Cluster { image, .. } => image,
                other => panic!("{other:?}"),
            }
        };
        let variable = || Fixed::new([("KUBECTL_BUILD_BUILDER_IMAGE", "r.example/variable:1")]);
        let flag = ["--builder-image", "r.example/flag:1"];
        assert_eq!(image(&flag, variable()).as_deref(), Some("r.example/flag:1"));
        assert_eq!(image(&[], variable()).as_deref(), Some("r.example/variable:1"));
        assert_eq!(image(&[], Fixed::default()), None);
    }
}
