//! What BuildKit attested, signed over the in-memory store and found again as a stranger finds it.

use super::*;
use serde_json::{Value, json};

const SLSA: &str = "https://slsa.dev/provenance/v1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn put(store: &MemoryStore, media_type: &str, json: &Value) -> Descriptor {
    let bytes = Bytes::from(json.to_string());
    let descriptor = Descriptor::of(media_type, &bytes);
    let manifest = Manifest { media_type: media_type.to_owned(), bytes };
    store.edit(|state| state.manifests.insert(descriptor.digest.to_string(), manifest));
    descriptor
}

/// Puts an index of one image with its provenance into the store, as BuildKit does; the statement is about `about`.
fn built(store: &MemoryStore, about: Option<&Digest>) -> SignRequest {
    let image = put(store, MANIFEST, &json!({ "layers": [] }));
    let digest = about.unwrap_or(&image.digest);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": SLSA, "predicate": { "runDetails": {} },
        "subject": [{ "name": "pkg:docker/app", "digest": { "sha256": digest.hex() } }],
    });
    let blob = Bytes::from(statement.to_string());
    let layer = json!({
        "mediaType": "application/vnd.in-toto+json", "digest": Digest::of(&blob).to_string(), "size": blob.len(),
        "annotations": { "in-toto.io/predicate-type": SLSA },
    });
    store.edit(|state| state.blobs.insert(Digest::of(&blob), blob));
    let attestation = put(store, MANIFEST, &json!({ "layers": [layer] }));
    let entry = |of: &Descriptor, more: Value| {
        let mut entry = json!({ "mediaType": MANIFEST, "digest": of.digest.to_string(), "size": of.size });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let about = json!({ "annotations": {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.digest.to_string(),
    }});
    let images = [
        entry(&image, json!({ "platform": { "os": "linux", "architecture": "arm64" } })),
        entry(&attestation, about),
    ];
    SignRequest {
        image: put(store, INDEX, &json!({ "manifests": images })),
        attested_as: Some(vec!["registry.example/team/app:1".parse().unwrap()]),
        ..request()
    }
}

/// Returns how many of this key's provenances a stranger accepts for an image, and what they are about.
async fn accepted(store: &MemoryStore, key: &str, image: Digest) -> Vec<Value> {
    let request = VerifyRequest {
        storage: "registry.example/team/app".parse().unwrap(),
        image,
        wanted: Wanted::Attestation(SLSA.to_owned()),
        docker_reference: None,
        annotations: BTreeMap::new(),
        formats: Formats::Both,
        largest_attestation: ATTESTATION_LIMIT,
    };
    let verdict = verify_image(store, signer(key).verifier(), &request).await.unwrap();
    let statement = |found: AcceptedSignature| {
        use base64::Engine as _;
        let envelope: Value = serde_json::from_str(&found.envelope.unwrap()).unwrap();
        let payload = envelope["payload"].as_str().unwrap();
        let payload = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
        serde_json::from_slice(&payload).unwrap()
    };
    verdict.accepted.into_iter().map(statement).collect()
}

#[tokio::test]
async fn a_stranger_finds_the_provenance_at_the_index_and_at_the_image() {
    for has_api in [true, false] {
        let store = MemoryStore::new(has_api);
        let request = built(&store, None);
        let signers = [signer("p256-pkcs8"), signer("rsa2048-pkcs8")];
        let done = sign_image(&store, &signers, &request, &Events::off()).await.unwrap();
        assert_eq!(done.has_referrers, Some(has_api));
        let [attested] = &done.attestations[..] else { panic!("{done:?}") };
        assert_eq!((attested.predicate_type.as_str(), attested.reused), (SLSA, false));
        for image in [request.image.digest, attested.image] {
            for key in ["p256-pkcs8", "rsa2048-pkcs8"] {
                let statements = accepted(&store, key, image).await;
                assert_eq!(statements.len(), 2, "one in each format");
                for statement in statements {
                    assert_eq!(statement["predicate"], json!({ "runDetails": {} }));
                    assert_eq!(statement["subject"][0]["name"], "registry.example/team/app:1");
                    assert_eq!(statement["subject"][0]["digest"]["sha256"], request.image.digest.hex());
                    assert_eq!(statement["subject"][1]["digest"]["sha256"], attested.image.hex());
                }
            }
        }
        // Again, and nothing is made or written.
        let writes = store.calls("put ");
        let again = sign_image(&store, &signers, &request, &Events::off()).await.unwrap();
        assert!(again.attestations[0].reused && store.calls("put ") == writes);
    }
}

#[tokio::test]
async fn the_tag_of_attestations_keeps_what_stands_there_and_what_comes_between() {
    let store = MemoryStore::new(false);
    let request = built(&store, None);
    let first = [signer("p256-pkcs8")];
    sign_image(&store, &first, &request, &Events::off()).await.unwrap();
    // Another writer overwrites the tag with what he had read before.
    let tag = format!("{}.att", request.image.digest.tag());
    store.edit(|state| state.lost_writes.insert(tag.clone(), 2));
    sign_image(&store, &[signer("rsa2048-pkcs8")], &request, &Events::off()).await.unwrap();
    assert_eq!(store.tag(&tag)["layers"].as_array().unwrap().len(), 2);
    for key in ["p256-pkcs8", "rsa2048-pkcs8"] {
        assert_eq!(accepted(&store, key, request.image.digest).await.len(), 2);
    }
}

#[tokio::test]
async fn a_statement_about_another_image_is_not_signed() {
    let store = MemoryStore::new(true);
    let request = built(&store, Some(&Digest::of(b"another")));
    let refused = sign_image(&store, &[signer("p256-pkcs8")], &request, &Events::off()).await.unwrap_err();
    assert!(matches!(refused, SignError::Attestation { .. }), "{refused}");
    assert_eq!(store.calls("put "), 0);
    // What has no attestations has nothing to sign.
    let plain = SignRequest { image: super::request().image, ..request };
    let none = sign_image(&store, &[signer("p256-pkcs8")], &plain, &Events::off()).await.unwrap();
    assert_eq!(none.attestations, []);
}

/// Signatures and attestations of several signers: each tag is written once, for registries where none can be moved.
#[tokio::test]
async fn each_tag_is_written_once() {
    for has_api in [true, false] {
        let store = MemoryStore::new(has_api);
        let request = SignRequest { scope: Scope::Index, ..built(&store, None) };
        let signers = [signer("p256-pkcs8"), signer("rsa2048-pkcs8")];
        let report = sign_image(&store, &signers, &request, &Events::off()).await.unwrap();
        let image = report.attestations[0].image;
        assert_eq!(report.subjects.len(), 1, "the platform's image is attested, not signed");
        for (digest, ends) in [(request.image.digest, &[".sig", ".att", ""][..]), (image, &[".att", ""])] {
            for end in ends.iter().filter(|end| !(has_api && end.is_empty())) {
                let put = format!("put {}{end}", digest.tag());
                let writes = store.edit(|state| state.calls.iter().filter(|call| **call == put).count());
                assert_eq!(writes, 1, "{put}");
            }
        }
    }
}
