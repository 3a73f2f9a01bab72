//! What a finished build says: digests on standard output, how to verify beside it, files for other programs.

use crate::build::BuildOutcome;
use crate::build::outcome::Builds;
use crate::config::keyless::TrustAdvice;
use crate::config::results::ResultKind;
use crate::registry::{Descriptor, Digest, HostOptions, Repository};
use crate::sign::key::KeyReference;
use crate::sign::{
    Certified, CosignLine, Formats, LogPlace, RegistryAccess, SignOptions, SignReport, SignedAttestation,
    SignedBy, Signer, StoredSignature, Subject, VerifyLines, verify_lines,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A registry whose tags are lifetimes.
const TTL_SH: &str = "ttl.sh";

/// Returns the lines for standard output: each tag with the digest that it points at, or the digest alone.
pub(super) fn digests(outcome: &BuildOutcome, quiet: bool) -> Vec<String> {
    let Some(digest) = outcome.digest() else { return Vec::new() };
    if quiet || outcome.tags.is_empty() {
        return vec![digest.to_string()];
    }
    outcome.tags.iter().map(|tag| format!("{tag}@{digest}")).collect()
}

/// How a key's signatures are verified.
struct KeyAdvice {
    /// The signer's name.
    name: String,
    /// What goes to `--key`.
    key: String,
    /// What must be run before.
    before: String,
    /// See [`VerifyLines::hash`].
    hash: Option<&'static str>,
}

/// What is needed to say how others verify.
pub(super) struct Verification {
    image: Digest,
    keys: Vec<KeyAdvice>,
    identities: Vec<Certified>,
    trust: TrustAdvice,
    formats: Formats,
    hosts: Vec<HostOptions>,
    /// The kinds of statements that were signed, by repository.
    attested: Vec<(Repository, String)>,
    options: SignOptions,
    /// What some of the keys sign along for themselves.
    own: BTreeMap<String, BTreeMap<String, String>>,
    /// The one file with a registry's authority, where there is one.
    ca_files: BTreeMap<String, String>,
}

impl Verification {
    /// Gathers it from what signed.
    pub(super) fn of(
        image: &Descriptor,
        signers: &[Box<dyn Signer>],
        formats: Formats,
        hosts: &[HostOptions],
        trust: TrustAdvice,
    ) -> Self {
        let keys = signers.iter().filter_map(|signer| {
            let (name, kind) = (signer.name().to_owned(), signer.public_key()?.kind());
            let hash = signer.unusual_hash();
            let Ok(reference) = name.parse::<KeyReference>() else {
                // A security key is no reference, and few builds of cosign reach one.
                return Some(KeyAdvice { name, key: "cosign.pub".to_owned(), before: String::new(), hash });
            };
            let before = match reference.keeps_from_cosign(kind) {
                true => format!("cosign public-key --key {} > cosign.pub && ", reference.for_cosign()),
                false => String::new(),
            };
            Some(KeyAdvice { name, key: reference.public_reference(kind), before, hash })
        });
        let identities = signers.iter().filter_map(|signer| signer.certified()).collect();
        Self {
            image: image.digest,
            keys: keys.collect(),
            identities,
            trust,
            formats,
            hosts: hosts.to_vec(),
            attested: Vec::new(),
            options: SignOptions::default(),
            own: BTreeMap::new(),
            ca_files: BTreeMap::new(),
        }
    }

    /// Adds the attestations that were signed.
    pub(super) fn attested(mut self, signed: &[(Repository, SignReport)]) -> Self {
        for (repository, attestation) in attested(signed) {
            let entry = (repository.clone(), attestation.predicate_type.clone());
            if !self.attested.contains(&entry) {
                self.attested.push(entry);
            }
        }
        self
    }

    /// Adds what is special about the signatures, and the files of authorities that the flags named.
    pub(super) fn and(
        self,
        options: &SignOptions,
        signers: &[Box<dyn Signer>],
        ca_files: &BTreeMap<String, String>,
    ) -> Self {
        let own = signers.iter().map(|signer| (signer.name().to_owned(), signer.annotations().clone()));
        Self { options: options.clone(), own: own.collect(), ca_files: ca_files.clone(), ..self }
    }

    /// Returns the lines for one repository, for each key and each generation of cosign.
    pub(super) fn lines(&self, repository: &Repository) -> Vec<String> {
        let host = self.hosts.iter().find(|host| host.host == repository.registry);
        let access = RegistryAccess {
            plain_http: host.is_some_and(|host| host.plain_http),
            insecure: host.is_some_and(|host| host.insecure_skip_verify || !host.ca_pem.is_empty()),
            ca_file: self.ca_files.get(&repository.registry).map(String::as_str),
        };
        let trusted_root = self.trust.file();
        let by_keys = self.keys.iter().map(|KeyAdvice { name, key, before, hash }| {
            let by = match self.trust.logged {
                true => SignedBy::LoggedKey { key, trusted_root },
                false => SignedBy::Key(key),
            };
            (name.as_str(), by, before.as_str(), *hash)
        });
        let by_identities = self.identities.iter().map(|certified| {
            let by = SignedBy::Identity { certified, trusted_root };
            ("", by, "", None)
        });
        let mut lines = Vec::new();
        for (name, by, before, hash) in by_keys.chain(by_identities) {
            let mut annotations = self.options.annotations.clone();
            annotations.extend(self.own.get(name).cloned().unwrap_or_default());
            let of = VerifyLines {
                repository,
                image: &self.image,
                storage: self.options.storage.as_ref(),
                by,
                formats: self.formats,
                access,
                annotations: &annotations,
                hash,
            };
            // Statements carry no annotations of ours.
            let none = BTreeMap::new();
            let statements = verify_lines(&VerifyLines { annotations: &none, ..of });
            for (CosignLine { cosign, line }, statement) in verify_lines(&of).into_iter().zip(statements) {
                let kinds = self.attested.iter().filter(|(at, _)| at == repository);
                let more = kinds.map(|(_, kind)| {
                    let kind = cosign_type(kind);
                    statement
                        .line
                        .replace("cosign verify ", &format!("cosign verify-attestation --type {kind} "))
                });
                let all = [line.clone()].into_iter().chain(more);
                lines.extend(all.map(|line| format!("verify with {cosign}: {before}{line}")));
            }
        }
        lines
    }
}

/// Returns cosign's name for a kind of statement (cosign pkg/cosign/attestation).
fn cosign_type(predicate_type: &str) -> &str {
    match predicate_type {
        "https://slsa.dev/provenance/v0.2" => "slsaprovenance",
        "https://slsa.dev/provenance/v1" => "slsaprovenance1",
        "https://spdx.dev/Document" => "spdxjson",
        "https://cyclonedx.org/bom" => "cyclonedx",
        other => other,
    }
}

/// Says of each repository what was signed there, how it is kept, and what the registry can do.
pub(super) fn written(signed: &[(Repository, SignReport)], formats: Formats) -> Vec<String> {
    let line = |(at, report): &(Repository, SignReport)| {
        let mut what: Vec<&str> = report.subjects.iter().map(|signed| signed.subject.role.as_str()).collect();
        let kinds = report.attestations.iter().map(|one| cosign_type(&one.predicate_type));
        let kinds: Vec<_> = kinds.collect::<BTreeSet<_>>().into_iter().collect();
        let attested = format!("what was attested ({})", kinds.join(", "));
        what.extend((!kinds.is_empty()).then_some(attested.as_str()));
        let tags = if kinds.is_empty() { "`.sig` tags" } else { "`.sig` and `.att` tags" };
        let lists = match report.has_referrers {
            Some(true) => ", which the registry lists by its referrers API",
            Some(false) => ", which tags `sha256-…` list: the registry has no referrers API",
            None => "",
        };
        let how = match formats {
            Formats::Both => format!("under {tags} and as bundles{lists}"),
            Formats::Legacy => format!("under {tags}"),
            Formats::Bundle => format!("as bundles{lists}"),
        };
        format!("signed in {at}: {}; {how}", what.join(", "))
    };
    let mut lines: Vec<String> = signed.iter().map(line).collect();
    if signed.iter().any(|(at, _)| at.registry == TTL_SH) {
        lines.push(format!(
            "{TTL_SH} removes an image after the time that its tag names; signatures have tags, and a lifetime, of \
             their own: either may be gone before the other"
        ));
    }
    lines
}

/// Returns the content of a result file: no newline at its end, because Tekton takes every byte.
pub(super) fn result(outcome: &BuildOutcome, kind: ResultKind) -> String {
    let digest = outcome.digest().map(ToString::to_string).unwrap_or_default();
    match kind {
        ResultKind::Url => outcome.tags.first().map(ToString::to_string).unwrap_or_default(),
        ResultKind::Digest => digest,
        ResultKind::Outputs => {
            let image = result(outcome, ResultKind::Url);
            let images = result(outcome, ResultKind::Images);
            format!("image={image}\nimages={images}\ndigest={digest}\n")
        }
        ResultKind::Images => {
            let mut images: Vec<String> = Vec::new();
            for tag in &outcome.tags {
                let image = format!("{}@{digest}", tag.repository);
                if !images.contains(&image) {
                    images.push(image);
                }
            }
            images.join(",")
        }
    }
}

/// Returns the report as one line of JSON.
pub(super) fn json(outcome: &BuildOutcome, verify: &[String]) -> String {
    let image = outcome.image.as_ref();
    json!({
        "digest": image.map(|image| image.digest.to_string()),
        "mediaType": image.map(|image| image.media_type.as_str()),
        "tags": outcome.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signatures": signatures(&outcome.signed),
        "attestations": attestations(&outcome.signed),
        "repositories": repositories(&outcome.signed),
        "verify": verify,
    })
    .to_string()
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
        // An address without a name is known by its end: the parts are told apart by slashes.
        let builder = builder.rsplit('/').next().unwrap_or(builder);
        let node = pod.as_deref().unwrap_or(builder);
        root.insert("buildx.build.ref".to_owned(), json!(format!("{builder}/{node}/{reference}")));
    }
    if !outcome.warnings.is_empty() {
        root.insert("buildx.build.warnings".to_owned(), json!(outcome.warnings));
    }
    let mut own = Map::new();
    if !outcome.signed.is_empty() {
        own.insert("signatures".to_owned(), json!(signatures(&outcome.signed)));
        own.insert("repositories".to_owned(), json!(repositories(&outcome.signed)));
    }
    let attested = attestations(&outcome.signed);
    if !attested.is_empty() {
        own.insert("attestations".to_owned(), attested.into());
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

fn signatures(signed: &[(Repository, SignReport)]) -> Vec<Value> {
    let mut list = Vec::new();
    for (at, signed) in
        signed.iter().flat_map(|(at, report)| report.subjects.iter().map(move |one| (at, one)))
    {
        for signature in &signed.signatures {
            list.push(json!({
                "repository": at.to_string(),
                "digest": signed.subject.descriptor.digest.to_string(),
                "role": signed.subject.role,
                "signer": signature.signer,
                "format": signature.format.to_string(),
                "manifest": signature.location.to_string(),
                "reused": signature.reused,
                "log": log(&signature.logged),
            }));
        }
    }
    list
}

fn attestations(signed: &[(Repository, SignReport)]) -> Vec<Value> {
    let attestation = |(at, attestation): (&Repository, &SignedAttestation)| {
        json!({
            "repository": at.to_string(),
            "digest": attestation.image.to_string(),
            "predicateType": attestation.predicate_type,
            "reused": attestation.reused,
            "log": log(&attestation.logged),
        })
    };
    attested(signed).map(attestation).collect()
}

/// Returns what was attested, each with its repository.
fn attested(signed: &[(Repository, SignReport)]) -> impl Iterator<Item = (&Repository, &SignedAttestation)> {
    signed.iter().flat_map(|(at, report)| report.attestations.iter().map(move |one| (at, one)))
}

/// Returns where logs have a signature.
pub(super) fn log(places: &[LogPlace]) -> Value {
    let place = |LogPlace { url, log_id, index, uuid }: &LogPlace| json!({ "url": url, "logID": log_id, "index": index, "uuid": uuid });
    places.iter().map(place).collect()
}

/// Returns a line for each entry that logs have of what was signed.
pub(super) fn logged(signed: &[(Repository, SignReport)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, subject) in
        signed.iter().flat_map(|(at, report)| report.subjects.iter().map(move |one| (at, one)))
    {
        let Subject { descriptor, role } = &subject.subject;
        for StoredSignature { signer, format, logged, .. } in &subject.signatures {
            let of = format!("{role} {at}@{} by {signer} ({format})", descriptor.digest);
            lines.extend(logged.iter().map(|place| format!("logged: {of}: {place}")));
        }
    }
    for (at, SignedAttestation { predicate_type, image, logged, .. }) in attested(signed) {
        let of = format!("{predicate_type} of {at}@{image}");
        lines.extend(logged.iter().map(|place| format!("logged: {of}: {place}")));
    }
    lines
}

/// What each registry can do, and what stands there beside the image.
fn repositories(signed: &[(Repository, SignReport)]) -> Vec<Value> {
    let of = |(at, report): &(Repository, SignReport)| {
        json!({
            "repository": at.to_string(),
            "referrersApi": report.has_referrers,
            "signatureTags": report.tags,
        })
    };
    signed.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{SignedAttestation, SignedSubject, Subject};

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
    fn tekton_chains_joins_the_results() {
        let digest = Digest::of(b"image");
        let mut outcome = outcome();
        outcome.tags.push("s.example/b:1".parse().expect("a tag"));
        assert_eq!(result(&outcome, ResultKind::Url), "r.example/a:1");
        assert_eq!(result(&outcome, ResultKind::Digest), digest.to_string());
        let images = format!("r.example/a@{digest},s.example/b@{digest}");
        assert_eq!(result(&outcome, ResultKind::Images), images);
        let outputs = format!("image=r.example/a:1\nimages={images}\ndigest={digest}\n");
        assert_eq!(result(&outcome, ResultKind::Outputs), outputs);
        let report: Value =
            serde_json::from_str(&json(&outcome, &["cosign verify".to_owned()])).expect("JSON");
        assert_eq!(report["digest"], digest.to_string());
        assert_eq!(report["tags"][2], "s.example/b:1");
        assert_eq!(report["verify"][0], "cosign verify");
    }

    fn signed(at: &str, has_referrers: Option<bool>, kinds: &[&str]) -> (Repository, SignReport) {
        let subject = |name: &str, role: &str| SignedSubject {
            subject: Subject {
                descriptor: Descriptor::bare("m", Digest::of(name.as_bytes()), 5),
                role: role.to_owned(),
            },
            signatures: Vec::new(),
        };
        let attestation = |kind: &&str| SignedAttestation {
            predicate_type: (*kind).to_owned(),
            image: Digest::of(b"amd64"),
            reused: false,
            logged: Vec::new(),
        };
        let report = SignReport {
            subjects: vec![subject("image", "index"), subject("amd64", "linux/amd64")],
            attestations: kinds.iter().map(attestation).collect(),
            has_referrers,
            tags: vec![format!("{}.sig", Digest::of(b"image").tag())],
        };
        (at.parse().expect("a repository"), report)
    }

    #[test]
    fn a_line_says_what_was_written_and_what_the_registry_can_do() {
        let one = |signed, formats| {
            let lines = written(&[signed], formats);
            assert_eq!(lines.len(), 1, "{lines:?}");
            lines[0].clone()
        };
        assert_eq!(
            one(signed("r.example/a", Some(true), &["https://spdx.dev/Document"]), Formats::Both),
            "signed in r.example/a: index, linux/amd64, what was attested (spdxjson); under `.sig` and `.att` tags \
             and as bundles, which the registry lists by its referrers API"
        );
        assert_eq!(
            one(signed("r.example/a", Some(false), &[]), Formats::Bundle),
            "signed in r.example/a: index, linux/amd64; as bundles, which tags `sha256-…` list: the registry has no \
             referrers API"
        );
        assert_eq!(
            one(signed("r.example/a", None, &[]), Formats::Legacy),
            "signed in r.example/a: index, linux/amd64; under `.sig` tags"
        );
        let mut outcome = outcome();
        outcome.signed = vec![signed("r.example/a", Some(false), &["https://slsa.dev/provenance/v1"])];
        let report: Value = serde_json::from_str(&json(&outcome, &[])).expect("JSON");
        let repository = &report["repositories"][0];
        assert_eq!(
            (&repository["repository"], &repository["referrersApi"]),
            (&json!("r.example/a"), &json!(false))
        );
        assert_eq!(repository["signatureTags"][0], format!("{}.sig", Digest::of(b"image").tag()));
        assert_eq!(report["attestations"][0]["predicateType"], "https://slsa.dev/provenance/v1");
    }

    #[test]
    fn on_ttl_sh_signatures_have_a_lifetime_of_their_own() {
        let lines = written(&[signed("ttl.sh/a", Some(false), &[])], Formats::Both);
        assert!(
            lines[1].starts_with("ttl.sh removes an image after the time that its tag names"),
            "{lines:?}"
        );
        assert_eq!(written(&[], Formats::Both), [""; 0]);
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
