//! Signing's readers of what others wrote, each taking any bytes; see [`crate::fuzz`].

use super::check::{self, Expected};
use super::evidence::{Content, Evidence, Verifier};
use super::key::{EncryptedKey, KeyFile, KeyReference, PrivateKey, PublicKey, SealedPair, pbes2};
use super::legacy::{self, Layer, SignatureImage};
use super::trust::check_witnesses;
use super::{
    CertificateIdentity, IdentityPolicy, IdentityVerifier, Leniency, Matcher, ServicePlan, TrustRoot, bundle,
    identity::IdentityToken, payload, referrer,
};
use crate::registry::{Descriptor, Digest};
use std::collections::BTreeMap;
use std::sync::LazyLock;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../integration/fixtures/signing/", $name))
    };
}

/// Those who might believe the seeds.
struct Believers {
    trust: TrustRoot,
    key: PublicKey,
    identity: IdentityVerifier,
}

static BELIEVERS: LazyLock<Believers> = LazyLock::new(|| {
    let trust = TrustRoot::parse(fixture!("trusted-root-local.json")).expect("a fixture");
    let policy = IdentityPolicy {
        subject: Matcher::Exact("dev@example.com".to_owned()),
        issuer: Matcher::Exact("http://127.0.0.1:5621".to_owned()),
    };
    let leniency = Leniency { sct: true, log: false };
    let identity = IdentityVerifier::new(trust.clone(), policy, leniency);
    Believers { trust, key: PublicKey::from_pem(fixture!("cosign.pub")).expect("a fixture"), identity }
});

fn expected() -> Expected {
    Expected { image: Digest::of(b""), docker_reference: None, kind: None, annotations: BTreeMap::new() }
}

fn believe(content: Content<'_>, evidence: &Evidence) {
    let Believers { trust, key, identity } = &*BELIEVERS;
    let _either_way = Verifier::verify(key, content, evidence);
    let _either_way = check_witnesses(trust, key, content, evidence, true);
    let _either_way = identity.verify(content, evidence);
    if let super::Material::Certificate { leaf, .. } = &evidence.material {
        let _either_way = CertificateIdentity::read(leaf);
    }
}

pub(crate) fn keys(bytes: &[u8]) {
    if let Ok(KeyFile::Plain(_)) = KeyFile::parse(bytes) {
        // What is read can be written in cosign's form.
        assert!(SealedPair::pkcs8(bytes, &"".into()).is_ok());
    }
    let _either_way = SealedPair::pkcs8(bytes, &"secret".into());
    let _either_way = pbes2::open(bytes, &"secret".into());
    let _either_way = EncryptedKey::parse(bytes);
    let _either_way = PrivateKey::from_pkcs8(bytes);
    let _either_way = PrivateKey::from_sec1(bytes);
    let _either_way = PrivateKey::from_pkcs1(bytes);
    let _either_way = PublicKey::from_pem(bytes);
    let _either_way = PublicKey::from_spki(bytes);
    let _either_way = CertificateIdentity::read(bytes);
}

pub(crate) fn uris(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<KeyReference>() {
        Ok(KeyReference::Url(_)) => {}
        // What we print is read back as the same.
        Ok(reference) => assert_eq!(reference.to_string().parse(), Ok(reference)),
        Err(error) => drop(error.redact(text)),
    }
}

pub(crate) fn tokens(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = IdentityToken::parse(text, "the fuzzer") {
        let _either_way = token.check("the fuzzer", "sigstore", jiff::Timestamp::UNIX_EPOCH);
    }
}

pub(crate) fn bundles(bytes: &[u8]) {
    if let Ok(opened) = bundle::open(bytes) {
        believe(Content::Statement(&opened.statement), &opened.evidence);
    }
    let _either_way = check::bundle(&Digest::of(bytes), bytes, &expected(), &BELIEVERS.identity);
}

pub(crate) fn signatures(bytes: &[u8]) {
    const PAYLOAD: &[u8] = fixture!("simple-signing-payload.json");
    let _either_way = SignatureImage::config_digest(bytes);
    for layer in legacy::layers_of(bytes).unwrap_or_default() {
        if let Some(evidence) = layer.evidence() {
            believe(Content::Payload(PAYLOAD), &evidence);
        }
        let _either_way = check::layer(&layer, PAYLOAD, &expected(), &BELIEVERS.key);
    }
    // What is added to a manifest of others' is found there again.
    if let Ok(mut image) = SignatureImage::parse(bytes, CONFIG) {
        let evidence = Evidence::new(vec![0], super::Material::PublicKey { hint: String::new() });
        let layer = Layer::new(PAYLOAD, &evidence);
        if image.append(&layer).is_ok() {
            let encoded = image.encode();
            let again = SignatureImage::parse(&encoded.manifest, &encoded.config).expect("it is ours");
            assert!(again.layers().any(|found| *found == layer));
        }
    }
}

/// A config such as each `.sig` manifest has.
const CONFIG: &[u8] =
    br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"history":[],"config":{}}"#;

pub(crate) fn statements(bytes: &[u8]) {
    let _either_way = payload::parse(bytes);
    if let Ok(statement) = bundle::Statement::parse(bytes) {
        let _either_way = (statement.first_sha256(), statement.about(&Digest::of(b"")));
    }
    super::attest::read_any(bytes);
    let mut layer =
        Layer::new(bytes, &Evidence::new(vec![0], super::Material::PublicKey { hint: String::new() }));
    layer.media_type = legacy::ENVELOPE.to_owned();
    let _either_way = check::attestation_layer(
        &layer,
        bytes,
        "https://slsa.dev/provenance/v1",
        &expected(),
        &BELIEVERS.key,
    );
}

pub(crate) fn indexes(bytes: &[u8]) {
    let _either_way = referrer::find(bytes, &Digest::of(b""));
    if let Ok(index) = referrer::FallbackIndex::parse(bytes) {
        let listed = index.descriptors();
        assert!(
            referrer::FallbackIndex::parse(&index.to_vec()).is_ok_and(|again| again.descriptors() == listed)
        );
        for listed in &listed {
            let _either_way = referrer::may_hold(listed, bundle::SIGNED);
        }
    }
    if let Ok(descriptor) = serde_json::from_slice::<Descriptor>(bytes) {
        super::scope::describe(&descriptor);
    }
}

pub(crate) fn trust(bytes: &[u8]) {
    if let Ok(trust) = TrustRoot::parse(bytes) {
        let opened = bundle::open(fixture!("bundle-key-rekorv2-tsa.json")).expect("a fixture");
        let content = Content::Statement(&opened.statement);
        let _either_way = check_witnesses(&trust, &BELIEVERS.key, content, &opened.evidence, true);
    }
    let _either_way = ServicePlan::parse(bytes);
}
