//! From a request to one solve: pure.

use super::cache;
use super::request::BuildRequest;
use crate::buildkit::solve::CacheEntry;
use crate::image::Platform;
use crate::image::annotation::{Annotation, Carrier};
use crate::registry::Repository;
use std::collections::BTreeMap;

/// Name of the local that holds the build context.
pub const CONTEXT: &str = "context";
/// Name of the local that holds the Dockerfile.
pub const DOCKERFILE: &str = "dockerfile";

/// How the image leaves the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It stays in the builder's cache.
    Cache,
    /// It is made but not pushed, for its digest.
    Digest,
    /// Pushed to its tags.
    Tags,
    /// Pushed by digest to each repository; the tags are written later, by us.
    ByDigest(Vec<Repository>),
}

/// One solve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolvePlan {
    /// The frontend's attributes.
    pub attrs: BTreeMap<String, String>,
    /// The exporters' types and attributes, if anything is exported: one, or two of one image.
    pub exporters: Vec<(String, BTreeMap<String, String>)>,
    /// The caches that the daemon reads.
    pub imports: Vec<CacheEntry>,
    /// The caches that it writes.
    pub exports: Vec<CacheEntry>,
    /// Rights asked for.
    pub entitlements: Vec<String>,
}

/// Returns how the image of a request leaves the daemons: `sign` says that tags wait until it is signed, `joined` that
/// they wait for the index over what several builders push.
pub fn delivery(request: &BuildRequest, sign: bool, joined: bool) -> Delivery {
    match (request.push, sign || joined) {
        (true, true) => Delivery::ByDigest(request.repositories()),
        (true, false) => Delivery::Tags,
        (false, _) if request.digest_wanted => Delivery::Digest,
        (false, _) => Delivery::Cache,
    }
}

/// One builder's part of a request.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The platforms that it builds.
    pub platforms: &'a [Platform],
    /// Its machine's architecture, where other builders build the rest: each then makes an index, in which its platforms
    /// are named.
    pub joined: Option<&'a str>,
    /// What provenance calls the builder: a URI.
    pub builder_id: &'a str,
}

/// Plans one builder's solve of a request.
pub fn plan(request: &BuildRequest, share: Share<'_>, delivery: &Delivery) -> SolvePlan {
    let Share { platforms, joined, builder_id } = share;
    let mut attrs = attrs(request, platforms);
    if joined.is_some() {
        attrs.insert("multi-platform".to_owned(), "true".to_owned());
    }
    for (kind, fields) in &request.attests {
        attrs.insert(format!("attest:{kind}"), attest(kind, fields, builder_id));
    }
    let mut exporters = exporters(request, delivery);
    for (_, attributes) in &mut exporters {
        attributes.extend(annotations(&request.annotations, platforms, joined.is_some()));
    }
    let (caches, insecure) = (&request.caches, &request.insecure_hosts);
    let (imports, exports) = (caches.imports(share, insecure), caches.exports(share, insecure));
    if !imports.is_empty() {
        // The frontend looks here, and nowhere else.
        attrs.insert("cache-imports".to_owned(), cache::json(&imports));
    }
    SolvePlan { attrs, exporters, imports, exports, entitlements: request.entitlements.clone() }
}

/// Returns an attestation's fields, the builder's name among them if the person gave none: verifiers' policies ask for
/// it, and the daemon knows none.
fn attest(kind: &str, fields: &str, builder_id: &str) -> String {
    let named = fields.split(',').any(|field| field.trim_matches('"').starts_with("builder-id="));
    if kind != "provenance" || named {
        return fields.to_owned();
    }
    let id = format!("builder-id={builder_id}");
    // Quotes where the id would end the field (RFC 4180).
    let id = if id.contains([',', '"']) { format!("\"{}\"", id.replace('"', "\"\"")) } else { id };
    [fields, &id].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(",")
}

/// Returns the exporter's attributes for annotations. Those of platforms that are built elsewhere are left out, because
/// the daemon refuses them, and the index's where it is joined by us.
fn annotations(all: &[Annotation], platforms: &[Platform], joined: bool) -> Vec<(String, String)> {
    let here = |annotation: &&Annotation| match (&annotation.carrier, &annotation.platform) {
        (Carrier::Index | Carrier::IndexDescriptor, _) => !joined,
        (_, Some(platform)) => !joined || platforms.contains(platform),
        (_, None) => true,
    };
    all.iter().filter(here).map(|it| (it.attribute(), it.value.clone())).collect()
}

fn attrs(request: &BuildRequest, platforms: &[Platform]) -> BTreeMap<String, String> {
    let options = &request.options;
    let mut attrs = BTreeMap::new();
    let mut set = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    set("filename", request.dockerfile_name.clone());
    if let Some(target) = &options.target {
        set("target", target.clone());
    }
    if !platforms.is_empty() {
        let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        set("platform", platforms.join(","));
    }
    if options.no_cache {
        // Present and empty means every stage.
        set("no-cache", String::new());
    }
    if options.pull {
        set("image-resolve-mode", "pull".to_owned());
    }
    if let Some(network) = &options.network {
        set("force-network-mode", network.clone());
    }
    if !options.add_hosts.is_empty() {
        set("add-hosts", options.add_hosts.join(","));
    }
    if let Some(bytes) = options.shm_size {
        set("shm-size", bytes.to_string());
    }
    if !options.ulimits.is_empty() {
        set("ulimit", options.ulimits.join(","));
    }
    for (name, value) in &options.build_args {
        set(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &options.labels {
        set(&format!("label:{name}"), value.clone());
    }
    attrs
}

/// Returns one exporter, or two where some names go to registries with loosened checks and some do not: the daemon
/// loosens them for all names of an exporter, and forgets their CAs (buildkit util/push/push.go). Replies of both are
/// the same but for the names.
fn exporters(request: &BuildRequest, delivery: &Delivery) -> Vec<(String, BTreeMap<String, String>)> {
    let tags = || request.tags.iter().map(|tag| (&tag.repository, tag.to_string())).collect::<Vec<_>>();
    let (names, by_digest) = match delivery {
        Delivery::Cache => return Vec::new(),
        Delivery::Digest => {
            let names = tags().into_iter().map(|(_, name)| name).collect();
            return vec![exporter(names, &[])];
        }
        Delivery::Tags => (tags(), None),
        Delivery::ByDigest(repositories) => {
            let names = repositories.iter().map(|repository| (repository, repository.to_string()));
            (names.collect(), Some("push-by-digest"))
        }
    };
    let insecure = |repository: &Repository| request.insecure_hosts.contains(&repository.registry);
    let (loose, checked): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|(repository, _)| insecure(repository));
    let classes = [(checked, None), (loose, Some("registry.insecure"))];
    let classes = classes.into_iter().filter(|(names, _)| !names.is_empty());
    let exporters = classes.map(|(names, loosened)| {
        let flags: Vec<_> = [Some("push"), by_digest, loosened].into_iter().flatten().collect();
        exporter(names.into_iter().map(|(_, name)| name).collect(), &flags)
    });
    exporters.collect()
}

fn exporter(names: Vec<String>, flags: &[&str]) -> (String, BTreeMap<String, String>) {
    let mut attrs: BTreeMap<_, _> = flags.iter().map(|&flag| (flag.to_owned(), "true".to_owned())).collect();
    if !names.is_empty() {
        attrs.insert("name".to_owned(), names.join(","));
    }
    // Media types are pinned: the daemon's default depends on its version and on attestations.
    attrs.insert("oci-mediatypes".to_owned(), "true".to_owned());
    ("image".to_owned(), attrs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::request::FrontendOptions;

    fn request(tags: &[&str]) -> BuildRequest {
        BuildRequest {
            dockerfile_name: "Dockerfile".to_owned(),
            tags: tags.iter().map(|tag| tag.parse().expect("a reference")).collect(),
            push: true,
            ..BuildRequest::default()
        }
    }

    fn plan(request: &BuildRequest, sign: bool) -> SolvePlan {
        let share = Share { platforms: &request.platforms, joined: None, builder_id: "tcp://b:1" };
        super::plan(request, share, &delivery(request, sign, false))
    }

    #[test]
    fn one_of_several_builders_makes_an_index_and_writes_no_tag() {
        let mut request = request(&["r.example/a:1"]);
        let platforms = ["linux/arm64", "linux/amd64"].map(|text| text.parse().expect("a platform"));
        request.platforms = platforms.to_vec();
        let delivery = delivery(&request, false, true);
        request.annotations =
            ["index:i=1", "m=1", "manifest[linux/arm64]:here=1", "manifest[linux/amd64]:there=1"]
                .into_iter()
                .flat_map(|text| Annotation::parse(text).expect("an annotation"))
                .collect();
        let share = Share { platforms: &platforms[..1], joined: Some("arm64"), builder_id: "tcp://b:1" };
        let plan = super::plan(&request, share, &delivery);
        assert_eq!(delivery, Delivery::ByDigest(request.repositories()));
        assert_eq!(
            (plan.attrs["platform"].as_str(), plan.attrs["multi-platform"].as_str()),
            ("linux/arm64", "true")
        );
        let attrs = only(plan);
        assert_eq!(attrs["push-by-digest"], "true");
        let annotated: Vec<_> = attrs.keys().filter(|key| key.starts_with("annotation")).collect();
        assert_eq!(annotated, ["annotation-manifest.m", "annotation-manifest[linux/arm64].here"]);
    }

    #[test]
    fn provenance_names_the_builder_unless_the_person_does() {
        let mut request = request(&["r.example/a:1"]);
        assert!(
            !plan(&request, false).attrs.keys().any(|key| key.starts_with("attest:")),
            "nothing was asked for"
        );
        for (fields, sent) in [
            ("version=v1", "version=v1,builder-id=tcp://b:1"),
            ("mode=max,builder-id=https://me", "mode=max,builder-id=https://me"),
        ] {
            request.attests = BTreeMap::from([("provenance".to_owned(), fields.to_owned())]);
            assert_eq!(plan(&request, false).attrs["attest:provenance"], sent);
        }
        assert_eq!(attest("provenance", "", "a,b"), "\"builder-id=a,b\"");
        assert_eq!(attest("sbom", "", "a"), "");
    }

    /// Returns the attributes of the only exporter.
    fn only(plan: SolvePlan) -> BTreeMap<String, String> {
        let [(kind, attrs)] = <[_; 1]>::try_from(plan.exporters).expect("one exporter");
        assert_eq!(kind, "image");
        attrs
    }

    #[test]
    fn a_signed_push_goes_by_digest_to_each_repository_once() {
        let attrs = only(plan(&request(&["r.example/a:1", "r.example/a:2", "s.example/b:1"]), true));
        assert_eq!(attrs["name"], "r.example/a,s.example/b");
        assert_eq!(attrs["push-by-digest"], "true");
    }

    #[test]
    fn an_unsigned_push_writes_the_tags() {
        let attrs = only(plan(&request(&["r.example/a:1", "r.example/a:2"]), false));
        assert_eq!(attrs["name"], "r.example/a:1,r.example/a:2");
        assert!(!attrs.contains_key("push-by-digest"));
        assert!(!attrs.contains_key("registry.insecure"));
    }

    #[test]
    fn insecure_is_said_only_for_the_hosts_it_was_asked_for() {
        let mut request = request(&["r.example/a:1"]);
        request.insecure_hosts = vec!["other.example".to_owned()];
        assert!(!only(plan(&request, true)).contains_key("registry.insecure"));
        request.insecure_hosts = vec!["r.example".to_owned()];
        assert_eq!(only(plan(&request, true))["registry.insecure"], "true");
    }

    #[test]
    fn one_plain_registry_does_not_loosen_the_checks_of_another() {
        let mut request = request(&["plain.example/a:1", "prod.example/b:1", "plain.example/a:2"]);
        request.insecure_hosts = vec!["plain.example".to_owned()];
        for (sign, checked, loose) in [
            (false, "prod.example/b:1", "plain.example/a:1,plain.example/a:2"),
            (true, "prod.example/b", "plain.example/a"),
        ] {
            let exporters = plan(&request, sign).exporters;
            let [(_, prod), (_, plain)] = &exporters[..] else { panic!("{exporters:?}") };
            assert_eq!((prod["name"].as_str(), plain["name"].as_str()), (checked, loose));
            assert_eq!((prod.get("registry.insecure"), plain["registry.insecure"].as_str()), (None, "true"));
            for attrs in [prod, plain] {
                assert_eq!(attrs["push"], "true");
                assert_eq!(attrs.contains_key("push-by-digest"), sign);
                assert_eq!(attrs["oci-mediatypes"], "true", "or the digests would differ");
            }
        }
    }

    #[test]
    fn without_a_push_nothing_is_exported_unless_the_digest_is_wanted() {
        let mut request = request(&["r.example/a:1"]);
        request.push = false;
        assert_eq!(plan(&request, false).exporters, []);
        request.digest_wanted = true;
        let attrs = only(plan(&request, false));
        assert!(attrs["name"] == "r.example/a:1" && !attrs.contains_key("push"));
    }

    #[test]
    fn the_frontend_is_told_what_was_asked() {
        let mut request = request(&["r.example/a:1"]);
        request.platforms =
            ["linux/arm64", "linux/arm/v6"].map(|text| text.parse().expect("a platform")).to_vec();
        request.options = FrontendOptions {
            build_args: BTreeMap::from([("V".to_owned(), "1".to_owned())]),
            labels: BTreeMap::from([("l".to_owned(), String::new())]),
            no_cache: true,
            pull: true,
            network: Some("none".to_owned()),
            add_hosts: vec!["a=1.2.3.4".to_owned(), "b=::1".to_owned()],
            shm_size: Some(67_108_864),
            ulimits: vec!["nofile=1024:2048".to_owned()],
            target: Some("t".to_owned()),
        };
        let attrs = plan(&request, false).attrs;
        let expected = [
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("build-arg:V", "1"),
            ("filename", "Dockerfile"),
            ("force-network-mode", "none"),
            ("image-resolve-mode", "pull"),
            ("label:l", ""),
            ("no-cache", ""),
            ("platform", "linux/arm64,linux/arm/v6"),
            ("shm-size", "67108864"),
            ("target", "t"),
            ("ulimit", "nofile=1024:2048"),
        ];
        let attrs: Vec<_> = attrs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(attrs, expected);
    }
}
