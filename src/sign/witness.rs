//! Those who vouch that a signature was there at a time: transparency logs and timestamp authorities.
//!
//! Where there is a trust root, what they answer is verified before anything is written; what is read back then needs
//! only to be the same.

mod rekor;
mod tsa;

pub(super) use rekor::{path, version as log_version};

use super::evidence::{Content, Evidence, Signer, SignerError, Verifier};
use super::http::{Http, HttpError};
use super::key::{Hash, KeyKind, PublicKey};
use super::log::{LogEntry, v2};
use super::services::{Log, LogMode, LogVersion, Services};
use super::trust::{TrustRoot, check_witnesses};
use crate::event::Events;
use crate::registry::Digest;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use url::Url;

/// Why a log or clock did not vouch.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The call failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What came is about something else.
    #[error("{service} at {url} answered with {what}")]
    Foreign {
        /// The service.
        service: &'static str,
        /// Where.
        url: String,
        /// What is wrong.
        what: &'static str,
    },
    /// What they say would be refused by those who verify it, so it is stored nowhere.
    #[error("the signature would not verify: {0}")]
    Unverifiable(String),
    /// A v2 log has this very signature already and gives no way to find it.
    #[error("the log at {url} has this very signature already, and gives no way to find its entry")]
    AlreadyLogged {
        /// Where.
        url: String,
    },
}

/// The logs and clocks that see each signature of one signer.
pub(super) struct Witnesses {
    http: Http,
    logs: Vec<Log>,
    clocks: Vec<Url>,
    mode: LogMode,
    /// What they have seen in this run, by the digest of what was signed: content that goes to several places is signed
    /// once. A v2 log takes a signature but once, and some keys' are the same each time.
    seen: Mutex<BTreeMap<Digest, Evidence>>,
    events: Events,
}

impl Witnesses {
    pub(super) fn new(http: Http, services: &Services, events: Events) -> Self {
        let logs = if services.log_mode == LogMode::Off { Vec::new() } else { services.logs.clone() };
        let (clocks, mode) = (services.clocks.clone(), services.log_mode);
        Self { http, logs, clocks, mode, seen: Mutex::default(), events }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.clocks.is_empty()
    }

    /// Whether none of the logs dates what it records.
    pub(super) fn give_no_time(&self) -> bool {
        self.logs.iter().all(|log| log.version == LogVersion::V2)
    }

    /// Whether a log has to have the signature.
    pub(super) fn log_is_must(&self) -> bool {
        !self.logs.is_empty() && self.mode == LogMode::Must
    }

    /// Returns what they have seen over this content before, in this run.
    pub(super) fn seen(&self, content: Content<'_>) -> Option<Evidence> {
        let seen = self.seen.lock().expect("nobody panics while holding it");
        seen.get(&Digest::of(&content.message())).cloned()
    }

    /// Lets this verifier look at what was read back, unless that very evidence was verified before it was written.
    pub(super) fn verify(
        &self,
        verifier: &dyn Verifier,
        content: Content<'_>,
        evidence: &Evidence,
    ) -> Result<(), String> {
        if self.proved(content, evidence) { Ok(()) } else { verifier.verify(content, evidence) }
    }

    fn proved(&self, content: Content<'_>, evidence: &Evidence) -> bool {
        self.seen(content).is_some_and(|seen| seen.proves_as(evidence))
    }

    /// Lets every log and clock see the signature and makes sure that it will verify. After
    /// [`WitnessError::AlreadyLogged`] it is worth while to sign once more, since most keys sign differently each time.
    pub(super) async fn attest(
        &self,
        content: Content<'_>,
        key: &PublicKey,
        verifier: &dyn Verifier,
        mut evidence: Evidence,
        attempt: Attempt,
    ) -> Result<Evidence, WitnessError> {
        self.show(content, key, &mut evidence, attempt).await?;
        verifier.verify(content, &evidence).map_err(WitnessError::Unverifiable)?;
        let mut seen = self.seen.lock().expect("nobody panics while holding it");
        seen.insert(Digest::of(&content.message()), evidence.clone());
        Ok(evidence)
    }

    /// Lets every clock and then every log see the signature, and adds what they say: what a clock failed to see is not
    /// published, and no log is hung up on, for which Rekor v2 makes others pay. `.sig` layers have a place for one entry,
    /// of a v1 log only: for them nothing else is asked.
    async fn show(
        &self,
        content: Content<'_>,
        key: &PublicKey,
        evidence: &mut Evidence,
        attempt: Attempt,
    ) -> Result<(), WitnessError> {
        let clocks = self.clocks.iter().map(|clock| self.stamp(clock, &evidence.signature));
        let stamps = futures_util::future::try_join_all(clocks).await?;
        let logs = self
            .logs
            .iter()
            .filter(|log| log.takes(content))
            .map(|log| self.log(log, content, key, evidence, attempt));
        let entries = futures_util::future::try_join_all(logs).await?;
        evidence.timestamps.extend(stamps);
        evidence.logged.extend(entries.into_iter().flatten());
        Ok(())
    }

    async fn stamp(&self, clock: &Url, signature: &[u8]) -> Result<Vec<u8>, WitnessError> {
        let name = format!("getting a timestamp from {}", shown(clock));
        let step = self.events.step_among("timestamp", name);
        step.end(tsa::timestamp(&self.http, clock, signature).await)
    }

    async fn log(
        &self,
        log: &Log,
        content: Content<'_>,
        key: &PublicKey,
        evidence: &Evidence,
        attempt: Attempt,
    ) -> Result<Option<LogEntry>, WitnessError> {
        let name = format!("recording the signature in the log {}", shown(&log.url));
        let step = self.events.step_among("log", name);
        match rekor::record(&self.http, log, content, key, evidence).await {
            Ok(entry) => {
                step.line(entry.place(|_| None).to_string());
                step.done();
                Ok(Some(entry))
            }
            Err(error @ WitnessError::AlreadyLogged { .. }) if attempt == Attempt::Further => {
                step.line(format!("{error}: signing once more"));
                step.done();
                Err(error)
            }
            // What was asked for as far as it goes.
            Err(error) if self.mode == LogMode::BestEffort => {
                step.line(format!("not recorded: {}", chain(&error)));
                step.done();
                let at = shown(&log.url);
                self.events
                    .note(format!("the signature is not in the log {at} (--rekor=best-effort): {error}"));
                Ok(None)
            }
            Err(error) => {
                step.fail(&error);
                Err(error)
            }
        }
    }
}

/// Whether another signature over the same content follows if a log has this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Further,
    Last,
}

/// How often content is signed until a log takes the signature. More than twice, since what it says to have already is
/// our own request, where it hung up on that and took it nevertheless.
pub(super) const SIGNINGS: usize = 6;

/// Asks a timestamp authority for a timestamp of nothing in particular: whether it answers at all.
pub(super) async fn probe_clock(http: &Http, clock: &Url) -> Result<(), WitnessError> {
    tsa::timestamp(http, clock, b"kubectl-build").await.map(|_| ())
}

fn shown(url: &Url) -> String {
    super::http::shown(url)
}

pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// Lets logs and clocks see what a key signs; returns the signer as it is where there are none.
///
/// # Errors
/// A key whose signatures logs don't take.
pub fn witnessed(
    mut signer: Box<dyn Signer>,
    services: &Services,
    trust: Option<TrustRoot>,
    http: &Http,
    events: &Events,
) -> Result<Box<dyn Signer>, String> {
    let witnesses = Witnesses::new(http.clone(), services, events.clone());
    let Some(key) = signer.public_key().cloned().filter(|_| !witnesses.is_empty()) else { return Ok(signer) };
    for log in &witnesses.logs {
        let hash = match log.version {
            LogVersion::V1 => Some(Hash::Sha256).filter(|_| super::trust::is_loggable(key.kind())),
            LogVersion::V2 => v2::hash(key.kind()),
        };
        if !hash.is_some_and(|hash| signer.use_hash(hash)) {
            let (name, kind, at) = (signer.name(), key.kind(), shown(&log.url));
            return Err(format!(
                "the log {at} ({}) takes no signatures that `{name}`, an {kind} key, makes and that `cosign verify` accepts: use an ECDSA P-256 key, or `--rekor=false`",
                log.version
            ));
        }
    }
    Ok(Box::new(Witnessed::new(signer, key, witnesses, trust)))
}

/// A signer whose signatures logs or clocks see.
struct Witnessed {
    inner: Box<dyn Signer>,
    key: PublicKey,
    witnesses: Witnesses,
    verifier: WitnessedVerifier,
}

impl Witnessed {
    /// Wraps a signer that has a key of its own.
    fn new(inner: Box<dyn Signer>, key: PublicKey, witnesses: Witnesses, trust: Option<TrustRoot>) -> Self {
        let inner: Arc<Box<dyn Signer>> = Arc::new(inner);
        let verifier = WitnessedVerifier {
            inner: Arc::clone(&inner),
            key: key.clone(),
            trust,
            log_is_must: witnesses.log_is_must(),
        };
        Self { inner: Box::new(Shared(inner)), key, witnesses, verifier }
    }
}

/// What reads a signature back: the key always, logs and clocks where there is a trust root.
struct WitnessedVerifier {
    inner: Arc<Box<dyn Signer>>,
    key: PublicKey,
    trust: Option<TrustRoot>,
    log_is_must: bool,
}

impl Verifier for WitnessedVerifier {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        self.inner.verifier().verify(content, evidence)?;
        if self.log_is_must && evidence.logged.is_empty() {
            return Err("no transparency log has it".to_owned());
        }
        match &self.trust {
            Some(trust) => check_witnesses(trust, &self.key, content, evidence, self.log_is_must),
            None => Ok(()),
        }
    }

    fn trust(&self) -> Option<&TrustRoot> {
        self.trust.as_ref()
    }
}

struct Shared(Arc<Box<dyn Signer>>);

#[async_trait]
impl Signer for Shared {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn verifier(&self) -> &dyn Verifier {
        self.0.verifier()
    }

    fn public_key(&self) -> Option<&PublicKey> {
        self.0.public_key()
    }

    fn hash(&self) -> Hash {
        self.0.hash()
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        self.0.sign(content).await
    }
}

impl Verifier for Witnessed {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        self.witnesses.verify(&self.verifier, content, evidence)
    }

    fn trust(&self) -> Option<&TrustRoot> {
        self.verifier.trust()
    }
}

#[async_trait]
impl Signer for Witnessed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn verifier(&self) -> &dyn Verifier {
        self
    }

    fn public_key(&self) -> Option<&PublicKey> {
        Some(&self.key)
    }

    fn hash(&self) -> Hash {
        self.inner.hash()
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        let failed =
            |source: WitnessError| SignerError { signer: self.name().to_owned(), source: Box::new(source) };
        if let Some(seen) = self.witnesses.seen(content) {
            return Ok(seen);
        }
        let (key, verifier) = (&self.key, &self.verifier);
        // RSA signs the same thing the same way each time, as far as we know.
        let signings = if matches!(key.kind(), KeyKind::Rsa { .. }) { 2 } else { SIGNINGS };
        for _ in 1..signings {
            let evidence = self.inner.sign(content).await?;
            match self.witnesses.attest(content, key, verifier, evidence, Attempt::Further).await {
                Err(WitnessError::AlreadyLogged { .. }) => {}
                attested => return attested.map_err(failed),
            }
        }
        let evidence = self.inner.sign(content).await?;
        self.witnesses.attest(content, key, verifier, evidence, Attempt::Last).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::bundle;
    use crate::sign::evidence::Material;
    use crate::sign::http::HttpOptions;

    struct Anyone;

    impl Verifier for Anyone {
        fn verify(&self, _content: Content<'_>, _evidence: &Evidence) -> Result<(), String> {
            Ok(())
        }
    }

    /// What is read back is taken for what was verified only if it is that, all of it.
    #[tokio::test]
    async fn what_differs_from_what_was_verified_is_verified_again() {
        let opened = bundle::open(include_bytes!(
            "../../integration/fixtures/signing/bundle-keyless-rekorv2-tsa.json"
        ));
        let bundle::Opened { statement, evidence, .. } = opened.unwrap();
        let http = Http::new(&HttpOptions::default()).unwrap();
        let witnesses = Witnesses::new(http, &Services::default(), Events::off());
        let content = Content::Statement(&statement);
        assert!(!witnesses.proved(content, &evidence));
        let key =
            PublicKey::from_pem(include_bytes!("../../integration/fixtures/signing/cosign.pub")).unwrap();
        witnesses.attest(content, &key, &Anyone, evidence.clone(), Attempt::Last).await.unwrap();
        assert!(witnesses.proved(content, &evidence));

        assert!(!witnesses.proved(Content::Payload(&statement), &evidence));
        assert!(!witnesses.proved(Content::Statement(b"{}"), &evidence));
        for change in [
            (|it| it.signature[9] ^= 1) as fn(&mut Evidence),
            |it| it.logged.clear(),
            |it| it.timestamps.clear(),
            |it| it.timestamps[0][200] ^= 1,
            |it| it.timestamps.push(Vec::new()),
            |it| it.material = Material::PublicKey { hint: String::new() },
        ] {
            let mut changed = evidence.clone();
            change(&mut changed);
            assert!(!witnesses.proved(content, &changed));
        }
    }
}
