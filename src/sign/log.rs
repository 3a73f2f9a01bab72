//! Entries of transparency logs, as bundles and the annotations of `.sig` layers carry them.

pub(super) mod v2;

use crate::registry::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sigstore_types::bundle::{InclusionPromise, LogId};
use sigstore_types::{
    CanonicalizedBody, KindVersion, LogIndex, LogKeyId, SignedTimestamp, TransparencyLogEntry,
};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Proof that a transparency log has a signature. Nothing of it is verified yet.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    entry: TransparencyLogEntry,
    /// Where it was written, known only to who wrote it.
    url: Option<String>,
}

/// Where an entry can be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// The log's address, where it is known: entries don't carry it, trust roots do.
    pub url: Option<String>,
    /// The SHA-256 by which trust roots name the log, in hexadecimal.
    pub log_id: String,
    /// The entry's number in the log.
    pub index: u64,
    /// The entry's name in a v1 log.
    pub uuid: Option<String>,
}

impl fmt::Display for LogPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "entry {} of ", self.index)?;
        match &self.url {
            Some(url) => formatter.write_str(url)?,
            None => write!(formatter, "the log {}", self.log_id)?,
        }
        match &self.uuid {
            Some(uuid) => write!(formatter, " (UUID {uuid})"),
            None => Ok(()),
        }
    }
}

impl LogEntry {
    pub(super) fn new(entry: TransparencyLogEntry, url: Option<String>) -> Self {
        Self { entry, url }
    }

    pub(super) fn inner(&self) -> &TransparencyLogEntry {
        &self.entry
    }

    /// Whether it is of a log that speaks Rekor v2.
    pub(super) fn is_v2(&self) -> bool {
        self.entry.kind_version == KindVersion::HashedRekordV002
    }

    /// Returns the entry's number in its log.
    pub fn index(&self) -> u64 {
        self.entry.log_index.get()
    }

    /// Returns the SHA-256 by which trust roots name the log.
    pub fn log_id(&self) -> &[u8] {
        self.entry.log_id.key_id.as_bytes()
    }

    /// Returns where it can be looked up; `known` finds the address of a log by its id.
    pub fn place(&self, known: impl FnOnce(&[u8]) -> Option<String>) -> LogPlace {
        LogPlace {
            url: self.url.clone().or_else(|| known(self.log_id())),
            log_id: to_hex(self.log_id()),
            index: self.index(),
            uuid: self.uuid(),
        }
    }

    /// Returns the name that a v1 log gives the entry: the hash of its leaf (RFC 6962 2.1), after the number of its tree
    /// where a checkpoint tells that. Logs find it by either.
    fn uuid(&self) -> Option<String> {
        // Only v1 promises.
        self.entry.inclusion_promise.as_ref()?;
        let leaf = Digest::of(&[&[0], self.entry.canonicalized_body.as_bytes()].concat());
        let tree = self.entry.inclusion_proof.as_ref().and_then(|proof| {
            let origin = proof.checkpoint.envelope().lines().next()?;
            origin.rsplit_once(" - ")?.1.parse::<u64>().ok()
        });
        Some(format!("{}{}", tree.map(|tree| format!("{tree:016x}")).unwrap_or_default(), leaf.hex()))
    }

    /// Returns the annotation of a `.sig` layer; `None` for entries of v2 logs, which it has no place for.
    pub(super) fn to_annotation(&self) -> Option<String> {
        let promise = self.entry.inclusion_promise.as_ref()?;
        let annotation = AnnotationJson {
            signed_entry_timestamp: STANDARD.encode(promise.signed_entry_timestamp.as_bytes()),
            payload: PayloadJson {
                body: STANDARD.encode(self.entry.canonicalized_body.as_bytes()),
                integrated_time: self.entry.integrated_time?.as_second(),
                log_index: self.index(),
                log_id: to_hex(self.log_id()),
            },
        };
        Some(serde_json::to_string(&annotation).expect("strings and numbers always serialise"))
    }

    /// Returns what a v1 log's promise signs: canonical JSON (rekor pkg/api/entries.go).
    pub(super) fn promised(&self) -> Option<Vec<u8>> {
        let fields = BTreeMap::from([
            ("body", json!(STANDARD.encode(self.entry.canonicalized_body.as_bytes()))),
            ("integratedTime", json!(self.entry.integrated_time?.as_second())),
            ("logID", json!(to_hex(self.log_id()))),
            ("logIndex", json!(self.index())),
        ]);
        Some(serde_json::to_vec(&fields).expect("strings and numbers always serialise"))
    }

    /// Reads the annotation of a `.sig` layer; `None` for what isn't one.
    pub(super) fn from_annotation(text: &str) -> Option<Self> {
        let AnnotationJson { signed_entry_timestamp, payload } = serde_json::from_str(text).ok()?;
        let body = STANDARD.decode(payload.body).ok()?;
        let kind: KindJson = serde_json::from_slice(&body).ok()?;
        let kind = match (kind.kind.as_str(), kind.api_version.as_str()) {
            ("hashedrekord", "0.0.1") => KindVersion::HashedRekordV001,
            ("dsse", "0.0.1") => KindVersion::DsseV001,
            ("intoto", "0.0.2") => KindVersion::IntotoV002,
            _ => return None,
        };
        let id = LogId::new(LogKeyId::new(from_hex(&payload.log_id)?));
        let index = LogIndex::new(payload.log_index).ok()?;
        let promise =
            InclusionPromise::new(SignedTimestamp::new(STANDARD.decode(signed_entry_timestamp).ok()?));
        let time = jiff::Timestamp::from_second(payload.integrated_time).ok()?;
        let entry = TransparencyLogEntry::new(index, id, kind, CanonicalizedBody::new(body))
            .with_inclusion_promise(promise)
            .with_integrated_time(time);
        Some(Self::new(entry, None))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

/// The bytes of a hexadecimal text.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnnotationJson {
    signed_entry_timestamp: String,
    payload: PayloadJson,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayloadJson {
    body: String,
    integrated_time: i64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KindJson {
    kind: String,
    api_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosigns_annotation_round_trips() {
        let manifest: serde_json::Value = serde_json::from_str(include_str!(
            "../../integration/fixtures/signing/legacy-keyless-manifest-rekorv1-emulator.json"
        ))
        .unwrap();
        let text = manifest["layers"][0]["annotations"]["dev.sigstore.cosign/bundle"].as_str().unwrap();
        let entry = LogEntry::from_annotation(text).unwrap();
        assert_eq!(entry.log_id().len(), 32);
        assert_eq!(entry.to_annotation().unwrap(), text);
        // The leaf's hash alone: an annotation tells no tree.
        let place = entry.place(|id| (id.len() == 32).then(|| "https://r.example".to_owned()));
        assert_eq!(place.uuid.as_ref().unwrap().len(), 64);
        assert!(
            place.to_string().starts_with("entry ")
                && place.to_string().contains(" of https://r.example (UUID ")
        );
        assert!(entry.place(|_| None).to_string().contains(&format!("the log {}", to_hex(entry.log_id()))));
        assert_eq!(LogEntry::from_annotation("{}"), None);
        assert_eq!(from_hex("0fF"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _either_way = LogEntry::from_annotation(&text);
            let _either_way = from_hex(&text);
        }
    }
}
