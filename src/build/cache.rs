//! Caches beside the builder's own: those that a build begins from, and those that it leaves behind. Pure.

use super::plan::Share;
use crate::buildkit::solve::CacheEntry;
use crate::registry::{Reference, Repository};
use serde_json::json;
use std::collections::BTreeMap;

/// The caches of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Where it begins from; what is not there is passed over by the daemon.
    pub from: Vec<Reference>,
    /// What it leaves.
    pub to: Vec<CacheExport>,
}

/// A cache that a build leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheExport {
    /// In the image's own configuration.
    Inline,
    /// Beside the image, in a registry.
    Registry {
        /// Its name; a tag is always part of it.
        to: Reference,
        /// Further attributes, as the daemon has them (buildkit README, "Registry (push image and cache separately)").
        settings: BTreeMap<String, String>,
    },
}

impl CacheExport {
    /// Returns its name, if it has one of its own.
    pub fn name(&self) -> Option<&Reference> {
        match self {
            Self::Inline => None,
            Self::Registry { to, .. } => Some(to),
        }
    }

    /// Whether the build succeeds without it.
    fn may_fail(&self) -> bool {
        matches!(self, Self::Registry { settings, .. } if settings.get("ignore-error").is_some_and(|it| it == "true"))
    }
}

impl Caches {
    /// Returns the repositories that have to take a cache, or the build fails.
    pub fn needed(&self) -> impl Iterator<Item = &Repository> {
        let needed = self.to.iter().filter(|export| !export.may_fail());
        needed.filter_map(CacheExport::name).map(|name| &name.repository)
    }

    /// Returns the repositories that a cache is written to.
    pub fn written(&self) -> impl Iterator<Item = &Repository> {
        self.to.iter().filter_map(CacheExport::name).map(|name| &name.repository)
    }

    /// Returns all repositories that caches are in.
    pub fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.written().chain(self.from.iter().map(|from| &from.repository))
    }

    /// Returns what the daemon of a share imports. Registries with loosened checks are named to it with each cache.
    pub(super) fn imports(&self, share: Share<'_>, insecure_hosts: &[String]) -> Vec<CacheEntry> {
        let names = self.from.iter().flat_map(|from| {
            // What several builders left, one may have left before, too.
            [Some(from.clone()), own(from, share.joined)].into_iter().flatten()
        });
        names.map(|name| entry(&name, &BTreeMap::new(), insecure_hosts)).collect()
    }

    /// Returns what the daemon of a share exports.
    pub(super) fn exports(&self, share: Share<'_>, insecure_hosts: &[String]) -> Vec<CacheEntry> {
        let export = |export: &CacheExport| match export {
            CacheExport::Inline => CacheEntry { kind: "inline".to_owned(), attrs: BTreeMap::new() },
            CacheExport::Registry { to, settings } => {
                entry(&own(to, share.joined).unwrap_or_else(|| to.clone()), settings, insecure_hosts)
            }
        };
        self.to.iter().map(export).collect()
    }
}

fn entry(name: &Reference, settings: &BTreeMap<String, String>, insecure_hosts: &[String]) -> CacheEntry {
    let mut attrs = settings.clone();
    attrs.insert("ref".to_owned(), name.to_string());
    if insecure_hosts.contains(&name.repository.registry) {
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    CacheEntry { kind: "registry".to_owned(), attrs }
}

/// Writes what is imported as the frontend reads it (buildkit frontend/dockerui/config.go).
pub(super) fn json(imports: &[CacheEntry]) -> String {
    let imports: Vec<_> = imports.iter().map(|it| json!({"Type": it.kind, "Attrs": it.attrs})).collect();
    json!(imports).to_string()
}

/// Returns the name of a builder's own cache where others build the rest, who would overwrite it: with the builder's
/// architecture behind the tag. A cache that is named by digest is nobody's own.
pub fn own(name: &Reference, architecture: Option<&str>) -> Option<Reference> {
    let (architecture, tag) = (architecture?, name.tag.as_ref()?);
    Some(Reference { tag: Some(format!("{tag}-{architecture}")), ..name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_that_share_a_build_keep_a_cache_each() {
        let name = |text: &str| text.parse::<Reference>().expect("a reference");
        let settings = BTreeMap::from([("mode".to_owned(), "max".to_owned())]);
        let digest = format!("r.example/d@sha256:{}", "a".repeat(64));
        let caches = Caches {
            from: vec![name("r.example/c:main"), name(&digest)],
            to: vec![CacheExport::Inline, CacheExport::Registry { to: name("r.example/c:main"), settings }],
        };
        let alone = Share { platforms: &[], joined: None, builder_id: "" };
        let joined = Share { joined: Some("arm64"), ..alone };
        let names = |entries: &[CacheEntry]| -> Vec<String> {
            entries.iter().filter_map(|entry| entry.attrs.get("ref").cloned()).collect()
        };
        assert_eq!(names(&caches.imports(alone, &[])), ["r.example/c:main", &digest]);
        let imports = caches.imports(joined, &[]);
        assert_eq!(names(&imports), ["r.example/c:main", "r.example/c:main-arm64", &digest]);
        assert_eq!(names(&caches.exports(joined, &[])), ["r.example/c:main-arm64"]);
        let exports = caches.exports(alone, &[]);
        assert_eq!(names(&exports), ["r.example/c:main"]);
        let [inline, registry] = &exports[..] else { panic!("{exports:?}") };
        assert_eq!((inline.kind.as_str(), inline.attrs.len()), ("inline", 0));
        assert_eq!((registry.kind.as_str(), registry.attrs["mode"].as_str()), ("registry", "max"));
    }

    #[test]
    fn a_cache_that_may_fail_is_not_needed() {
        let export = |name: &str, ignored: &str| CacheExport::Registry {
            to: name.parse().expect("a reference"),
            settings: BTreeMap::from([("ignore-error".to_owned(), ignored.to_owned())]),
        };
        let to = vec![export("r.example/a:1", "true"), export("r.example/b:1", "false"), CacheExport::Inline];
        let caches = Caches { from: Vec::new(), to };
        assert_eq!(caches.needed().map(ToString::to_string).collect::<Vec<_>>(), ["r.example/b"]);
        assert_eq!(caches.written().count(), 2);
    }

    #[test]
    fn the_frontend_reads_of_imports_with_the_checks_that_are_loosened() {
        let from = vec!["plain.example/c:1".parse().expect("a reference")];
        let caches = Caches { from, to: Vec::new() };
        let share = Share { platforms: &[], joined: None, builder_id: "" };
        let imports = caches.imports(share, &["plain.example".to_owned()]);
        let expected =
            r#"[{"Type":"registry","Attrs":{"ref":"plain.example/c:1","registry.insecure":"true"}}]"#;
        assert_eq!(json(&imports), expected);
    }
}
