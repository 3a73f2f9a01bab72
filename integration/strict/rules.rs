//! What verifiers look for, by the rules of their own sources, in what we wrote: Kyverno's three kinds of policies
//! (pkg/image/verifiers, pkg/cosign/sigstore.go) and BuildKit's source policy (moby policy-helpers, image/resolve.go).
//! Only the selection: whether what they select verifies is asked of cosign and policy-controller elsewhere.

use crate::strict_registry::{Referrers, StrictRegistry, Switches};
use crate::{BUNDLE, Home, SLSA, built};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubectl_build::registry::Digest;
use rstest::rstest;
use serde_json::Value;

const APP: &str = "team/app";
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

fn digest(value: &Value) -> Digest {
    value.as_str().expect("a digest").parse().expect("a digest")
}

/// Returns what a verifier lists as referrers: by the API, or else from the fallback tag.
fn listed(registry: &StrictRegistry, subject: &Digest) -> Vec<Value> {
    match registry.switches().referrers {
        Referrers::Listed => registry.referrers(APP, subject),
        _ => registry.json(APP, &subject.tag())["manifests"].as_array().expect("entries").clone(),
    }
}

/// Kyverno's `SigstoreBundle`: entries by the prefix of their artifact type, at most 50 referrers in all, the first layer
/// of each a bundle of at most 10 MB. Returns the statements.
fn kyverno_bundles(registry: &StrictRegistry, image: &Digest) -> Vec<Value> {
    let referrers = listed(registry, image);
    assert!(referrers.len() <= 50, "{}", referrers.len());
    let prefix = "application/vnd.dev.sigstore.bundle";
    let bundles =
        referrers.iter().filter(|entry| entry["artifactType"].as_str().unwrap().starts_with(prefix));
    bundles.map(|entry| statement(registry, &digest(&entry["digest"]))).collect()
}

/// Returns the statement of the bundle that a referrer holds.
fn statement(registry: &StrictRegistry, referrer: &Digest) -> Value {
    let manifest = registry.json(APP, &referrer.to_string());
    let layer = &manifest["layers"][0];
    assert!(layer["size"].as_u64().unwrap() <= 10_000_000);
    let bundle = registry.blob(APP, &digest(&layer["digest"])).expect("the bundle is there");
    let bundle: Value = serde_json::from_slice(&bundle).expect("JSON");
    assert_eq!(bundle["mediaType"], BUNDLE);
    let envelope = &bundle["dsseEnvelope"];
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    let payload = BASE64_STANDARD.decode(envelope["payload"].as_str().unwrap()).expect("base64");
    serde_json::from_slice(&payload).expect("a statement")
}

fn is_about(statement: &Value, image: &Digest) -> bool {
    let subjects = statement["subject"].as_array().expect("subjects");
    subjects.iter().any(|subject| subject["digest"]["sha256"] == image.hex().as_str())
}

#[rstest]
#[case(Referrers::Listed)]
#[case(Referrers::Missing(404))]
fn verifiers_select_what_was_written(#[case] referrers: Referrers) {
    let registry = StrictRegistry::start(Switches { referrers, ..Switches::default() });
    let home = Home::new();
    let image = built(&registry, APP);
    let keys = ["--cosign-key", "one.pem", "--cosign-key", "two.pem", "--sign-scope", "all"];
    home.sign(&registry, APP, &image, &keys).ok();
    let index = registry.json(APP, "1");
    let root = image.digest;

    // `type: Cosign` (`count: 2` takes one layer of each key) and its attestations.
    let layers = |end: &str, media_type: &str| {
        let manifest = registry.json(APP, &format!("{}{end}", root.tag()));
        let layers = manifest["layers"].as_array().expect("layers").clone();
        assert!(layers.iter().all(|layer| layer["mediaType"] == media_type), "{manifest}");
        layers
    };
    let signatures = layers(".sig", "application/vnd.dev.cosign.simplesigning.v1+json");
    assert_eq!(signatures.len(), 2);
    let payload = registry.blob(APP, &digest(&signatures[0]["digest"])).expect("it is there");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(payload["critical"]["type"], "cosign container image signature");
    assert_eq!(payload["critical"]["image"]["docker-manifest-digest"], root.to_string());
    let attestations = layers(".att", "application/vnd.dsse.envelope.v1+json");
    assert_eq!(attestations.len(), 4, "two platforms' provenance by two keys");
    assert!(attestations.iter().all(|layer| layer["annotations"]["predicateType"] == SLSA));

    // `type: SigstoreBundle`: of the index, since that is what a tag resolves to, and of what runtimes pull.
    let entries = index["manifests"].as_array().expect("entries");
    let images = entries.iter().take(2).map(|entry| digest(&entry["digest"]));
    for (image, provenances) in [(root, 4)].into_iter().chain(images.map(|image| (image, 2))) {
        let statements = kyverno_bundles(&registry, &image);
        let of = |kind: &str| statements.iter().filter(|one| one["predicateType"] == kind).count();
        assert_eq!((of(SIGNED), of(SLSA)), (2, provenances), "{statements:?}");
        assert!(statements.iter().all(|statement| is_about(statement, &image)), "{statements:?}");
        // ImageValidatingPolicy: `extractPayload(…).predicate.buildDefinition` of the index's provenance.
        let provenance = statements.iter().find(|one| one["predicateType"] == SLSA).expect("one");
        assert!(
            provenance["predicate"]["buildDefinition"]["buildType"].is_string()
                && is_about(provenance, &root)
        );
    }

    // BuildKit's source policy, for each platform: its attestation manifest by the annotations of the index, then that
    // manifest's bundle by the artifact type, whose subject must be it, and in it a layer of SLSA provenance.
    for platform in entries.iter().take(2) {
        let about = &platform["digest"];
        let attestation = entries.iter().find(|entry| {
            entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
                && entry["annotations"]["vnd.docker.reference.digest"] == *about
        });
        let attestation = attestation.expect("an attestation manifest");
        let at = digest(&attestation["digest"]);
        let bundles: Vec<_> =
            listed(&registry, &at).into_iter().filter(|entry| entry["artifactType"] == BUNDLE).collect();
        assert_eq!(bundles.len(), 2, "one for each key");
        for entry in bundles {
            let signature = registry.json(APP, entry["digest"].as_str().unwrap());
            assert_eq!(signature["artifactType"], BUNDLE);
            let subject = &signature["subject"];
            let same = |field: &str| subject[field] == attestation[field];
            assert!(["mediaType", "digest", "size"].into_iter().all(same), "{subject} is not {attestation}");
            let statement = statement(&registry, &digest(&entry["digest"]));
            assert!(statement["predicateType"] == SIGNED && is_about(&statement, &at), "{statement}");
        }
        let manifest = registry.json(APP, &at.to_string());
        let kinds = ["https://slsa.dev/provenance/v0.2", SLSA];
        let is_slsa = |layer: &Value| {
            kinds.iter().any(|kind| layer["annotations"]["in-toto.io/predicate-type"] == *kind)
        };
        assert!(manifest["layers"].as_array().unwrap().iter().any(is_slsa));
    }
}
