//! What a finished build says: digests on standard output, how to verify beside it, files for other programs.

use crate::build::BuildOutcome;
use crate::build::outcome::Builds;
use crate::registry::{Descriptor, Digest, HostOptions, Repository};
use crate::sign::key::KeyReference;
use crate::sign::{
    CosignLine, Format, Formats, RegistryAccess, SignReport, Signer, VerifyLines, verify_lines,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Returns the lines for standard output: each tag with the digest that it points at, or the digest alone.
pub(super) fn digests(outcome: &BuildOutcome, quiet: bool) -> Vec<String> {
    let Some(digest) = outcome.digest() else { return Vec::new() };
    if quiet || outcome.tags.is_empty() {
        return vec![digest.to_string()];
    }
    outcome.tags.iter().map(|tag| format!("{tag}@{digest}")).collect()
}

/// What is needed to say how others verify.
pub(super) struct Verification {
    image: Digest,
    keys: Vec<String>,
    formats: Formats,
    hosts: Vec<HostOptions>,
}

impl Verification {
    /// Gathers it from what signed.
    pub(super) fn of(
        image: &Descriptor,
        signers: &[Box<dyn Signer>],
        formats: Formats,
        hosts: &[HostOptions],
    ) -> Self {
        let keyed = signers.iter().filter(|signer| signer.public_key().is_some());
        let keys = keyed.map(|signer| signer.name().to_owned());
        Self { image: image.digest, keys: keys.collect(), formats, hosts: hosts.to_vec() }
    }

    /// Returns the lines for one repository, for each key and each generation of cosign.
    pub(super) fn lines(&self, repository: &Repository) -> Vec<String> {
        let host = self.hosts.iter().find(|host| host.host == repository.registry);
        let access = RegistryAccess {
            plain_http: host.is_some_and(|host| host.plain_http),
            insecure: host.is_some_and(|host| host.insecure_skip_verify || !host.ca_pem.is_empty()),
        };
        let mut lines = Vec::new();
        for name in &self.keys {
            let key =
                name.parse::<KeyReference>().map_or_else(|_| name.clone(), |key| key.public_reference());
            let of = VerifyLines {
                repository,
                image: &self.image,
                storage: None,
                key: &key,
                formats: self.formats,
                access,
            };
            for CosignLine { cosign, line } in verify_lines(&of) {
                lines.push(format!("verify with {cosign}: {line}"));
            }
        }
        lines
    }
}

/// Returns the content of `--metadata-file`: buildx's keys, and ours under `kubectl-build`.
pub(super) fn metadata(outcome: &BuildOutcome) -> Vec<u8> {
    let mut root = Map::new();
    for (key, value) in &outcome.response {
        // As buildx does: a value that is base64 of JSON stands there as that JSON (commands/build.go).
        let decoded =
            STANDARD.decode(value).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let value = match decoded {
            Some(json) if json.is_object() || json.is_array() => json,
            _ => Value::String(value.clone()),
        };
        root.insert(key.clone(), value);
    }
    if let Some(image) = &outcome.image {
        let descriptor = serde_json::to_value(image).expect("a descriptor is JSON");
        root.entry("containerimage.descriptor").or_insert(descriptor);
    }
    if let Some(digest) = outcome.digest() {
        root.insert("containerimage.digest".to_owned(), json!(digest.to_string()));
    }
    if !outcome.tags.is_empty() {
        let names: Vec<_> = outcome.tags.iter().map(ToString::to_string).collect();
        root.insert("image.name".to_owned(), json!(names.join(",")));
    }
    if let Some(Builds { builder, pod, reference, .. }) = outcome.builds.first() {
        let node = pod.as_deref().unwrap_or(builder);
        root.insert("buildx.build.ref".to_owned(), json!(format!("{builder}/{node}/{reference}")));
    }
    let mut own = Map::new();
    if !outcome.signed.is_empty() {
        let signatures: Vec<_> =
            outcome.signed.iter().flat_map(|(at, report)| signatures(at, report)).collect();
        own.insert("signatures".to_owned(), json!(signatures));
    }
    if outcome.builds.len() > 1 {
        let builds = outcome.builds.iter().map(|build| {
            json!({
                "platforms": build.platforms,
                "pod": build.pod,
                "ref": build.reference,
                "digest": build.digest.map(|digest| digest.to_string()),
            })
        });
        own.insert("builds".to_owned(), builds.collect());
    }
    if !own.is_empty() {
        root.insert("kubectl-build".to_owned(), Value::Object(own));
    }
    let mut text = serde_json::to_vec_pretty(&Value::Object(root)).expect("a map of strings is JSON");
    text.push(b'\n');
    text
}

fn signatures(at: &Repository, report: &SignReport) -> Vec<Value> {
    let mut list = Vec::new();
    for signed in &report.subjects {
        for signature in &signed.signatures {
            list.push(json!({
                "repository": at.to_string(),
                "digest": signed.subject.descriptor.digest.to_string(),
                "role": signed.subject.role,
                "signer": signature.signer,
                "format": match signature.format { Format::Legacy => "legacy", Format::Bundle => "bundle" },
                "manifest": signature.location.to_string(),
                "reused": signature.reused,
            }));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn outcome() -> BuildOutcome {
        let digest = Digest::of(b"image");
        let descriptor = json!({ "mediaType": "m", "digest": digest.to_string(), "size": 5 });
        BuildOutcome {
            image: Some(Descriptor::bare("m", digest, 5)),
            tags: vec!["r.example/a:1".parse().expect("a tag"), "r.example/a:2".parse().expect("a tag")],
            response: BTreeMap::from([
                ("containerimage.descriptor".to_owned(), STANDARD.encode(descriptor.to_string())),
                ("image.name".to_owned(), "r.example/a".to_owned()),
            ]),
            builds: vec![Builds {
                builder: "buildkit".to_owned(),
                pod: Some("buildkit-0".to_owned()),
                reference: "abc".to_owned(),
                ..Builds::default()
            }],
            ..BuildOutcome::default()
        }
    }

    #[test]
    fn standard_output_names_each_tag_with_its_digest() {
        let digest = Digest::of(b"image");
        assert_eq!(
            digests(&outcome(), false),
            [format!("r.example/a:1@{digest}"), format!("r.example/a:2@{digest}")]
        );
        assert_eq!(digests(&outcome(), true), [digest.to_string()]);
    }

    #[test]
    fn metadata_has_the_keys_of_buildx() {
        let metadata: Value = serde_json::from_slice(&metadata(&outcome())).expect("JSON");
        assert_eq!(metadata["containerimage.descriptor"]["size"], 5);
        assert_eq!(metadata["containerimage.digest"], Digest::of(b"image").to_string());
        assert_eq!(metadata["image.name"], "r.example/a:1,r.example/a:2");
        assert_eq!(metadata["buildx.build.ref"], "buildkit/buildkit-0/abc");
    }
}
