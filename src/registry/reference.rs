//! Names of images: `[registry/]path[:tag][@digest]`, normalised as docker does.
//!
//! The grammar is the one of github.com/distribution/reference, and the unit tests compare with oci-client's
//! parser. It is written by hand because a compiled pattern with a counted `\w` costs 0.15 s and 18 MB at the
//! start of each run, and also lets tags through that no registry takes.

use super::{Digest, digest::DigestError};
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
pub const DOCKER_HUB: &str = "docker.io";
const PATH_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// Why a text names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("invalid reference `{input}`: {problem}")]
pub struct ReferenceError {
    /// What was to be read.
    pub input: String,
    /// What is wrong with it.
    pub problem: ReferenceProblem,
}

/// What is wrong with a reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ReferenceProblem {
    /// Nothing before the tag.
    #[error("the repository is missing")]
    Empty,
    /// `https://…`.
    #[error("write it without `{0}://`")]
    Scheme(String),
    /// Upper case in the path.
    #[error("the repository `{0}` must be lower case")]
    Uppercase(String),
    /// The registry is neither a name nor an address.
    #[error("`{0}` is no registry host")]
    Registry(String),
    /// A part of the path breaks the grammar.
    #[error(
        "`{0}` is no repository name (letters a-z and digits, with single `.`, `_`, `__` or any `-` between)"
    )]
    Path(String),
    /// The path is longer than registries take.
    #[error("the repository is longer than {PATH_MAX} characters")]
    PathTooLong,
    /// 64 hexadecimal digits, which docker takes for an image id.
    #[error("64 hexadecimal digits would be taken for an image id")]
    LooksLikeId,
    /// The tag breaks the grammar.
    #[error(
        "`{0}` is no tag (up to {TAG_MAX} letters, digits, `_`, `.` and `-`, not starting with `.` or `-`)"
    )]
    Tag(String),
    /// The digest breaks the grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag or digest where a repository was asked for.
    #[error("a repository is wanted here, without tag or digest")]
    NotBare,
}

/// A place in a registry where manifests and blobs live.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// Host, with the port where one was given; `docker.io` for Docker Hub under each of its names.
    pub registry: String,
    /// The path below it, such as `library/app`.
    pub path: String,
}

impl Repository {
    /// Returns what cosign writes as docker-reference: the same name, but Docker Hub as `index.docker.io`
    /// (go-containerregistry's `name.DefaultRegistry`).
    pub fn signing_name(&self) -> String {
        match self.registry.as_str() {
            DOCKER_HUB => format!("index.docker.io/{}", self.path),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let reference: Reference = text.parse()?;
        match (reference.tag, reference.digest) {
            (None, None) => Ok(reference.repository),
            _ => Err(ReferenceError { input: text.to_owned(), problem: ReferenceProblem::NotBare }),
        }
    }
}

/// The name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where it lives.
    pub repository: Repository,
    /// The tag, if one was written.
    pub tag: Option<String>,
    /// The digest, if one was written.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns the tag, `latest` when neither tag nor digest was written, as docker has it.
    pub fn tag_or_latest(&self) -> Option<&str> {
        self.tag.as_deref().or_else(|| self.digest.is_none().then_some("latest"))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| ReferenceError { input: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<Reference, ReferenceProblem> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(ReferenceProblem::Scheme(scheme.to_owned()));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        Some(colon) => {
            let (name, tag) = rest.split_at(after_slash + colon);
            (name, Some(checked_tag(&tag[1..])?))
        }
        None => (rest, None),
    };
    Ok(Reference { repository: repository(name)?, tag, digest })
}

fn repository(name: &str) -> Result<Repository, ReferenceProblem> {
    if name.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (checked_registry(first)?, path.to_owned()),
        Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
        None if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            return Err(ReferenceProblem::LooksLikeId);
        }
        None => (DOCKER_HUB.to_owned(), name.to_owned()),
    };
    let path = match registry == DOCKER_HUB && !path.contains('/') && !path.is_empty() {
        true => format!("library/{path}"),
        false => path,
    };
    check_path(&path)?;
    Ok(Repository { registry, path })
}

/// Docker's rule: the first part is a registry if no path component could look like it.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.chars().any(|letter| letter.is_ascii_uppercase())
}

fn checked_registry(host: &str) -> Result<String, ReferenceProblem> {
    let wrong = || ReferenceProblem::Registry(host.to_owned());
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match port {
                "" => (None, None),
                _ => (None, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !name.is_none_or(|name| name.split('.').all(label)) || !port.is_none_or(digits) {
        return Err(wrong());
    }
    Ok(match host {
        "index.docker.io" => DOCKER_HUB.to_owned(),
        _ => host.to_owned(),
    })
}

fn check_path(path: &str) -> Result<(), ReferenceProblem> {
    if path.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    if path.len() > PATH_MAX {
        return Err(ReferenceProblem::PathTooLong);
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceProblem::Uppercase(path.to_owned()));
    }
    match path.split('/').find(|component| !is_component(component)) {
        Some(component) => Err(ReferenceProblem::Path(component.to_owned())),
        None => Ok(()),
    }
}

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends =
        bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    ends && bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn checked_tag(tag: &str) -> Result<String, ReferenceProblem> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let valid = bytes.len() <= TAG_MAX
        && bytes.first().copied().is_some_and(word)
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
    match valid {
        true => Ok(tag.to_owned()),
        false => Err(ReferenceProblem::Tag(tag.to_owned())),
    }
}

#[cfg(test)]
mod tests;
