//! Whether trusted v2 logs have a signature, and trusted clocks saw it.
//!
//! `sigstore-verify` reads v2 entries of P-256 keys only, and key signatures over one hash for each kind of key only, so
//! of these the parts are checked here, with its pieces.

use super::TrustRoot;
use crate::sign::evidence::{Content, Evidence};
use crate::sign::key::PublicKey;
use crate::sign::log::LogEntry;
use crate::sign::log::v2::Rekord;
use sigstore_types::{Sha256Hash, SignatureBytes, TimestampToken};
use sigstore_verify::tsa::verify_timestamp_for_authority;
use url::Url;

impl TrustRoot {
    /// Checks every v2 entry: the leaf is this signature, the tree has it, and the log signed the tree.
    pub(super) fn check_inclusion(
        &self,
        key: &PublicKey,
        content: Content<'_>,
        evidence: &Evidence,
    ) -> Result<(), String> {
        let mut entries = evidence.logged.iter().filter(|entry| entry.is_v2()).peekable();
        if entries.peek().is_none() {
            return Ok(());
        }
        let rekord = Rekord::of(content, key, evidence)
            .ok_or_else(|| format!("v2 logs take no signatures of {} keys", key.kind()))?;
        let leaf = sigstore_merkle::hash_leaf(&rekord.body());
        entries.try_for_each(|entry| self.check_entry(entry, &leaf))
    }

    /// Checks every promise of a v1 log: a log that was trusted at the time that it names gave it. For keys the library
    /// passes over that where it looks for no proof.
    pub(super) fn check_promises(&self, evidence: &Evidence) -> Result<(), String> {
        for entry in &evidence.logged {
            let inner = entry.inner();
            let (Some(promise), Some(time)) = (&inner.inclusion_promise, inner.integrated_time) else {
                continue;
            };
            let id = Sha256Hash::try_from(entry.log_id()).ok();
            let key = id.and_then(|id| self.logs.key_at(&id, time));
            let log = || entry.place(|id| self.log_url(id));
            let key =
                key.ok_or_else(|| format!("its log entry is of a log that is not trusted: {}", log()))?;
            let promised = entry.promised().ok_or("its log entry proves nothing")?;
            let signature = SignatureBytes::new(promise.signed_entry_timestamp.as_bytes().to_vec());
            key.verify(&promised, &signature).map_err(|_| format!("the log did not promise {}", log()))?;
        }
        Ok(())
    }

    /// The index is the entry's, size and root of the tree are the checkpoint's: the proof's own are nobody's word.
    fn check_entry(&self, entry: &LogEntry, leaf: &Sha256Hash) -> Result<(), String> {
        let proof = entry.inner().inclusion_proof.as_ref().ok_or("its log entry proves nothing")?;
        let checkpoint = proof.checkpoint.checkpoint().ok_or("its log entry comes without a checkpoint")?;
        let index = entry.index();
        sigstore_merkle::verify_inclusion_proof(
            leaf,
            index,
            checkpoint.tree_size(),
            &proof.hashes,
            checkpoint.root_hash(),
        )
        .map_err(|error| format!("its log entry is not about this signature: {error}"))?;

        let unknown =
            || format!("its log entry is of the log {}, which is not trusted", entry.place(|_| None).log_id);
        let id = Sha256Hash::try_from(entry.log_id()).map_err(|_| unknown())?;
        let known = self.logs.key_started_by(&id, jiff::Timestamp::now());
        let (key, url) = known.zip(self.log_url(id.as_bytes())).ok_or_else(unknown)?;
        // A key may sign for several logs, which are told apart by their names.
        let host = Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let signed = host.as_deref() == Some(checkpoint.origin())
            && checkpoint.signatures().iter().any(|signature| {
                id.as_bytes().starts_with(signature.key_id.as_bytes())
                    && key.verify(checkpoint.signed_data(), &signature.signature).is_ok()
            });
        signed.then_some(()).ok_or_else(|| format!("the log {url} did not sign the checkpoint of its entry"))
    }

    /// Checks every timestamp.
    pub(super) fn check_timestamps(&self, evidence: &Evidence) -> Result<(), String> {
        // Those that have begun, by this machine's clock.
        let authorities = self.root.tsa_authorities();
        let none = match self.root.timestamp_authorities.is_empty() {
            true => "no timestamp authority is trusted".to_owned(),
            false => format!(
                "no trusted timestamp authority has begun by this machine's clock, which says {:.0}",
                jiff::Timestamp::now()
            ),
        };
        let signature = SignatureBytes::from_bytes(&evidence.signature);
        evidence.timestamps.iter().try_for_each(|timestamp| {
            let token = TimestampToken::from_bytes(timestamp);
            let mut refused = none.clone();
            let seen = authorities.iter().any(|authority| {
                let seen = verify_timestamp_for_authority(&token, &signature, authority);
                seen.map_err(|error| refused = error.to_string()).is_ok()
            });
            seen.then_some(()).ok_or_else(|| format!("its timestamp does not hold: {refused}"))
        })
    }
}
