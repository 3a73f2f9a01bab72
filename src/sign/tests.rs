//! The facade over an in-memory store and signer.

mod attest;

use super::key::{KeyFile, PublicKey};
use super::*;
use crate::event::{Event, StepState};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Mutex;

/// A registry in memory, with the faults that real ones produce only now and then.
#[derive(Default)]
struct MemoryStore {
    state: Mutex<State>,
    /// Whether there is a referrers API.
    has_api: bool,
}

#[derive(Default)]
struct State {
    manifests: BTreeMap<String, Manifest>,
    blobs: BTreeMap<Digest, Bytes>,
    referrers: Vec<(Digest, Descriptor)>,
    calls: Vec<String>,
    /// Tags whose next writes are overwritten at once by what stood there before, as a racing writer would.
    lost_writes: BTreeMap<String, u32>,
    /// Tags whose next writes are seen once, and are overwritten then by what stood there before.
    late_losses: BTreeMap<String, u32>,
    /// What will stand at a tag after the next look.
    about_to_come: BTreeMap<String, Option<Manifest>>,
    immutable: Vec<String>,
    /// How many listings still lack the newest referrer.
    slow_listings: u32,
}

impl MemoryStore {
    fn new(has_api: bool) -> Self {
        Self { has_api, ..Self::default() }
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.state.lock().expect("no test panics while it holds the lock"))
    }

    fn calls(&self, what: &str) -> usize {
        self.edit(|state| state.calls.iter().filter(|call| call.starts_with(what)).count())
    }

    fn tag(&self, tag: &str) -> serde_json::Value {
        self.edit(|state| serde_json::from_slice(&state.manifests[tag].bytes).unwrap())
    }

    fn bundle_of(&self, report: &SignReport) -> Digest {
        let location = report.subjects[0]
            .signatures
            .iter()
            .find(|found| found.format == Format::Bundle)
            .unwrap()
            .location;
        let manifest = self.tag(&location.to_string());
        manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get_manifest(&self, _: &Repository, reference: &str) -> Result<Option<Manifest>, StoreError> {
        self.edit(|state| {
            state.calls.push(format!("get {reference}"));
            let found = state.manifests.get(reference).cloned();
            match state.about_to_come.remove(reference) {
                Some(Some(before)) => drop(state.manifests.insert(reference.to_owned(), before)),
                Some(None) => drop(state.manifests.remove(reference)),
                None => {}
            }
            Ok(found)
        })
    }

    async fn put_manifest(
        &self,
        _: &Repository,
        reference: &str,
        manifest: Manifest,
    ) -> Result<(), StoreError> {
        self.edit(|state| {
            state.calls.push(format!("put {reference}"));
            if state.immutable.iter().any(|tag| tag == reference) {
                return Err(StoreError::TagImmutable("409 TAG_IMMUTABLE".into()));
            }
            let digest = Digest::of(&manifest.bytes);
            let json: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
            if let Some(subject) = json["subject"]["digest"].as_str() {
                let mut listed = Descriptor::bare(&manifest.media_type, digest, manifest.bytes.len() as u64);
                listed.artifact_type = json["artifactType"].as_str().map(str::to_owned);
                state.referrers.push((subject.parse().unwrap(), listed));
            }
            state.manifests.insert(digest.to_string(), manifest.clone());
            if let Some(left) = state.late_losses.get_mut(reference).filter(|left| **left > 0) {
                *left -= 1;
                let before = state.manifests.get(reference).cloned();
                state.about_to_come.insert(reference.to_owned(), before);
            }
            match state.lost_writes.get_mut(reference) {
                Some(left) if *left > 0 => *left -= 1,
                _ => drop(state.manifests.insert(reference.to_owned(), manifest)),
            }
            Ok(())
        })
    }

    async fn get_blob(&self, _: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        self.edit(|state| {
            state.calls.push(format!("blob {digest}"));
            let blob =
                state.blobs.get(digest).ok_or_else(|| StoreError::Other(format!("404 {digest}").into()))?;
            assert!(blob.len() <= limit);
            Ok(blob.clone())
        })
    }

    async fn put_blob(&self, _: &Repository, bytes: Bytes) -> Result<(), StoreError> {
        self.edit(|state| {
            state.calls.push("upload".to_owned());
            state.blobs.insert(Digest::of(&bytes), bytes);
            Ok(())
        })
    }

    async fn referrers(
        &self,
        _: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        self.edit(|state| {
            state.calls.push("referrers".to_owned());
            let mut listed: Vec<Descriptor> = state
                .referrers
                .iter()
                .filter(|(of, _)| of == subject)
                .map(|(_, listed)| listed.clone())
                .collect();
            if state.slow_listings > 0 && !listed.is_empty() {
                state.slow_listings -= 1;
                listed.pop();
            }
            Ok(self.has_api.then_some(listed))
        })
    }
}

fn signer(name: &str) -> Box<dyn Signer> {
    let path = format!("{}/integration/fixtures/signing/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let KeyFile::Plain(key) = KeyFile::parse(&std::fs::read(path).unwrap()).unwrap() else {
        panic!("a plain key")
    };
    Box::new(KeySigner::new(name, key))
}

fn request() -> SignRequest {
    SignRequest {
        repository: "registry.example/team/app".parse().unwrap(),
        storage: None,
        image: Descriptor::bare(referrer::OCI_MANIFEST, Digest::of(b"image"), 5),
        scope: Scope::default(),
        formats: Formats::Both,
        annotations: BTreeMap::new(),
        identity: None,
        docker_media_types: false,
        attested_as: None,
        attested: None,
    }
}

fn sig_tag() -> String {
    format!("{}.sig", Digest::of(b"image").tag())
}

async fn sign(store: &MemoryStore, names: &[&str], request: &SignRequest) -> Result<SignReport, SignError> {
    let signers: Vec<_> = names.iter().map(|name| signer(name)).collect();
    sign_image(store, &signers, request, &Events::off()).await
}

#[tokio::test]
async fn both_formats_stand_and_verify() {
    for has_api in [true, false] {
        let store = MemoryStore::new(has_api);
        let report = sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
        let [legacy, bundle] = &report.subjects[0].signatures[..] else { panic!("two signatures") };
        assert_eq!((legacy.format, bundle.format), (Format::Legacy, Format::Bundle));
        assert!(!legacy.reused && !bundle.reused);
        assert_eq!(store.tag(&sig_tag())["layers"].as_array().unwrap().len(), 1);
        let has_fallback = store.edit(|state| state.manifests.contains_key(&Digest::of(b"image").tag()));
        assert_eq!(has_fallback, !has_api, "the fallback tag is for registries without the API");
    }
}

#[tokio::test]
async fn signing_again_adds_nothing() {
    for has_api in [true, false] {
        let store = MemoryStore::new(has_api);
        let first = sign(&store, &["p256-pkcs8", "ed25519-pkcs8"], &request()).await.unwrap();
        let writes = store.calls("put ");
        let again = sign(&store, &["p256-pkcs8", "ed25519-pkcs8"], &request()).await.unwrap();
        assert_eq!(store.calls("put "), writes, "nothing is written a second time");
        let pairs = first.subjects[0].signatures.iter().zip(&again.subjects[0].signatures);
        for (first, again) in pairs {
            assert_eq!((&first.signer, first.location), (&again.signer, again.location));
            assert!(again.reused && !first.reused);
        }
    }
}

#[tokio::test]
async fn another_key_or_other_annotations_are_another_signature() {
    let store = MemoryStore::new(true);
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    let annotated = SignRequest { annotations: BTreeMap::from([("env".into(), "prod".into())]), ..request() };
    sign(&store, &["p256-pkcs8"], &annotated).await.unwrap();
    sign(&store, &["rsa2048-pkcs8"], &request()).await.unwrap();
    assert_eq!(store.tag(&sig_tag())["layers"].as_array().unwrap().len(), 3);
    assert_eq!(store.edit(|state| state.referrers.len()), 3);
}

#[tokio::test]
async fn two_signers_share_one_write() {
    let store = MemoryStore::new(false);
    let names = ["p256-pkcs8", "rsa2048-pkcs8", "p256-pkcs8"];
    let report = sign(&store, &names, &request()).await.unwrap();
    assert_eq!(store.calls(&format!("put {}", sig_tag())), 1);
    assert_eq!(
        store.tag(&sig_tag())["layers"].as_array().unwrap().len(),
        2,
        "one key given twice signs once"
    );
    let fallback = Digest::of(b"image").tag();
    assert_eq!(
        store.edit(|state| state.calls.iter().filter(|call| **call == format!("put {fallback}")).count()),
        1
    );
    assert_eq!(report.subjects[0].signatures.len(), 6);
}

#[tokio::test]
async fn a_lost_write_is_made_again() {
    let store = MemoryStore::new(false);
    let fallback = Digest::of(b"image").tag();
    store.edit(|state| state.lost_writes = BTreeMap::from([(sig_tag(), 1), (fallback.clone(), 1)]));
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    assert_eq!(store.calls(&format!("put {}", sig_tag())), 2);
    assert_eq!(store.tag(&sig_tag())["layers"].as_array().unwrap().len(), 1);
    assert_eq!(store.tag(&fallback)["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_write_that_is_lost_late_is_made_again() {
    let fallback = Digest::of(b"image").tag();
    for tag in [sig_tag(), fallback.clone()] {
        let store = MemoryStore::new(false);
        store.edit(|state| state.late_losses = BTreeMap::from([(tag.clone(), 1)]));
        sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
        assert_eq!(store.edit(|state| state.late_losses[&tag]), 0, "it was lost once");
        assert_eq!(store.tag(&sig_tag())["layers"].as_array().unwrap().len(), 1);
        assert_eq!(store.tag(&fallback)["manifests"].as_array().unwrap().len(), 1);
    }
    let store = MemoryStore::new(true);
    store.edit(|state| state.late_losses = BTreeMap::from([(sig_tag(), u32::MAX)]));
    let error = sign(&store, &["p256-pkcs8"], &request()).await.unwrap_err();
    assert!(matches!(error, SignError::LostRace { .. }), "{error}");
}

#[tokio::test]
async fn losing_every_time_ends() {
    let store = MemoryStore::new(true);
    store.edit(|state| state.lost_writes = BTreeMap::from([(sig_tag(), u32::MAX)]));
    let error = sign(&store, &["p256-pkcs8"], &request()).await.unwrap_err();
    assert!(matches!(error, SignError::LostRace { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_may_list_late_but_not_never() {
    let store = MemoryStore::new(true);
    store.edit(|state| state.slow_listings = 2);
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();

    let store = MemoryStore::new(true);
    store.edit(|state| state.slow_listings = u32::MAX);
    let error = sign(&store, &["p256-pkcs8"], &request()).await.unwrap_err();
    assert!(matches!(error, SignError::NotListed { .. }), "{error}");
}

#[tokio::test]
async fn an_immutable_tag_is_named() {
    let store = MemoryStore::new(true);
    store.edit(|state| state.immutable.push(sig_tag()));
    let error = sign(&store, &["p256-pkcs8"], &request()).await.unwrap_err();
    assert!(matches!(&error, SignError::TagImmutable { tag, .. } if *tag == sig_tag()), "{error}");
    let bundles = SignRequest { formats: Formats::Bundle, ..request() };
    sign(&store, &["p256-pkcs8"], &bundles).await.unwrap();
}

#[tokio::test]
async fn what_is_not_signatures_is_left_alone() {
    for tag in [sig_tag(), Digest::of(b"image").tag()] {
        let store = MemoryStore::new(false);
        let foreign = Manifest { media_type: "x/y".into(), bytes: br#"{"mediaType":"x/y","config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#[..].into() };
        store.edit(|state| {
            state.manifests.insert(tag.clone(), foreign.clone());
            state.blobs.insert(Digest::of(b""), Bytes::new());
        });
        let error = sign(&store, &["p256-pkcs8"], &request()).await.unwrap_err();
        assert!(matches!(&error, SignError::ForeignTag { tag: named, .. } if *named == tag), "{error}");
        assert_eq!(store.edit(|state| state.manifests[&tag].clone()), foreign);
    }
}

/// Signs content that it was not asked to sign.
struct Liar(Box<dyn Signer>);

#[async_trait]
impl Signer for Liar {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn verifier(&self) -> &dyn Verifier {
        self.0.verifier()
    }

    fn public_key(&self) -> Option<&PublicKey> {
        self.0.public_key()
    }

    async fn sign(&self, _: Content<'_>) -> Result<Evidence, SignerError> {
        self.0.sign(Content::Payload(b"something else")).await
    }
}

#[tokio::test]
async fn a_signature_that_does_not_verify_is_an_error() {
    for formats in [Formats::Legacy, Formats::Bundle] {
        let store = MemoryStore::new(true);
        let signers: Vec<Box<dyn Signer>> = vec![Box::new(Liar(signer("p256-pkcs8")))];
        let request = SignRequest { formats, ..request() };
        let error = sign_image(&store, &signers, &request, &Events::off()).await.unwrap_err();
        assert!(matches!(error, SignError::DoesNotVerify { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_changes_content_is_caught() {
    let store = MemoryStore::new(true);
    let report = sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    let bundle = store.bundle_of(&report);
    store.edit(|state| {
        let spoilt =
            String::from_utf8(state.blobs[&bundle].to_vec()).unwrap().replace("\"sig\":\"M", "\"sig\":\"N");
        state.blobs.insert(bundle, spoilt.into());
    });
    let again =
        sign(&store, &["p256-pkcs8"], &SignRequest { formats: Formats::Bundle, ..request() }).await.unwrap();
    assert!(!again.subjects[0].signatures[0].reused, "a spoilt bundle is no signature");
}

#[tokio::test]
async fn the_steps_are_told() {
    let (events, mut receiver) = Events::channel();
    let signers = [signer("p256-pkcs8")];
    sign_image(&MemoryStore::new(true), &signers, &request(), &events).await.unwrap();
    drop(events);
    let mut ended = Vec::new();
    while let Some(event) = receiver.recv().await {
        if let Event::Step { name, state: StepState::Done { cached: false }, .. } = event {
            ended.push(name);
        }
    }
    let short = &Digest::of(b"image").hex()[..12];
    assert_eq!(
        ended,
        [
            format!("uploading sha256-{short}….sig to registry.example/team/app"),
            format!("uploading bundles about sha256:{short} to registry.example/team/app"),
            format!("signing sha256:{short} (image) in registry.example/team/app with key p256-pkcs8"),
            format!("verifying sha256:{short} (image) in registry.example/team/app"),
        ]
    );
}

#[tokio::test]
async fn signatures_can_live_elsewhere_and_name_the_image_all_the_same() {
    let store = MemoryStore::new(true);
    let storage = Some("registry.example/signatures".parse().unwrap());
    sign(&store, &["p256-pkcs8"], &SignRequest { storage, ..request() }).await.unwrap();
    let payload: Digest = store.tag(&sig_tag())["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let text = store.edit(|state| String::from_utf8(state.blobs[&payload].to_vec()).unwrap());
    assert!(text.contains(r#""docker-reference":"registry.example/team/app""#), "{text}");
}

/// A proxy's name in the payload, docker's media types around it; bundles have neither.
#[tokio::test]
async fn registries_of_another_kind_are_served() {
    let store = MemoryStore::new(true);
    let identity = Some("proxy.example/app".to_owned());
    sign(&store, &["p256-pkcs8"], &SignRequest { identity, docker_media_types: true, ..request() })
        .await
        .unwrap();
    let manifest = store.tag(&sig_tag());
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], payload::MEDIA_TYPE);
    let stored = store.edit(|state| state.manifests[&sig_tag()].media_type.clone());
    assert_eq!(stored, "application/vnd.docker.distribution.manifest.v2+json");
    let proxy = |request: &mut VerifyRequest| request.docker_reference = Some("proxy.example/app".to_owned());
    assert_eq!(verify(&store, "p256-pkcs8", proxy).await.accepted.len(), 2);
    // What stands there keeps its types when another signature is added.
    sign(&store, &["rsa2048-pkcs8"], &request()).await.unwrap();
    assert_eq!(store.tag(&sig_tag())["mediaType"], manifest["mediaType"]);
}

/// A builder's signature carries its name, the user's beside it doesn't; signing again adds neither.
#[tokio::test]
async fn a_signer_signs_annotations_of_its_own_along() {
    let store = MemoryStore::new(false);
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let signers = || -> Vec<Box<dyn Signer>> {
        let builders = Annotated::new(signer("rsa2048-pkcs8"), map("builder", "ci"));
        vec![signer("p256-pkcs8"), Box::new(builders)]
    };
    let request = SignRequest { annotations: map("env", "prod"), ..request() };
    for reused in [false, true] {
        let report = sign_image(&store, &signers(), &request, &Events::off()).await.unwrap();
        assert!(report.subjects[0].signatures.iter().all(|found| found.reused == reused), "{report:?}");
    }
    assert_eq!(store.calls(&format!("put {}", sig_tag())), 1, "all layers in one write");
    let by = async |key: &str| {
        let accepted = verify(&store, key, |_| ()).await.accepted;
        accepted.into_iter().map(|found| found.annotations).collect::<Vec<_>>()
    };
    assert_eq!(by("p256-pkcs8").await, [map("env", "prod"), map("env", "prod")]);
    let mut both = map("env", "prod");
    both.extend(map("builder", "ci"));
    assert_eq!(by("rsa2048-pkcs8").await, [both.clone(), both]);
}

#[tokio::test]
async fn an_index_is_expanded_by_scope() {
    let store = MemoryStore::new(true);
    let repository: Repository = "registry.example/team/app".parse().unwrap();
    let platform = |os: &str, arch: &str, name: &[u8]| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":3,"platform":{{"os":"{os}","architecture":"{arch}"}}"#,
            referrer::OCI_MANIFEST,
            Digest::of(name)
        )
    };
    let amd64 = Digest::of(b"amd64");
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}}},{}}},{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{amd64}"}}}}]}}"#,
        referrer::OCI_INDEX,
        platform("linux", "amd64", b"amd64"),
        platform("linux", "arm64", b"arm64"),
        platform("unknown", "unknown", b"attestation"),
    );
    let digest = Digest::of(bytes.as_bytes());
    let root = Descriptor::bare(referrer::OCI_INDEX, digest, bytes.len() as u64);
    let manifest = Manifest { media_type: referrer::OCI_INDEX.into(), bytes: bytes.into() };
    store.edit(|state| state.manifests.insert(digest.to_string(), manifest));
    for (scope, expected) in [
        (Scope::Index, vec!["index"]),
        (Scope::Platforms, vec!["index", "linux/amd64", "linux/arm64"]),
        (Scope::All, vec!["index", "linux/amd64", "linux/arm64", "attestation-manifest of sha256:"]),
    ] {
        let subjects = scope::expand(&store, &repository, &root, scope).await.unwrap();
        let roles: Vec<_> = subjects.iter().map(|subject| subject.role.as_str()).collect();
        assert_eq!(roles.len(), expected.len(), "{roles:?}");
        assert!(roles.iter().zip(&expected).all(|(role, expected)| role.starts_with(expected)), "{roles:?}");
        assert_eq!(subjects[0].descriptor, root);
    }
    let gone = Descriptor { digest: Digest::of(b"gone"), ..root.clone() };
    let missing = scope::expand(&store, &repository, &gone, Scope::All).await.unwrap_err();
    assert!(matches!(missing, ScopeError::Missing { .. }));

    // A request for the index signs each platform, and no attestation.
    let report = sign(&store, &["p256-pkcs8"], &SignRequest { image: root, ..request() }).await.unwrap();
    let signed: Vec<_> = report.subjects.iter().map(|signed| signed.subject.descriptor.digest).collect();
    assert_eq!(signed, [digest, amd64, Digest::of(b"arm64")]);
    for digest in signed {
        assert_eq!(store.tag(&format!("{}.sig", digest.tag()))["layers"].as_array().unwrap().len(), 1);
        let referred = store.edit(|state| state.referrers.iter().filter(|(of, _)| *of == digest).count());
        assert_eq!(referred, 1);
    }
}

async fn verify(store: &MemoryStore, key: &str, change: impl FnOnce(&mut VerifyRequest)) -> Verdict {
    let mut request = VerifyRequest {
        storage: "registry.example/team/app".parse().unwrap(),
        image: Digest::of(b"image"),
        wanted: Wanted::Signature,
        docker_reference: Some("registry.example/team/app".to_owned()),
        annotations: BTreeMap::new(),
        formats: Formats::Both,
        largest_attestation: ATTESTATION_LIMIT,
    };
    change(&mut request);
    verify_image(store, signer(key).verifier(), &request).await.unwrap()
}

#[tokio::test]
async fn a_stranger_with_the_key_verifies_both_formats() {
    for has_api in [true, false] {
        let store = MemoryStore::new(has_api);
        let annotations = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let request = SignRequest { annotations: annotations.clone(), ..request() };
        sign(&store, &["p256-pkcs8", "ed25519-pkcs8"], &request).await.unwrap();

        let verdict = verify(&store, "p256-pkcs8", |request| request.annotations = annotations.clone()).await;
        let formats: Vec<_> = verdict.accepted.iter().map(|accepted| accepted.format).collect();
        assert_eq!(formats, [Format::Legacy, Format::Bundle]);
        assert!(verdict.accepted.iter().all(|accepted| accepted.annotations == annotations));
        assert_eq!(verdict.refused.len(), 2, "the other key's");

        let stranger = verify(&store, "rsa2048-pkcs8", |_| ()).await;
        assert!(stranger.accepted.is_empty() && stranger.refused.len() == 4);
    }
}

#[tokio::test]
async fn what_was_not_signed_is_refused_with_the_reason() {
    let store = MemoryStore::new(true);
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    let reasons =
        |verdict: Verdict| verdict.refused.into_iter().map(|refused| refused.reason).collect::<Vec<_>>();

    let other =
        |request: &mut VerifyRequest| request.docker_reference = Some("registry.example/other".to_owned());
    let verdict = verify(&store, "p256-pkcs8", other).await;
    assert_eq!(verdict.accepted.len(), 1, "bundles name no repository");
    assert_eq!(reasons(verdict), ["it is for the repository registry.example/team/app"]);

    let missing = |request: &mut VerifyRequest| drop(request.annotations.insert("env".into(), "prod".into()));
    assert_eq!(reasons(verify(&store, "p256-pkcs8", missing).await), ["it has no annotation env"; 2]);

    // The signatures moved to another image's places, as someone who can write to the registry might do.
    let other = Digest::of(b"other");
    store.edit(|state| {
        let moved = state.manifests[&sig_tag()].clone();
        state.manifests.insert(format!("{}.sig", other.tag()), moved);
    });
    let verdict = verify(&store, "p256-pkcs8", |request| request.image = other).await;
    assert!(verdict.accepted.is_empty());
    assert_eq!(reasons(verdict), [format!("it is for the image {}", Digest::of(b"image"))]);
}

#[tokio::test]
async fn tampering_is_refused() {
    let fresh = || async {
        let store = MemoryStore::new(true);
        let report = sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
        (store, report)
    };
    // A payload changed in place: the store of this test hands it out under the old digest.
    let (store, _) = fresh().await;
    let payload: Digest = store.tag(&sig_tag())["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    store.edit(|state| drop(state.blobs.insert(payload, Bytes::from_static(b"{}"))));
    let verdict = verify(&store, "p256-pkcs8", |request| request.formats = Formats::Legacy).await;
    assert_eq!(verdict.refused[0].reason, format!("its payload is not the content of {payload}"));

    // A payload replaced together with its digest.
    let (store, _) = fresh().await;
    store.edit(|state| {
        let forged =
            String::from_utf8(state.blobs[&payload].to_vec()).unwrap().replace("null", r#"{"env":"prod"}"#);
        let manifest = String::from_utf8(state.manifests[&sig_tag()].bytes.to_vec()).unwrap();
        let manifest = manifest.replace(&payload.to_string(), &Digest::of(forged.as_bytes()).to_string());
        state.blobs.insert(Digest::of(forged.as_bytes()), forged.into());
        state.manifests.get_mut(&sig_tag()).unwrap().bytes = manifest.into();
    });
    let verdict = verify(&store, "p256-pkcs8", |request| request.formats = Formats::Legacy).await;
    assert_eq!(verdict.refused[0].reason, "it is not a signature of this key over this content");

    // A bundle whose statement was exchanged.
    let (store, report) = fresh().await;
    let bundle = store.bundle_of(&report);
    let opened = bundle::open(&store.edit(|state| state.blobs[&bundle].clone())).unwrap();
    let forged =
        bundle::signed_statement(&Digest::of(b"image"), &BTreeMap::from([("env".into(), "prod".into())]));
    let forged = bundle::encode(&forged, &opened.evidence);
    let expected = check::Expected {
        image: Digest::of(b"image"),
        docker_reference: None,
        kind: None,
        annotations: BTreeMap::new(),
    };
    let signer = signer("p256-pkcs8");
    let reason = check::bundle(&Digest::of(&forged), &forged, &expected, signer.verifier()).unwrap_err();
    assert_eq!(reason, "it is not a signature of this key over this content");
}

/// What stands in one place hides nothing of the other, be it foreign, gone or unreadable.
#[tokio::test]
async fn neither_place_hides_the_other() {
    let formats = |verdict: &Verdict| verdict.accepted.iter().map(|found| found.format).collect::<Vec<_>>();
    let foreign = || Manifest { media_type: "x/y".into(), bytes: br#"{"mediaType":"x/y"}"#[..].into() };
    let store = MemoryStore::new(false);
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    for (tag, left) in [(sig_tag(), Format::Bundle), (Digest::of(b"image").tag(), Format::Legacy)] {
        let before = store.edit(|state| state.manifests.insert(tag.clone(), foreign()).unwrap());
        let verdict = verify(&store, "p256-pkcs8", |_| ()).await;
        assert_eq!(formats(&verdict), [left]);
        assert!(verdict.refused[0].reason.contains("something else"), "{verdict:?}");
        store.edit(|state| state.manifests.insert(tag, before));
    }
    let payload: Digest = store.tag(&sig_tag())["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    store.edit(|state| drop(state.blobs.remove(&payload)));
    assert_eq!(formats(&verify(&store, "p256-pkcs8", |_| ()).await), [Format::Bundle]);
    // Whether what can't be read was signed by another key nobody knows.
    let mut request = VerifyRequest {
        storage: "registry.example/team/app".parse().unwrap(),
        image: Digest::of(b"image"),
        wanted: Wanted::Signature,
        docker_reference: None,
        annotations: BTreeMap::new(),
        formats: Formats::Both,
        largest_attestation: ATTESTATION_LIMIT,
    };
    let stranger = signer("rsa2048-pkcs8");
    let error = verify_image(&store, stranger.verifier(), &request).await.unwrap_err();
    assert!(error.store().is_some(), "{error}");
    request.formats = Formats::Bundle;
    assert!(verify_image(&store, stranger.verifier(), &request).await.unwrap().accepted.is_empty());
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Puts a signed statement of this predicate type about the image into the store, in both formats.
async fn attest(store: &MemoryStore, key: &str, predicate_type: &str) {
    let at = "registry.example/team/app".parse().unwrap();
    let image = request().image;
    let statement = String::from_utf8(bundle::signed_statement(&image.digest, &BTreeMap::new())).unwrap();
    let statement = statement.replace(bundle::SIGNED, predicate_type);
    let evidence = signer(key).sign(Content::Statement(statement.as_bytes())).await.unwrap();
    let blob = bundle::encode(statement.as_bytes(), &evidence);
    let referrer = referrer::referrer(&image, &blob, predicate_type, "2026-11-21T23:56:25Z");
    store.put_blob(&at, blob.into()).await.unwrap();
    let digest = referrer.entry.digest.to_string();
    let manifest = Manifest { media_type: referrer::OCI_MANIFEST.into(), bytes: referrer.manifest.into() };
    store.put_manifest(&at, &digest, manifest).await.unwrap();

    use base64::Engine as _;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let envelope = serde_json::json!({
        "payloadType": bundle::STATEMENT, "payload": base64(statement.as_bytes()),
        "signatures": [{ "keyid": "", "sig": base64(b"another's") }, { "sig": base64(&evidence.signature) }],
    });
    let envelope = serde_json::to_vec(&envelope).unwrap();
    let layer = serde_json::json!({
        "mediaType": "application/vnd.dsse.envelope.v1+json", "size": envelope.len(),
        "digest": Digest::of(&envelope), "annotations": {
            "dev.cosignproject.cosign/signature": "", "predicateType": predicate_type,
        },
    });
    store.put_blob(&at, envelope.into()).await.unwrap();
    let manifest = serde_json::json!({ "schemaVersion": 2, "layers": [layer] });
    let manifest = Manifest { media_type: referrer::OCI_MANIFEST.into(), bytes: manifest.to_string().into() };
    store.put_manifest(&at, &format!("{}.att", image.digest.tag()), manifest).await.unwrap();
}

#[tokio::test]
async fn attestations_are_verified_by_type_and_are_no_signatures() {
    let store = MemoryStore::new(true);
    attest(&store, "p256-pkcs8", PROVENANCE).await;
    let wanted = |kind: &str| Wanted::Attestation(kind.to_owned());
    let verdict = verify(&store, "p256-pkcs8", |request| request.wanted = wanted(PROVENANCE)).await;
    let [legacy, bundle] = &verdict.accepted[..] else { panic!("both formats: {verdict:?}") };
    assert_eq!((legacy.format, bundle.format), (Format::Legacy, Format::Bundle));
    for found in [legacy, bundle] {
        assert_eq!(found.kind, PROVENANCE);
        let envelope: serde_json::Value =
            serde_json::from_str(found.envelope.as_ref().expect("an envelope")).unwrap();
        assert_eq!(envelope["payloadType"], bundle::STATEMENT);
    }
    let signed = verify(&store, "p256-pkcs8", |_| ()).await;
    assert!(signed.accepted.is_empty(), "a provenance is no approval: {signed:?}");
    let sbom = |request: &mut VerifyRequest| request.wanted = wanted("https://spdx.dev/Document");
    assert!(verify(&store, "p256-pkcs8", sbom).await.accepted.is_empty());
    let stranger = verify(&store, "rsa2048-pkcs8", |request| request.wanted = wanted(PROVENANCE)).await;
    assert!(stranger.accepted.is_empty() && stranger.refused.len() == 2, "{stranger:?}");
    // A label that lies about the statement below it.
    let store = MemoryStore::new(true);
    attest(&store, "p256-pkcs8", PROVENANCE).await;
    store.edit(|state| {
        for manifest in state.manifests.values_mut() {
            let text = String::from_utf8(manifest.bytes.to_vec()).unwrap();
            manifest.bytes = text.replace(PROVENANCE, "https://sigstore.dev/cosign/sign/v1").into();
        }
    });
    let verdict = verify(&store, "p256-pkcs8", |_| ()).await;
    assert!(verdict.accepted.is_empty(), "{verdict:?}");
}

/// As cosign does; our own signatures must say what they are.
#[tokio::test]
async fn any_kind_of_simple_signing_counts() {
    let store = MemoryStore::new(true);
    sign(&store, &["p256-pkcs8"], &request()).await.unwrap();
    let payload: Digest = store.tag(&sig_tag())["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let text = store.edit(|state| String::from_utf8(state.blobs[&payload].to_vec()).unwrap());
    let text = text.replace("cosign container image signature", "atomic container signature");
    let evidence = signer("p256-pkcs8").sign(Content::Payload(text.as_bytes())).await.unwrap();
    let layer = legacy::Layer::new(text.as_bytes(), &evidence);
    let manifest = serde_json::json!({ "layers": [layer] }).to_string();
    store.edit(|state| {
        state.blobs.insert(layer.digest, text.into());
        state.manifests.get_mut(&sig_tag()).unwrap().bytes = manifest.into();
    });
    let verdict = verify(&store, "p256-pkcs8", |request| request.formats = Formats::Legacy).await;
    assert_eq!(verdict.accepted[0].kind, "atomic container signature", "{verdict:?}");
}

proptest::proptest! {
    /// Whatever somebody pushes there is refused, not crashed on.
    #[test]
    fn no_envelope_or_manifest_panics(bytes: Vec<u8>, payload: Vec<u8>, signature: String) {
        use base64::Engine as _;
        let verifier = signer("p256-pkcs8");
        let expected = check::Expected {
            image: Digest::of(b"image"), docker_reference: None, kind: None, annotations: BTreeMap::new(),
        };
        let envelope = serde_json::json!({
            "payloadType": bundle::STATEMENT,
            "payload": base64::engine::general_purpose::STANDARD.encode(&payload),
            "signatures": [{ "sig": signature }],
        });
        for blob in [bytes.clone(), envelope.to_string().into_bytes()] {
            let mut layer = legacy::Layer::new(&blob, &Evidence::new(Vec::new(), Material::PublicKey { hint: String::new() }));
            layer.digest = Digest::of(&blob);
            let checked = check::attestation_layer(&layer, &blob, PROVENANCE, &expected, verifier.verifier());
            proptest::prop_assert!(checked.is_err());
        }
        let _either_way = legacy::layers_of(&bytes);
    }
}
