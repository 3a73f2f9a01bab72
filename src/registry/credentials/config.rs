//! The docker config format: docker/cli `cli/config/configfile`, with the paths and wildcards that
//! containers-auth.json(5) and Kubernetes image pull secrets allow in its keys.

use super::{Credential, CredentialError};
use crate::registry::reference::DOCKER_HUB;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Docker writes padding, people who make the value by hand forget it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A docker config that was read.
#[derive(Debug)]
pub struct Document {
    name: String,
    auths: Vec<(Key, Entry)>,
    helpers: Vec<(Key, String)>,
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
pub(super) struct Entry {
    auth: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
    identitytoken: Option<SecretString>,
    registrytoken: Option<SecretString>,
}

/// An `auth` value that cannot be read; the value itself is a secret.
#[derive(Debug)]
pub(super) struct BadAuth;

/// A place to look in.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// A helper by its short name.
    Helper(&'a str),
    /// A key of `auths` and its entry.
    Entry(&'a str, &'a Entry),
}

/// A key of `auths` or `credHelpers`.
#[derive(Debug)]
struct Key {
    written: String,
    host: String,
    path: String,
}

impl Document {
    /// Reads a docker config: `config.json`, `auth.json`, or a Secret's `.dockerconfigjson`. `name` stands in
    /// messages. An empty file is an empty config.
    ///
    /// # Errors
    /// If it is not JSON of that shape.
    pub fn parse(name: impl Into<String>, json: &[u8]) -> Result<Self, CredentialError> {
        let name = name.into();
        if json.trim_ascii().is_empty() {
            return Ok(Self { name, auths: Vec::new(), helpers: Vec::new(), store: None });
        }
        let file: File = read(&name, json)?;
        let auths = entries(file.auths.unwrap_or_default());
        let helpers = file.cred_helpers.unwrap_or_default().into_iter();
        let helpers = helpers.filter(|(_, name)| !name.is_empty()).map(|(key, name)| (Key::new(key), name));
        let store = file.creds_store.filter(|store| !store.is_empty());
        Ok(Self { name, auths, helpers: helpers.collect(), store })
    }

    /// Reads the older form, a Secret's `.dockercfg`: only what stands under `auths` otherwise.
    ///
    /// # Errors
    /// If it is not JSON of that shape.
    pub fn parse_dockercfg(name: impl Into<String>, json: &[u8]) -> Result<Self, CredentialError> {
        let name = name.into();
        let auths = entries(read(&name, json)?);
        Ok(Self { name, auths, helpers: Vec::new(), store: None })
    }

    /// Returns the name that messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns every place that may know something of a host, whatever the path.
    pub(super) fn origins_of_host<'a>(&'a self, host: &str) -> Vec<Origin<'a>> {
        let entries = self.auths.iter().filter(|(key, _)| key.fits_host(host));
        let entries = entries.map(|(key, entry)| Origin::Entry(&key.written, entry));
        let helpers = self.helpers.iter().filter(|(key, _)| key.fits_host(host));
        let helpers = helpers.map(|(_, helper)| helper).chain(&self.store);
        entries.chain(helpers.map(|helper| Origin::Helper(helper))).collect()
    }

    /// Returns where to look for a host and path, the best place first, each with the length of the path that it is for.
    pub(super) fn origins<'a>(&'a self, host: &str, path: &str) -> Vec<(usize, Origin<'a>)> {
        let mut found = Vec::new();
        for (key, helper) in &self.helpers {
            if let Some(weight) = key.weight(host, path) {
                found.push((weight, 0, Origin::Helper(helper)));
            }
        }
        if let Some(store) = &self.store {
            found.push(((0, true), 1, Origin::Helper(store)));
        }
        for (key, entry) in &self.auths {
            if let Some(weight) = key.weight(host, path) {
                found.push((weight, 2, Origin::Entry(&key.written, entry)));
            }
        }
        found.sort_by_key(|((length, exact), rank, _)| (Reverse(*length), *rank, Reverse(*exact)));
        found.into_iter().map(|((length, _), _, origin)| (length, origin)).collect()
    }
}

fn read<'de, T: Deserialize<'de>>(name: &str, json: &'de [u8]) -> Result<T, CredentialError> {
    serde_json::from_slice(json)
        .map_err(|source| CredentialError::Document { document: name.to_owned(), source })
}

fn entries(auths: BTreeMap<String, Option<Entry>>) -> Vec<(Key, Entry)> {
    auths.into_iter().map(|(key, entry)| (Key::new(key), entry.unwrap_or_default())).collect()
}

impl Entry {
    /// Returns what the entry says; none if it is empty.
    pub(super) fn credential(&self) -> Result<Option<Credential>, BadAuth> {
        let filled = |secret: &Option<SecretString>| secret.clone().filter(|s| !s.expose_secret().is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            return Ok(Some(split(auth.expose_secret())?));
        }
        let (Some(username), Some(password)) = (&self.username, filled(&self.password)) else {
            return Ok(None);
        };
        Ok(Some(Credential::Basic { username: username.clone(), password }))
    }
}

/// Passwords may hold colons, user names may not: the first colon counts. Docker drops NULs at the end.
fn split(auth: &str) -> Result<Credential, BadAuth> {
    let bytes = BASE64.decode(auth.trim()).map_err(|_| BadAuth)?;
    let text = String::from_utf8(bytes).map_err(|_| BadAuth)?;
    let (username, password) = text.split_once(':').ok_or(BadAuth)?;
    let password = SecretString::from(password.trim_end_matches('\0'));
    Ok(Credential::Basic { username: username.to_owned(), password })
}

impl Key {
    fn new(written: String) -> Self {
        let bare = written.split_once("://").map_or(written.as_str(), |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_end_matches('/');
        // `https://host/v1/` is how docker once wrote a whole host.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Self { host: canonical_host(host), path: path.to_owned(), written }
    }

    /// Returns how well the key fits: the length of its path, and whether its host has no wildcard.
    fn weight(&self, host: &str, path: &str) -> Option<(usize, bool)> {
        if !self.fits_host(host) {
            return None;
        }
        let rest = path.strip_prefix(self.path.as_str())?;
        let at_boundary = self.path.is_empty() || rest.is_empty() || rest.starts_with('/');
        at_boundary.then_some((self.path.len(), self.host == host))
    }

    fn fits_host(&self, host: &str) -> bool {
        self.host == host || wildcard(&self.host, host)
    }
}

/// Returns the host in lower case, and Docker Hub under one name.
pub(super) fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB.to_owned(),
        _ => host,
    }
}

/// Kubernetes' rule ("config.json interpretation" of image pull secrets): `*` stands for anything within one
/// label; ports and the number of labels must be the same.
fn wildcard(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return false;
    }
    let (pattern, port) = pattern.split_once(':').unwrap_or((pattern, ""));
    let (host, host_port) = host.split_once(':').unwrap_or((host, ""));
    let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    port == host_port
        && pattern.len() == host.len()
        && pattern.iter().zip(&host).all(|(p, h)| label_fits(p, h))
}

fn label_fits(pattern: &str, label: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == label };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = label.strip_prefix(head).and_then(|label| label.strip_suffix(tail));
    let Some(mut inner) = inner else { return false };
    // Each part where it first occurs: a later place would leave less to those that follow.
    middle.split('*').all(|part| match inner.find(part) {
        Some(at) => {
            inner = &inner[at + part.len()..];
            true
        }
        None => false,
    })
}
