//! Who is trusted: certificate authorities, logs and clocks of a TrustedRoot, and the verifiers that stand on it.
//!
//! The only module that knows `sigstore-verify`, which does the certificate paths, SCTs, v1 logs and timestamps; entries
//! of v2 logs are checked in `inclusion`. A `.sig` layer is shown to it as a bundle that signs a file, whose content is
//! the payload.

mod inclusion;
mod parts;
mod tuf;

pub use parts::TrustParts;
pub use tuf::{Refreshed, TufError, TufRepository};

use super::bundle;
use super::evidence::{Content, Evidence, Material, Verifier};
use super::key::{KeyKind, PublicKey};
use super::log::LogEntry;
use crate::registry::Digest;
use regex::Regex;
use sigstore_types::bundle::{
    CertificateContent, MessageDigest, MessageSignature, PublicKeyIdentifier, TimestampVerificationData,
    VerificationMaterial,
};
use sigstore_types::{
    Artifact, Bundle, DerCertificate, DerPublicKey, DigestBytes, DsseEnvelope, DsseSignature, HashAlgorithm,
    KeyId, MediaType, PayloadBytes, Rfc3161Timestamp, Sha256Hash, SignatureBytes, SignatureContent,
    TimestampToken, VerificationMaterialContent,
};
use sigstore_verify::crypto::{Keyring, parse_certificate_info};
use sigstore_verify::trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The authorities, logs and clocks that signatures are checked against. Clones share one.
#[derive(Clone)]
pub struct TrustRoot {
    verifier: Arc<sigstore_verify::Verifier>,
    root: Arc<TrustedRoot>,
    logs: Arc<Keyring>,
}

/// Why a file is no TrustedRoot.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not text, or not the JSON of one.
    #[error("it is no TrustedRoot (the JSON that `cosign trusted-root create` writes)")]
    Json(#[source] Box<dyn Error + Send + Sync>),
    /// A key or certificate in it is none, or stands there twice.
    #[error("it holds a key or certificate that cannot be used")]
    Content(#[source] Box<dyn Error + Send + Sync>),
}

impl TrustRoot {
    /// Reads the JSON of a TrustedRoot, version 0.1.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn parse(json: &[u8]) -> Result<Self, TrustError> {
        let text = std::str::from_utf8(json).map_err(|error| TrustError::Json(Box::new(error)))?;
        let root = TrustedRoot::from_json(text).map_err(|error| TrustError::Json(Box::new(error)))?;
        let verifier =
            sigstore_verify::Verifier::new(&root).map_err(|error| TrustError::Content(Box::new(error)))?;
        let logs = root.rekor_keys().map_err(|error| TrustError::Content(Box::new(error)))?;
        Ok(Self { verifier: Arc::new(verifier), root: Arc::new(root), logs: Arc::new(logs) })
    }

    /// Returns the trust root of the public instance, as it was when this program was made.
    pub fn public() -> Self {
        Self::parse(SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes()).expect("the library's own snapshot is valid")
    }

    /// Whether certificates can be checked for having been logged: the root names certificate logs.
    pub fn has_certificate_logs(&self) -> bool {
        !self.root.ctlogs.is_empty()
    }

    /// Returns the address of a log, by its id.
    pub fn log_url(&self, id: &[u8]) -> Option<String> {
        let log = self.root.tlogs.iter().find(|log| log.log_id.key_id.as_bytes() == id)?;
        Some(log.base_url.trim_end_matches('/').to_owned()).filter(|url| !url.is_empty())
    }

    /// Whether it names any transparency log.
    pub fn has_logs(&self) -> bool {
        !self.root.tlogs.is_empty()
    }
}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TrustedRoot { certificate_authorities, tlogs, ctlogs, timestamp_authorities, .. } = &*self.root;
        let (authorities, logs) = (certificate_authorities.len(), tlogs.len());
        let (certificate_logs, clocks) = (ctlogs.len(), timestamp_authorities.len());
        write!(
            formatter,
            "TrustRoot({authorities} authorities, {logs} logs, {certificate_logs} certificate logs, {clocks} clocks)"
        )
    }
}

/// What a name in a certificate must be.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// This, letter for letter.
    Exact(String),
    /// Something that this matches anywhere, as with cosign: anchor it with `^…$`.
    Pattern(Regex),
}

impl Matcher {
    fn accepts(&self, found: Option<&str>) -> bool {
        match (self, found) {
            (_, None) => false,
            (Self::Exact(expected), Some(found)) => expected == found,
            (Self::Pattern(pattern), Some(found)) => pattern.is_match(found),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(formatter, "`{text}`"),
            Self::Pattern(pattern) => write!(formatter, "something like `{pattern}`"),
        }
    }
}

/// Who a certificate must have been issued to, and by whose word.
#[derive(Clone, Debug)]
pub struct IdentityPolicy {
    /// The subject alternative name.
    pub subject: Matcher,
    /// The issuer of the token that the certificate was given for.
    pub issuer: Matcher,
}

/// What a certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The subject alternative name: an e-mail address, or a URI of a service account or workflow.
    pub subject: Option<String>,
    /// The issuer of the token that the certificate was given for.
    pub issuer: Option<String>,
    /// When it begins to be valid.
    pub not_before: jiff::Timestamp,
    /// When it ends.
    pub not_after: jiff::Timestamp,
    /// The key that it certifies, SPKI in DER.
    pub spki: Vec<u8>,
    /// It carries a certificate log's word (an SCT).
    pub is_logged: bool,
}

impl CertificateIdentity {
    /// Reads a certificate (DER); nothing of it is verified.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(certificate: &[u8]) -> Result<Self, String> {
        let info = parse_certificate_info(&DerCertificate::from_bytes(certificate))
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        Ok(Self {
            subject: info.identity.map(|name| name.as_str().to_owned()),
            issuer: info.issuer,
            not_before: info.not_before,
            not_after: info.not_after,
            spki: info.public_key.as_bytes().to_vec(),
            is_logged: certificate.windows(OID_SCT.len()).any(|window| window == OID_SCT),
        })
    }
}

/// The extension for SCTs, 1.3.6.1.4.1.11129.2.4.2 (RFC 6962 3.3).
const OID_SCT: &[u8] = &[0x06, 10, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];

/// What an identity's signature may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// No proof that the certificate was logged.
    pub sct: bool,
    /// No entry in a transparency log; the time must come from a timestamp then.
    pub log: bool,
}

/// Accepts what was signed with a certificate of a trusted authority, issued to whom the policy names.
#[derive(Clone, Debug)]
pub struct IdentityVerifier {
    trust: TrustRoot,
    policy: IdentityPolicy,
    leniency: Leniency,
}

impl IdentityVerifier {
    /// Returns a verifier. The strictest [`Leniency`] is its default.
    pub fn new(trust: TrustRoot, policy: IdentityPolicy, leniency: Leniency) -> Self {
        Self { trust, policy, leniency }
    }
}

impl Verifier for IdentityVerifier {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        let Material::Certificate { leaf, .. } = &evidence.material else {
            return Err(super::verify::NO_CERTIFICATE.to_owned());
        };
        let IdentityPolicy { subject, issuer } = &self.policy;
        let found = CertificateIdentity::read(leaf)?;
        let text = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
        if !subject.accepts(found.subject.as_deref()) {
            return Err(format!("it is by `{}`, not by {subject}", text(&found.subject)));
        }
        if !issuer.accepts(found.issuer.as_deref()) {
            return Err(format!(
                "its identity was vouched for by `{}`, not by {issuer}",
                text(&found.issuer)
            ));
        }
        let mut policy = VerificationPolicy::any_identity();
        if self.leniency.sct {
            policy = policy.skip_sct();
        }
        let mut without_proof = true;
        if !self.leniency.log {
            without_proof = is_checked_without_proof(evidence)?;
            let key = PublicKey::from_spki(&found.spki).map_err(|error| error.to_string())?;
            self.trust.check_inclusion(&key, content, evidence)?;
            if evidence.timestamps.is_empty() && evidence.logged.iter().all(LogEntry::is_v2) {
                return Err(
                    "nothing says when it was made: its log gives no time, and no clock saw it".to_owned()
                );
            }
        }
        if without_proof {
            policy = policy.skip_tlog_unsafe();
        }
        let shown = shown(content, evidence)?;
        let verified = self.trust.verifier.verify(shown.artifact()?, &shown.bundle, &policy);
        // It looks at every timestamp, but has fewer words for what is wrong with one.
        verified.map(|_| ()).map_err(|error| match self.trust.check_timestamps(evidence) {
            Err(words) => words,
            Ok(()) => reason(&error),
        })
    }

    fn trust(&self) -> Option<&TrustRoot> {
        // Without a log's word the entries were not looked at.
        (!self.leniency.log).then_some(&self.trust)
    }
}

/// Accepts signatures of a key that trusted logs or clocks have seen.
#[derive(Clone, Debug)]
pub struct WitnessedKey {
    key: PublicKey,
    trust: TrustRoot,
}

impl WitnessedKey {
    /// Returns a verifier that wants a log's entry for each signature of this key.
    pub fn new(key: PublicKey, trust: TrustRoot) -> Self {
        Self { key, trust }
    }
}

impl Verifier for WitnessedKey {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        Verifier::verify(&self.key, content, evidence)?;
        check_witnesses(&self.trust, &self.key, content, evidence, true)
    }

    fn trust(&self) -> Option<&TrustRoot> {
        Some(&self.trust)
    }
}

/// Whether v1 logs take signatures of such a key over SHA-256, which is what `cosign verify` wants: for the larger curves
/// they want longer hashes, and for Ed25519 its pre-hashed variant.
pub(super) fn is_loggable(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::EcdsaP256 | KeyKind::Rsa { .. })
}

/// Checks what logs and clocks say of a key's signature, which holds.
pub(super) fn check_witnesses(
    trust: &TrustRoot,
    key: &PublicKey,
    content: Content<'_>,
    evidence: &Evidence,
    log_wanted: bool,
) -> Result<(), String> {
    trust.check_inclusion(key, content, evidence)?;
    if log_wanted {
        trust.check_promises(evidence)?;
    }
    let without_proof = !log_wanted || is_checked_without_proof(evidence)?;
    if evidence.logged.iter().all(LogEntry::is_v2) {
        return trust.check_timestamps(evidence);
    }
    if !is_loggable(key.kind()) {
        return Err(format!("v1 logs take no signatures of {} keys over SHA-256", key.kind()));
    }
    let mut policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(key.spki()));
    if without_proof {
        policy = policy.skip_tlog_unsafe();
    }
    let mut shown = shown(content, evidence)?;
    // Beside a `.sig` signature a certificate may stand that this verifier has no use for.
    shown.bundle.verification_material.content =
        VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(String::new()));
    trust
        .verifier
        .verify(shown.artifact()?, &shown.bundle, &policy)
        .map(|_| ())
        .map_err(|error| reason(&error))
}

/// Whether the library is to look for no proof of inclusion: all entries are v2 logs', or a v1 log's promise is all that
/// there is. Layers have no place for a proof, so the promise, which was checked, has to do.
fn is_checked_without_proof(evidence: &Evidence) -> Result<bool, String> {
    if evidence.logged.is_empty() {
        return Err("no transparency log has it".to_owned());
    }
    let mut v1 = evidence.logged.iter().filter(|entry| !entry.is_v2()).map(LogEntry::inner).peekable();
    if v1.peek().is_none() {
        return Ok(true);
    }
    let (mut proven, mut promised) = (true, false);
    for entry in v1 {
        proven &= entry.inclusion_proof.is_some();
        promised |= entry.inclusion_promise.is_some() && entry.integrated_time.is_some();
    }
    match (proven, promised) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err("its log entry proves nothing".to_owned()),
    }
}

/// Evidence in the form that the library verifies, without the entries of v2 logs.
struct Shown<'a> {
    bundle: Bundle,
    content: Content<'a>,
}

impl Shown<'_> {
    /// Returns what is signed about: a payload itself, or the first subject of a statement, which our caller
    /// compares with the image.
    fn artifact(&self) -> Result<Artifact<'_>, String> {
        match self.content {
            Content::Payload(bytes) => Ok(Artifact::from_blob(bytes)),
            Content::Statement(bytes) => {
                let statement = bundle::Statement::parse(bytes).map_err(|error| error.to_string())?;
                let hex = statement.first_sha256().ok_or("its statement is about nothing")?;
                let digest = Sha256Hash::from_hex(hex).map_err(|error| error.to_string())?;
                Ok(Artifact::from_digest(digest))
            }
        }
    }
}

fn shown<'a>(content: Content<'a>, evidence: &Evidence) -> Result<Shown<'a>, String> {
    let material = match &evidence.material {
        Material::PublicKey { hint } => {
            VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(hint.clone()))
        }
        Material::Certificate { leaf, .. } => VerificationMaterialContent::Certificate(
            CertificateContent::new(DerCertificate::from_bytes(leaf)),
        ),
    };
    let entries = evidence.logged.iter().filter(|entry| !entry.is_v2());
    let entries = entries.map(|entry| entry.inner().clone()).collect();
    let stamps = evidence.timestamps.iter().map(|der| Rfc3161Timestamp::new(TimestampToken::from_bytes(der)));
    let material = VerificationMaterial::new(material)
        .with_tlog_entries(entries)
        .with_timestamp_verification_data(TimestampVerificationData::new(stamps.collect()));
    let signature = SignatureBytes::from_bytes(&evidence.signature);
    let signed = match content {
        Content::Payload(bytes) => {
            let digest = DigestBytes::new(Digest::of(bytes).bytes().to_vec());
            let digest = MessageDigest::new(HashAlgorithm::Sha2256, digest);
            SignatureContent::MessageSignature(MessageSignature::new(signature).with_message_digest(digest))
        }
        Content::Statement(bytes) => SignatureContent::DsseEnvelope(DsseEnvelope::new(
            bundle::STATEMENT,
            PayloadBytes::from_bytes(bytes),
            DsseSignature::new(signature, KeyId::default()),
        )),
    };
    Ok(Shown { bundle: Bundle::new(MediaType::Bundle0_3, material, signed), content })
}

/// The library's chain of errors in one clause.
fn reason(error: &sigstore_verify::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{Hash, PrivateKey};
    use crate::sign::legacy::SignatureImage;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../integration/fixtures/signing/", $name)).as_slice()
        };
    }

    /// The instance that made the fixtures with Rekor v2.
    fn local() -> TrustRoot {
        TrustRoot::parse(fixture!("trusted-root-local.json")).unwrap()
    }

    /// The emulator that made those with Rekor v1.
    fn emulator() -> TrustRoot {
        TrustRoot::parse(fixture!("trusted-root-emulator.json")).unwrap()
    }

    fn exact(subject: &str, issuer: &str) -> IdentityPolicy {
        IdentityPolicy { subject: Matcher::Exact(subject.into()), issuer: Matcher::Exact(issuer.into()) }
    }

    const DEV: &str = "dev@example.com";
    const ISSUER: &str = "http://127.0.0.1:5621";
    const NO_SCT: Leniency = Leniency { sct: true, log: false };

    fn keyless() -> bundle::Opened {
        bundle::open(fixture!("bundle-keyless-rekorv2-tsa.json")).unwrap()
    }

    fn refused(verifier: &IdentityVerifier, opened: &bundle::Opened) -> String {
        verifier.verify(Content::Statement(&opened.statement), &opened.evidence).unwrap_err()
    }

    #[test]
    fn cosigns_keyless_bundle_is_accepted_for_its_signer_alone() {
        let opened = keyless();
        let verify = |policy: IdentityPolicy| {
            let verifier = IdentityVerifier::new(local(), policy, NO_SCT);
            verifier.verify(Content::Statement(&opened.statement), &opened.evidence)
        };
        assert_eq!(verify(exact(DEV, ISSUER)), Ok(()));
        let pattern = |text: &str| Matcher::Pattern(Regex::new(text).unwrap());
        let by_pattern = IdentityPolicy { subject: pattern("^dev@"), issuer: pattern("5621$") };
        assert_eq!(verify(by_pattern), Ok(()));
        assert!(verify(exact("eve@example.com", ISSUER)).unwrap_err().contains("by `dev@example.com`"));
        assert!(verify(exact(DEV, "http://other")).unwrap_err().contains("vouched for by"));
    }

    #[test]
    fn every_piece_of_evidence_counts() {
        let verifier = IdentityVerifier::new(local(), exact(DEV, ISSUER), NO_SCT);
        let spoilt = |spoil: fn(&mut bundle::Opened)| {
            let mut opened = keyless();
            spoil(&mut opened);
            let known = keyless();
            assert!(opened.statement != known.statement || !opened.evidence.proves_as(&known.evidence));
            refused(&verifier, &opened)
        };
        for spoil in [
            (|opened| opened.evidence.signature[9] ^= 1) as fn(&mut bundle::Opened),
            |opened| opened.evidence.logged.clear(),
            |opened| opened.evidence.timestamps.clear(),
            |opened| opened.evidence.timestamps[0][200] ^= 1,
            |opened| {
                let Material::Certificate { leaf, .. } = &mut opened.evidence.material else {
                    unreachable!()
                };
                // Within the signature, at the end.
                *leaf.last_mut().unwrap() ^= 1;
            },
            |opened| {
                let text = String::from_utf8(opened.statement.clone()).unwrap();
                opened.statement = text.replace("3f5f", "4f5f").into_bytes();
            },
            // The entry of another signature in the same log.
            |opened| {
                let other = bundle::open(fixture!("bundle-key-rekorv2.json")).unwrap();
                opened.evidence.logged = other.evidence.logged;
            },
        ] {
            assert!(!spoilt(spoil).is_empty());
        }
        // A chain is not what verifiers go by: they have it.
        let mut chained = keyless();
        let Material::Certificate { chain, .. } = &mut chained.evidence.material else { unreachable!() };
        chain.push(b"any".to_vec());
        assert!(chained.evidence.proves_as(&keyless().evidence));
        let strict = IdentityVerifier::new(local(), exact(DEV, ISSUER), Leniency::default());
        assert!(!refused(&strict, &keyless()).is_empty(), "this authority logs no certificates");
        let stranger = IdentityVerifier::new(emulator(), exact(DEV, ISSUER), NO_SCT);
        assert!(!refused(&stranger, &keyless()).is_empty());
        let public = IdentityVerifier::new(TrustRoot::public(), exact(DEV, ISSUER), NO_SCT);
        assert!(!refused(&public, &keyless()).is_empty());
        let key = bundle::open(fixture!("bundle-key-notlog.json")).unwrap();
        assert!(refused(&verifier, &key).contains("not with a certificate"));
    }

    /// The emulator's log promises (SET), and its authority logs certificates (SCT).
    #[test]
    fn cosigns_keyless_layer_is_accepted_by_the_log_s_promise() {
        let manifest = fixture!("legacy-keyless-manifest-rekorv1-emulator.json");
        let payload = fixture!("legacy-keyless-payload-rekorv1-emulator.json");
        let layers = SignatureImage::layers_of(manifest).unwrap();
        assert_eq!(layers[0].digest, Digest::of(payload));
        let evidence = layers[0].evidence().unwrap();
        let Material::Certificate { leaf, .. } = &evidence.material else { panic!("a certificate") };
        let found = CertificateIdentity::read(leaf).unwrap();
        assert!(found.is_logged);
        let policy = exact(&found.subject.unwrap(), &found.issuer.unwrap());
        let verifier = IdentityVerifier::new(emulator(), policy, Leniency::default());
        assert_eq!(verifier.verify(Content::Payload(payload), &evidence), Ok(()));

        let mut unlogged = evidence.clone();
        unlogged.logged.clear();
        assert!(
            verifier
                .verify(Content::Payload(payload), &unlogged)
                .unwrap_err()
                .contains("no transparency log")
        );
        let text = evidence.logged[0].to_annotation().unwrap();
        let time = text.split("integratedTime\":").nth(1).unwrap().split(',').next().unwrap();
        let later = (time.parse::<i64>().unwrap() + 1).to_string();
        assert_eq!(emulator().check_promises(&evidence), Ok(()));
        let elsewhere = local().check_promises(&evidence).unwrap_err();
        assert!(elsewhere.contains("not trusted: entry "), "{elsewhere}");
        let mut forged = evidence;
        forged.logged = vec![LogEntry::from_annotation(&text.replace(time, &later)).unwrap()];
        assert!(verifier.verify(Content::Payload(payload), &forged).is_err(), "the promise covers the time");
        assert!(
            emulator().check_promises(&forged).unwrap_err().contains("did not promise"),
            "keys rely on that"
        );
    }

    #[test]
    fn a_logged_key_is_accepted_with_its_entry_alone() {
        let key = PublicKey::from_pem(fixture!("cosign.pub")).unwrap();
        let verifier = WitnessedKey::new(key, local());
        let verify = |opened: &bundle::Opened| {
            verifier.verify(Content::Statement(&opened.statement), &opened.evidence)
        };
        for logged in [fixture!("bundle-key-rekorv2.json"), fixture!("bundle-key-rekorv2-tsa.json")] {
            assert_eq!(verify(&bundle::open(logged).unwrap()), Ok(()));
        }
        let unlogged = bundle::open(fixture!("bundle-key-notlog.json")).unwrap();
        assert!(verify(&unlogged).unwrap_err().contains("no transparency log"));
    }

    /// Of every kind of key that such a log takes, with what cosign 3 made.
    #[test]
    fn a_v2_log_s_entry_is_bound_to_the_signature_and_its_tree() {
        let keys = [
            (fixture!("bundle-rsa2048-rekorv2-tsa.json"), fixture!("keys/rsa2048-pkcs8.pem")),
            (fixture!("bundle-p384-rekorv2-tsa.json"), fixture!("keys/p384-pkcs8.pem")),
            (fixture!("bundle-p521-rekorv2-tsa.json"), fixture!("keys/p521-pkcs8.pem")),
        ];
        let root = || TrustRoot::parse(fixture!("trusted-root-v2.json")).unwrap();
        for (json, pem) in keys {
            let private = PrivateKey::from_pkcs8(pem::parse(pem).unwrap().contents()).unwrap();
            let verify = |text: &str, trust: TrustRoot| {
                let bundle::Opened { statement, evidence } = bundle::open(text.as_bytes()).unwrap();
                let verifier = WitnessedKey::new(private.public().clone(), trust);
                verifier.verify(Content::Statement(&statement), &evidence)
            };
            let text = std::str::from_utf8(json).unwrap();
            assert_eq!(verify(text, root()), Ok(()));

            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let spoilt = |place: &str, to: &str| {
                let mut value = value.clone();
                *value.pointer_mut(&format!("/verificationMaterial{place}")).unwrap() = to.into();
                verify(&value.to_string(), root()).unwrap_err()
            };
            const NOTE: &str = "/tlogEntries/0/inclusionProof/checkpoint/envelope";
            let note = value.pointer(&format!("/verificationMaterial{NOTE}")).unwrap().as_str().unwrap();
            // Other numbers, another tree, another log's name, nobody's signature.
            const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let other_root = note.replace(note.lines().nth(2).unwrap(), ZEROS);
            for (place, to) in [
                ("/tlogEntries/0/logIndex", "0"),
                ("/tlogEntries/0/inclusionProof/hashes/0", ZEROS),
                (NOTE, &other_root),
            ] {
                let said = spoilt(place, to);
                assert!(said.contains("not about this signature"), "{place}: {said}");
            }
            for to in [note.replacen("10.88.0.1", "10.88.0.2", 1), note.replacen("\n\n", "\nmore\n\n", 1)] {
                assert!(spoilt(NOTE, &to).contains("did not sign"), "{to}");
            }
            let without = text.replace("inclusionProof", "noProof");
            assert!(verify(&without, root()).unwrap_err().contains("proves nothing"));
            const STAMP: &str = "/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
            let stamp = value.pointer(&format!("/verificationMaterial{STAMP}")).unwrap().as_str().unwrap();
            // Within its signature, at the end.
            let (rest, last) = stamp.split_at(stamp.len() - 20);
            let broken = format!("{rest}{}{}", if last.starts_with('A') { "B" } else { "A" }, &last[1..]);
            assert!(spoilt(STAMP, &broken).contains("timestamp does not hold"));

            // Another signature of the same key over the same content is not in the log, good as it is.
            let mut opened = bundle::open(json).unwrap();
            let content = Content::Statement(&opened.statement);
            let hash =
                if matches!(private.kind(), KeyKind::Rsa { .. }) { Hash::Sha256 } else { Hash::OfCurve };
            opened.evidence.signature = private.sign(&content.message(), hash).unwrap();
            opened.evidence.timestamps.clear();
            let verifier = WitnessedKey::new(private.public().clone(), root());
            let verified = verifier.verify(content, &opened.evidence);
            // RSA's are the same each time.
            assert_eq!(verified.is_ok(), hash == Hash::Sha256, "{verified:?}");

            assert!(verify(text, local()).unwrap_err().contains("is not trusted"));
            let moved = std::str::from_utf8(fixture!("trusted-root-v2.json")).unwrap();
            let moved = moved.replace("http://10.88.0.1:5611", "http://log.example");
            let moved = TrustRoot::parse(moved.as_bytes()).unwrap();
            assert!(verify(text, moved).unwrap_err().contains("http://log.example did not sign"));
        }
    }

    #[test]
    fn what_is_no_trust_root_is_refused() {
        assert!(matches!(TrustRoot::parse(b"\xff"), Err(TrustError::Json(_))));
        assert!(matches!(TrustRoot::parse(b"[]"), Err(TrustError::Json(_))));
        let text = std::str::from_utf8(fixture!("trusted-root-local.json")).unwrap();
        let broken = text.replace("MIIBtDCCAVqg", "MIIBtDCCAVqA");
        assert!(matches!(TrustRoot::parse(broken.as_bytes()), Err(TrustError::Content(_))));
        assert!(!TrustRoot::parse(fixture!("trusted-root-empty.json")).unwrap().has_logs());
        assert!(format!("{:?}", local()).contains("1 authorities, 1 logs"));
    }
}
