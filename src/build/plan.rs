//! From a request to one solve: pure.

use super::request::BuildRequest;
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
    /// The exporter's type and attributes, if anything is exported.
    pub exporter: Option<(String, BTreeMap<String, String>)>,
    /// Rights asked for.
    pub entitlements: Vec<String>,
    /// How the image leaves the daemon.
    pub delivery: Delivery,
}

/// Plans the solve of a request; `sign` says that tags wait until the image is signed.
pub fn plan(request: &BuildRequest, sign: bool) -> SolvePlan {
    let delivery = match (request.push, sign) {
        (true, true) => Delivery::ByDigest(request.repositories()),
        (true, false) => Delivery::Tags,
        (false, _) if request.digest_wanted => Delivery::Digest,
        (false, _) => Delivery::Cache,
    };
    let exporter = exporter(request, &delivery);
    SolvePlan { attrs: attrs(request), exporter, entitlements: request.entitlements.clone(), delivery }
}

fn attrs(request: &BuildRequest) -> BTreeMap<String, String> {
    let options = &request.options;
    let mut attrs = BTreeMap::new();
    let mut set = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    set("filename", request.dockerfile_name.clone());
    if let Some(target) = &options.target {
        set("target", target.clone());
    }
    if let Some(platform) = &options.platform {
        set("platform", platform.clone());
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

fn exporter(request: &BuildRequest, delivery: &Delivery) -> Option<(String, BTreeMap<String, String>)> {
    let tags = || request.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut attrs = BTreeMap::new();
    let mut set = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    match delivery {
        Delivery::Cache => return None,
        Delivery::Digest => {
            if !request.tags.is_empty() {
                set("name", tags());
            }
        }
        Delivery::Tags => {
            set("name", tags());
            set("push", "true".to_owned());
        }
        Delivery::ByDigest(repositories) => {
            set("name", repositories.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            set("push", "true".to_owned());
            set("push-by-digest", "true".to_owned());
        }
    }
    let insecure = |repository: &Repository| request.insecure_hosts.contains(&repository.registry);
    if request.push && request.repositories().iter().any(insecure) {
        set("registry.insecure", "true".to_owned());
    }
    // Media types are pinned: the daemon's default depends on its version and on attestations.
    set("oci-mediatypes", "true".to_owned());
    Some(("image".to_owned(), attrs))
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

    #[test]
    fn a_signed_push_goes_by_digest_to_each_repository_once() {
        let plan = plan(&request(&["r.example/a:1", "r.example/a:2", "s.example/b:1"]), true);
        let (kind, attrs) = plan.exporter.expect("an exporter");
        assert_eq!(kind, "image");
        assert_eq!(attrs["name"], "r.example/a,s.example/b");
        assert_eq!(attrs["push-by-digest"], "true");
    }

    #[test]
    fn an_unsigned_push_writes_the_tags() {
        let (_, attrs) =
            plan(&request(&["r.example/a:1", "r.example/a:2"]), false).exporter.expect("an exporter");
        assert_eq!(attrs["name"], "r.example/a:1,r.example/a:2");
        assert!(!attrs.contains_key("push-by-digest"));
        assert!(!attrs.contains_key("registry.insecure"));
    }

    #[test]
    fn insecure_is_said_only_for_the_hosts_it_was_asked_for() {
        let mut request = request(&["r.example/a:1"]);
        request.insecure_hosts = vec!["other.example".to_owned()];
        assert!(!plan(&request, true).exporter.expect("an exporter").1.contains_key("registry.insecure"));
        request.insecure_hosts = vec!["r.example".to_owned()];
        assert_eq!(plan(&request, true).exporter.expect("an exporter").1["registry.insecure"], "true");
    }

    #[test]
    fn without_a_push_nothing_is_exported_unless_the_digest_is_wanted() {
        let mut request = request(&["r.example/a:1"]);
        request.push = false;
        assert_eq!(plan(&request, false).exporter, None);
        request.digest_wanted = true;
        let (_, attrs) = plan(&request, false).exporter.expect("an exporter");
        assert!(!attrs.contains_key("push"));
    }

    #[test]
    fn the_frontend_is_told_what_was_asked() {
        let mut request = request(&["r.example/a:1"]);
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
            platform: Some("linux/arm64".to_owned()),
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
            ("platform", "linux/arm64"),
            ("shm-size", "67108864"),
            ("target", "t"),
            ("ulimit", "nofile=1024:2048"),
        ];
        let attrs: Vec<_> = attrs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(attrs, expected);
    }
}
