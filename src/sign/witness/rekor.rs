//! Transparency logs: Rekor v1 and v2 (rekor-tiles).
//!
//! v2 takes the digest of what the signature covers alone ([`Rekord`]). v1 has an entry type for envelopes, which older
//! verifiers of bundles look for.

use super::WitnessError;
use crate::registry::Digest;
use crate::sign::bundle;
use crate::sign::evidence::{Content, Evidence, Material};
use crate::sign::http::{Answer, Http, HttpError, Limits, Request, shown};
use crate::sign::key::{PublicKey, pem_text};
use crate::sign::log::v2::Rekord;
use crate::sign::log::{LogEntry, from_hex};
use crate::sign::services::{Log, LogVersion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use serde_json::{Value, json};
use sigstore_types::bundle::{CheckpointData, InclusionPromise, InclusionProof, LogId};
use sigstore_types::{
    CanonicalizedBody, KindVersion, LogIndex, LogKeyId, Sha256Hash, SignedTimestamp, TransparencyLogEntry,
};
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

const SERVICE: &str = "the transparency log";
/// A v2 log answers only when the entry is in a checkpoint, which some publish every ten seconds; a v1 log under load
/// takes as long.
const TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST: usize = 4 << 20;

/// Asks a log which of the two protocols it speaks.
pub(in crate::sign) async fn version(http: &Http, url: &Url) -> Result<LogVersion, HttpError> {
    let request = Request::get(path(url, "api/v1/log"));
    let answer = http.send(SERVICE, request, Limits::within(Duration::from_secs(10))).await?;
    match answer.status {
        status if status.is_success() => {
            let _shape: LogInfoJson = answer.json()?;
            Ok(LogVersion::V1)
        }
        StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => Ok(LogVersion::V2),
        _ => Err(answer.refused("")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogInfoJson {
    #[serde(rename = "treeID")]
    _tree: String,
}

/// Records a signature, or finds it recorded.
pub(super) async fn record(
    http: &Http,
    log: &Log,
    content: Content<'_>,
    key: &PublicKey,
    evidence: &Evidence,
) -> Result<LogEntry, WitnessError> {
    match log.version {
        LogVersion::V1 => record_v1(http, &log.url, content, key, evidence).await,
        LogVersion::V2 => record_v2(http, &log.url, content, key, evidence).await,
    }
}

async fn record_v2(
    http: &Http,
    url: &Url,
    content: Content<'_>,
    key: &PublicKey,
    evidence: &Evidence,
) -> Result<LogEntry, WitnessError> {
    let foreign = || foreign(url);
    let rekord = Rekord::of(content, key, evidence).ok_or_else(foreign)?;
    let request = Request::post_json(path(url, "api/v2/log/entries"), &rekord.request()).repeatable();
    let answer = http.send(SERVICE, request, limits()).await?;
    if answer.status == StatusCode::CONFLICT {
        return Err(WitnessError::AlreadyLogged { url: shown(url) });
    }
    let answer = accepted(answer)?;
    let mut json: Value = answer.json()?;
    // protojson for Go writes zero values; absent is what they mean.
    if let Some(members) = json.as_object_mut() {
        members.retain(|_, value| !value.is_null() && *value != json!("0"));
    }
    let entry: TransparencyLogEntry =
        serde_json::from_value(json).map_err(|_| answer.garbage("a log entry"))?;
    if entry.canonicalized_body.as_bytes() != rekord.body() {
        return Err(foreign());
    }
    Ok(LogEntry::new(entry, Some(shown(url).trim_end_matches('/').to_owned())))
}

async fn record_v1(
    http: &Http,
    url: &Url,
    content: Content<'_>,
    key: &PublicKey,
    evidence: &Evidence,
) -> Result<LogEntry, WitnessError> {
    let pem = match &evidence.material {
        Material::Certificate { leaf, .. } => pem_text("CERTIFICATE", leaf),
        Material::PublicKey { .. } => key.to_pem(),
    };
    let body = match content {
        Content::Payload(payload) => json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": Digest::of(payload).hex() } },
            "signature": {
                "content": STANDARD.encode(&evidence.signature),
                "publicKey": { "content": STANDARD.encode(&pem) },
            },
        }}),
        Content::Statement(statement) => json!({ "apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "proposedContent": {
                "envelope": bundle::envelope(statement, &evidence.signature),
                "verifiers": [STANDARD.encode(&pem)],
            },
        }}),
    };
    let request = Request::post_json(path(url, "api/v1/log/entries"), &body).repeatable();
    let mut answer = http.send(SERVICE, request, limits()).await?;
    if answer.status == StatusCode::CONFLICT {
        // Deterministic signatures, or an answer that was lost on the way: the entry is there and says so.
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let uuid = location.and_then(uuid).ok_or_else(|| WitnessError::AlreadyLogged { url: shown(url) })?;
        let entry = path(url, &format!("api/v1/log/entries/{uuid}"));
        answer = http.send(SERVICE, Request::get(entry), limits()).await?;
    }
    let answer = accepted(answer)?;
    let entries: BTreeMap<String, EntryV1Json> = answer.json()?;
    let entry = entries.into_values().next().ok_or_else(|| answer.garbage("a log entry"))?;
    let entry = entry.read(&content).ok_or_else(|| answer.garbage("a log entry"))?;
    if !is_about(entry.canonicalized_body.as_bytes(), content, &evidence.signature) {
        return Err(foreign(url));
    }
    Ok(LogEntry::new(entry, Some(shown(url).trim_end_matches('/').to_owned())))
}

/// Returns the entry's name at the end of a `Location`, whose host a proxy before the log may not know.
fn uuid(location: &str) -> Option<&str> {
    let uuid = location.rsplit('/').next()?;
    (!uuid.is_empty() && uuid.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(uuid)
}

/// Whether a v1 entry's body holds our signature over our content.
fn is_about(body: &[u8], content: Content<'_>, signature: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let signature = STANDARD.encode(signature);
    match content {
        Content::Payload(payload) => {
            body["spec"]["data"]["hash"]["value"] == json!(Digest::of(payload).hex())
                && body["spec"]["signature"]["content"] == json!(signature)
        }
        Content::Statement(statement) => {
            body["spec"]["payloadHash"]["value"] == json!(Digest::of(statement).hex())
                && body["spec"]["signatures"][0]["signature"] == json!(signature)
        }
    }
}

fn foreign(url: &Url) -> WitnessError {
    WitnessError::Foreign { service: SERVICE, url: shown(url), what: "an entry about another signature" }
}

fn limits() -> Limits {
    Limits { timeout: TIMEOUT, max_body: LONGEST }
}

/// Refusals carry `{"code", "message"}`; what the message quotes is our own request, which is public.
fn accepted(answer: Answer) -> Result<Answer, HttpError> {
    if answer.is_success() {
        return Ok(answer);
    }
    let said = answer.json::<RefusalJson>().map(|refusal| refusal.message).unwrap_or_default();
    Err(answer.refused(&said))
}

/// Appends to the path of a base URL.
pub(in crate::sign) fn path(base: &Url, tail: &str) -> Url {
    let mut url = base.clone();
    let path = format!("{}/{tail}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url
}

#[derive(Deserialize)]
struct RefusalJson {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryV1Json {
    #[serde(rename = "logID")]
    log_id: String,
    log_index: u64,
    body: String,
    integrated_time: i64,
    verification: VerificationV1Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationV1Json {
    signed_entry_timestamp: String,
    inclusion_proof: Option<ProofV1Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProofV1Json {
    checkpoint: String,
    #[serde(default)]
    hashes: Vec<String>,
    log_index: u64,
    root_hash: String,
    tree_size: u64,
}

impl EntryV1Json {
    /// The index within the tree, which the proof is about, differs from the index within the whole log.
    fn read(self, content: &Content<'_>) -> Option<TransparencyLogEntry> {
        let kind = match content {
            Content::Payload(_) => KindVersion::HashedRekordV001,
            Content::Statement(_) => KindVersion::DsseV001,
        };
        let body = CanonicalizedBody::new(STANDARD.decode(self.body).ok()?);
        let id = LogId::new(LogKeyId::new(from_hex(&self.log_id)?));
        let promise = SignedTimestamp::new(STANDARD.decode(self.verification.signed_entry_timestamp).ok()?);
        let mut entry = TransparencyLogEntry::new(LogIndex::new(self.log_index).ok()?, id, kind, body)
            .with_integrated_time(jiff::Timestamp::from_second(self.integrated_time).ok()?)
            .with_inclusion_promise(InclusionPromise::new(promise));
        if let Some(proof) = self.verification.inclusion_proof {
            let hash = |hex: &String| Sha256Hash::from_hex(hex).ok();
            entry = entry.with_inclusion_proof(InclusionProof::new(
                LogIndex::new(proof.log_index).ok()?,
                hash(&proof.root_hash)?,
                proof.tree_size,
                proof.hashes.iter().map(hash).collect::<Option<_>>()?,
                CheckpointData::new(proof.checkpoint).ok()?,
            ));
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_appended_to_whatever_the_base_has() {
        for (base, expected) in [
            ("http://r.example", "http://r.example/api/v2/log/entries"),
            ("http://r.example:1/", "http://r.example:1/api/v2/log/entries"),
            ("https://r.example/rekor/?x", "https://r.example/rekor/api/v2/log/entries"),
        ] {
            assert_eq!(path(&base.parse().unwrap(), "api/v2/log/entries").as_str(), expected);
        }
    }

    #[test]
    fn hexadecimal_becomes_bytes_and_both_indices_stay() {
        let zeros = "00".repeat(32);
        let note = format!("log.example - 5\n7\n{}\n\n— log.example AAAAAAAA\n", STANDARD.encode([0; 32]));
        let json = json!({ "logID": zeros, "logIndex": 1_000_007, "integratedTime": 1_700_000_000,
            "body": STANDARD.encode("{}"), "verification": { "signedEntryTimestamp": STANDARD.encode("s"),
            "inclusionProof": { "checkpoint": note, "hashes": [zeros], "logIndex": 6, "rootHash": zeros, "treeSize": 7 } } });
        let entry: EntryV1Json = serde_json::from_value(json).unwrap();
        let entry = entry.read(&Content::Payload(b"")).unwrap();
        assert_eq!(entry.log_index.get(), 1_000_007);
        assert_eq!(entry.log_id.key_id.as_bytes(), [0; 32]);
        assert_eq!(entry.inclusion_proof.unwrap().log_index.get(), 6);
    }

    #[test]
    fn an_entry_must_be_about_what_was_sent() {
        let body = json!({ "kind": "hashedrekord", "spec": {
            "data": { "hash": { "value": Digest::of(b"payload").hex() } },
            "signature": { "content": STANDARD.encode("sig") } } })
        .to_string();
        assert!(is_about(body.as_bytes(), Content::Payload(b"payload"), b"sig"));
        assert!(!is_about(body.as_bytes(), Content::Payload(b"another"), b"sig"));
        assert!(!is_about(body.as_bytes(), Content::Payload(b"payload"), b"gis"));
        assert!(!is_about(b"[]", Content::Statement(b"payload"), b"sig"));
        assert!(!is_about(br#"{"kind":"dsse"}"#, Content::Statement(b"payload"), b"sig"));
        assert_eq!(uuid("https://inside/api/v1/log/entries/24296fb2"), Some("24296fb2"));
        assert_eq!(uuid("/api/v1/log/entries/").or(uuid("/../x")), None);
    }
}
