//! DSSE envelopes as layers of the `.att` tag hold them.

use super::bundle;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Returns the envelope of a signed statement.
pub(super) fn encode(statement: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = Signature { keyid: String::new(), sig: STANDARD.encode(signature) };
    let envelope = Envelope {
        payload_type: bundle::STATEMENT.to_owned(),
        payload: STANDARD.encode(statement),
        signatures: vec![signature],
    };
    serde_json::to_vec(&envelope).expect("strings always serialise")
}

/// Returns the statement and its only signature; `None` if it is nothing of the kind.
pub(super) fn open(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
    let [signature] = &envelope.signatures[..] else { return None };
    if envelope.payload_type != bundle::STATEMENT {
        return None;
    }
    Some((STANDARD.decode(&envelope.payload).ok()?, STANDARD.decode(&signature.sig).ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_written_is_read() {
        let bytes = super::encode(b"{}", b"signature");
        assert_eq!(super::open(&bytes), Some((b"{}".to_vec(), b"signature".to_vec())));
        let other = String::from_utf8(bytes).expect("text").replace("in-toto", "other");
        assert_eq!(super::open(other.as_bytes()), None);
        assert_eq!(super::open(b"[]"), None);
    }
}
