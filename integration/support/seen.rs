//! What a registry holds, seen from inside the cluster: a pod asks it by its HTTP API, so that no line of ours is
//! between the registry and the assertion.

use crate::rig::Rig;
use serde_json::Value;

/// A registry as a pod sees it.
pub struct Seen<'a> {
    rig: &'a Rig,
    base: String,
    flags: Vec<String>,
}

impl<'a> Seen<'a> {
    /// Looks at the plain HTTP registry.
    pub fn plain(rig: &'a Rig) -> Self {
        Self { rig, base: format!("http://{}", rig.get("REGISTRY")), flags: Vec::new() }
    }

    /// Looks at the plain HTTP registry that has the referrers API.
    pub fn referrers_registry(rig: &'a Rig) -> Self {
        Self { rig, base: format!("http://{}", rig.get("REGISTRY_REFERRERS")), flags: Vec::new() }
    }

    /// Looks at a registry with TLS and a password. Its certificate is not what these tests are about.
    pub fn tls(rig: &'a Rig, host: &str) -> Self {
        let user = format!("{}:{}", rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
        let flags = ["-k", "-u", &user].map(str::to_owned).to_vec();
        Self { rig, base: format!("https://{host}"), flags }
    }

    /// Looks at a plain HTTP registry as a user.
    #[allow(dead_code, reason = "not every test crate has users")]
    pub fn user(rig: &'a Rig, host: &str, user: &str, password: &str) -> Self {
        let flags = vec!["-u".to_owned(), format!("{user}:{password}")];
        Self { rig, base: format!("http://{host}"), flags }
    }

    /// Looks at a plain HTTP registry by a token.
    pub fn bearer(rig: &'a Rig, host: &str, token: &str) -> Self {
        let flags = vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
        Self { rig, base: format!("http://{host}"), flags }
    }

    fn curl(&self, more: &[&str], path: &str) -> (u16, String) {
        let url = format!("{}/v2/{path}", self.base);
        let mut arguments =
            vec!["exec", "-n", "registry", "deploy/tools", "--", "curl", "-sS", "-w", "\n%{http_code}"];
        // A name that is not resolved in time, on a busy machine, is asked for again.
        arguments.extend(["--retry", "3", "--retry-all-errors"]);
        arguments.extend(self.flags.iter().map(String::as_str));
        for media_type in [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ] {
            arguments.extend(["-H", Box::leak(format!("Accept: {media_type}").into_boxed_str())]);
        }
        arguments.extend(more);
        arguments.push(&url);
        let output = self.rig.kubectl(&arguments);
        let (body, status) = output.rsplit_once('\n').expect("curl prints the status last");
        (status.trim().parse().expect("a status"), body.to_owned())
    }

    /// Returns the manifest under a tag or digest, if there is one.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Value> {
        match self.curl(&[], &format!("{repository}/manifests/{reference}")) {
            (200, body) => Some(serde_json::from_str(&body).expect("a manifest")),
            (404, _) => None,
            (status, body) => panic!("{status}: {body}"),
        }
    }

    /// Returns the digest that a tag points at, if it exists.
    pub fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let (status, headers) = self.curl(&["-I"], &format!("{repository}/manifests/{tag}"));
        let mut lines = headers.lines().filter_map(|line| line.split_once(": "));
        let digest = lines.find(|(name, _)| name.eq_ignore_ascii_case("docker-content-digest"));
        (status == 200).then(|| digest.expect("a digest").1.trim().to_owned())
    }

    /// Returns a blob as JSON.
    pub fn blob(&self, repository: &str, digest: &str) -> Value {
        let (status, body) = self.curl(&["-L"], &format!("{repository}/blobs/{digest}"));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Returns all tags.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let (status, body) = self.curl(&[], &format!("{repository}/tags/list"));
        if status == 404 {
            return Vec::new();
        }
        let list: Value = serde_json::from_str(&body).expect("a list");
        list["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tag| Some(tag.as_str()?.to_owned()))
            .collect()
    }

    /// Returns what refers to a digest, from the API.
    pub fn referrers(&self, repository: &str, digest: &str) -> Vec<Value> {
        let (status, body) = self.curl(&[], &format!("{repository}/referrers/{digest}"));
        assert_eq!(status, 200, "{body}");
        let index: Value = serde_json::from_str(&body).expect("an index");
        index["manifests"].as_array().cloned().unwrap_or_default()
    }
}
