//! Signing with an identity: a key that lives for one run, and a certificate that says whose it is.

mod desk;
mod fulcio;

use super::evidence::{Certified, Content, Evidence, Material, Signer, SignerError, Verifier};
use super::http::{Http, HttpError};
use super::identity::{self, AUDIENCE, IdentityError, IdentityToken, TokenSource};
use super::key::{Hash, PrivateKey, PublicKey};
use super::login::{Login, LoginError, LoginSettings};
use super::services::{ServiceError, ServicePlan, Services};
use super::trust::{CertificateIdentity, IdentityPolicy, IdentityVerifier, Leniency, Matcher, TrustRoot};
use super::witness::{Attempt, SIGNINGS, WitnessError, Witnesses};
use crate::event::Events;
use async_trait::async_trait;
use desk::Desk;
use fulcio::{Authority, IssuerJson};
use jiff::SignedDuration;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Why there is no keyless signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeylessError {
    /// No token, or not the right one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody logged in.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The services, before anything was signed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A service of which keyless signing can't do without isn't named.
    #[error("keyless signing needs {0}")]
    Missing(&'static str),
    /// A call to the certificate authority.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A certificate that isn't what was asked for.
    #[error("the certificate authority at {url} answered with {what}")]
    Certificate {
        /// Where.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// Logs or clocks.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The cryptographic provider.
    #[error("no key could be made")]
    Key,
}

/// Who signs, as far as it is known before anything is signed.
#[derive(Clone)]
pub enum Identity {
    /// Somebody whose tokens come from somewhere.
    Source(Arc<dyn TokenSource>),
    /// Whoever logs in.
    Login(LoginSettings),
}

/// Signs with short-lived certificates.
pub struct KeylessSigner {
    /// What messages call it; of somebody who logs in it is known once he has signed.
    name: OnceLock<String>,
    tokens: Tokens,
    certifier: Arc<Certifier>,
    witnesses: Witnesses,
    current: tokio::sync::Mutex<Option<Current>>,
    verifier: OwnVerifier,
}

enum Tokens {
    Source(Arc<dyn TokenSource>),
    Desk(Desk),
}

/// The key that signs now.
struct Current {
    key: Arc<PrivateKey>,
    leaf: Vec<u8>,
    chain: Vec<Vec<u8>>,
    /// Who signs, by the token.
    subject: String,
    /// By our clock's progress, not its reading, which may be wrong.
    good_until: Instant,
}

impl Current {
    fn is_good(&self) -> bool {
        self.good_until > Instant::now()
    }
}

impl KeylessSigner {
    /// Finds out whether keyless signing would work now: a token is there, fits and hasn't ended, or the provider to
    /// log in at answers and its tokens would do; and the services answer. Nothing is published, no certificate asked
    /// for, and nobody yet asked to log in.
    ///
    /// # Errors
    /// [`KeylessError`], before a build minute is spent.
    pub async fn prepare(
        identity: Identity,
        plan: &ServicePlan,
        services: &Services,
        http: Http,
        events: Events,
    ) -> Result<Self, KeylessError> {
        let authority = plan
            .authority
            .clone()
            .ok_or(KeylessError::Missing("a certificate authority: add `--fulcio-url`"))?;
        if services.logs.is_empty() {
            return Err(KeylessError::Missing("a transparency log: add `--rekor-url`"));
        }
        let issued = Arc::<Mutex<Vec<_>>>::default();
        let asked =
            async { Ok::<_, KeylessError>(Authority { http: &http, url: &authority }.issuers().await?) };
        let audience = match &identity {
            Identity::Source(_) => AUDIENCE.to_owned(),
            Identity::Login(settings) => settings.client_id.clone(),
        };
        let certifier = |(issuers, their_now): (_, Option<jiff::Timestamp>)| {
            let skew = their_now.map(|now| now.duration_since(jiff::Timestamp::now())).unwrap_or_default();
            if skew.abs() > NOTICED {
                let (span, way) =
                    (identity::words(skew.abs()), if skew.is_positive() { "behind" } else { "ahead of" });
                events.note(format!(
                    "this machine's clock is {span} {way} the certificate authority's: what is checked by it may be refused"
                ));
            }
            let (http, authority, issued, events) =
                (http.clone(), authority.clone(), Arc::clone(&issued), events.clone());
            Arc::new(Certifier { http, authority, issuers, audience, skew, issued, events })
        };
        let name = OnceLock::new();
        let (certifier, tokens) = match identity {
            Identity::Source(source) => {
                let token = async { Ok(source.token().await?) };
                let (token, issuers) = tokio::try_join!(token, asked)?;
                check_issuer(plan, &token, &source.place())?;
                let certifier = certifier(issuers);
                certifier.check(&token, &source.place())?;
                certifier.introduce(&token, &source.place());
                let _first = name.set(called(&token.subject));
                (certifier, Tokens::Source(source))
            }
            Identity::Login(settings) => {
                let issuer = plan
                    .login
                    .as_ref()
                    .ok_or(KeylessError::Missing("to know where you log in: add `--oidc-issuer`"))?;
                let login =
                    async { Ok(Login::discover(issuer, settings, http.clone(), events.clone()).await?) };
                let (login, issuers) = tokio::try_join!(login, asked)?;
                let certifier = certifier(issuers);
                let audiences = [login.client_id().to_owned()];
                let accepted = accepts(certifier.accepted(), login.issuer(), &audiences, &login.place());
                accepted.map_err(|error| match error {
                    KeylessError::Identity(IdentityError::Audience { wanted, .. }) => {
                        let (issuer, client) = (login.issuer().to_owned(), login.client_id().to_owned());
                        LoginError::Client { issuer, client, wanted }.into()
                    }
                    error => error,
                })?;
                (Arc::clone(&certifier), Tokens::Desk(Desk::new(login, certifier)))
            }
        };
        if plan.trust.is_none() {
            events.note(
                "there is no --trusted-root: the certificate, timestamp and log entry are stored without being checked against one",
            );
        }
        let witnesses = Witnesses::new(http.clone(), services, events.clone());
        let verifier = OwnVerifier { trust: plan.trust.clone(), issued };
        Ok(Self { name, tokens, certifier, witnesses, current: tokio::sync::Mutex::new(None), verifier })
    }

    /// Returns key and certificate, the same for as long as the certificate is good.
    async fn current(&self) -> Result<(Arc<PrivateKey>, Material), KeylessError> {
        let mut current = self.current.lock().await;
        if !current.as_ref().is_some_and(Current::is_good) {
            let next = match &self.tokens {
                Tokens::Source(source) => {
                    let place = source.place();
                    let name = format!("getting an identity token from {place}");
                    let step = self.certifier.events.step("token", name);
                    let token = step.end(source.token().await)?;
                    self.certifier.certify(&token, &place).await?
                }
                Tokens::Desk(desk) => desk.certificate().await?,
            };
            if let Some(before) = current.as_ref().filter(|before| before.subject != next.subject) {
                let (now, before) = (next.subject, before.subject.clone());
                return Err(LoginError::SomebodyElse { now, before }.into());
            }
            let _only_one = self.name.set(called(&next.subject));
            *current = Some(next);
        }
        let Current { key, leaf, chain, .. } = current.as_ref().expect("made above");
        Ok((Arc::clone(key), Material::Certificate { leaf: leaf.clone(), chain: chain.clone() }))
    }

    async fn attest(&self, content: Content<'_>) -> Result<Evidence, KeylessError> {
        if let Some(seen) = self.witnesses.seen(content) {
            return Ok(seen);
        }
        let (key, material) = self.current().await?;
        let sign = || {
            let signature = key.sign(&content.message(), Hash::Sha256).map_err(|_| KeylessError::Key)?;
            Ok::<_, KeylessError>(Evidence::new(signature, material.clone()))
        };
        let attest = |evidence, attempt| {
            self.witnesses.attest(content, key.public(), &self.verifier, evidence, attempt)
        };
        for _ in 1..SIGNINGS {
            match attest(sign()?, Attempt::Further).await {
                Err(WitnessError::AlreadyLogged { .. }) => {}
                attested => return Ok(attested?),
            }
        }
        Ok(attest(sign()?, Attempt::Last).await?)
    }

    fn failed(&self, error: KeylessError) -> SignerError {
        SignerError { signer: self.name().to_owned(), source: Box::new(error) }
    }
}

fn called(subject: &str) -> String {
    format!("the identity {subject}")
}

/// Whether the token comes from whom `--oidc-issuer` says.
fn check_issuer(plan: &ServicePlan, token: &IdentityToken, place: &str) -> Result<(), KeylessError> {
    let Some(wanted) = plan.login.as_ref().filter(|_| plan.issuer_is_must) else { return Ok(()) };
    // Issuers are compared as they are written, but for the slash that URLs get.
    if token.issuer.trim_end_matches('/') == wanted.as_str().trim_end_matches('/') {
        return Ok(());
    }
    Err(IdentityError::Issuer {
        place: place.to_owned(),
        found: token.issuer.clone(),
        who: "`--oidc-issuer`".to_owned(),
        accepted: format!("it says {wanted}"),
    }
    .into())
}

/// How wrong a clock must be to be worth a word: their time is in whole seconds, and some pass on the way.
const NOTICED: SignedDuration = SignedDuration::from_secs(60);

/// Whether the certificate authority would take this issuer's tokens, as far as it says; returns whom they must be
/// for, which is `unsaid` where it says nothing.
fn accepts<'a>(
    (issuers, unsaid): (Option<&'a [IssuerJson]>, &'a str),
    name: &str,
    audiences: &[String],
    place: &str,
) -> Result<&'a str, KeylessError> {
    let Some(issuers) = issuers else { return Ok(unsaid) };
    let Some(issuer) = issuers.iter().find(|issuer| issuer.is(name)) else {
        return Err(IdentityError::Issuer {
            place: place.to_owned(),
            found: name.to_owned(),
            who: "the certificate authority".to_owned(),
            accepted: IssuerJson::list(issuers),
        }
        .into());
    };
    Ok(identity::audience(audiences, issuer.audience(), place)?)
}

/// Turns tokens into certificates.
struct Certifier {
    http: Http,
    authority: Url,
    issuers: Option<Vec<IssuerJson>>,
    /// Whom tokens are for where the authority doesn't say.
    audience: String,
    /// How much the authority's clock is ahead of ours. It is the one that a token must hold for; ours may be wrong.
    skew: SignedDuration,
    /// All that were issued to us.
    issued: Issued,
    events: Events,
}

impl Certifier {
    fn accepted(&self) -> (Option<&[IssuerJson]>, &str) {
        (self.issuers.as_deref(), &self.audience)
    }

    /// Says who signs.
    fn introduce(&self, token: &IdentityToken, place: &str) {
        self.events
            .note(format!("signing as `{}`, by the word of {} ({place})", token.subject, token.issuer));
    }

    /// Whether the certificate authority would take this token, as far as it says.
    fn check(&self, token: &IdentityToken, place: &str) -> Result<(), KeylessError> {
        let audience = accepts(self.accepted(), &token.issuer, &token.audiences, place)?;
        let now =
            jiff::Timestamp::now().saturating_add(self.skew).expect("a duration without calendar units");
        Ok(token.check(place, audience, now)?)
    }

    /// Gets a certificate for a new key.
    async fn certify(&self, token: &IdentityToken, place: &str) -> Result<Current, KeylessError> {
        let name = format!(
            "getting a certificate for {} from {}",
            called(&token.subject),
            super::http::shown(&self.authority)
        );
        let step = self.events.step("certificate", name);
        step.end(self.ask(token, place).await)
    }

    async fn ask(&self, token: &IdentityToken, place: &str) -> Result<Current, KeylessError> {
        self.check(token, place)?;
        let key = new_key()?;
        let asked = Instant::now();
        let chain = Authority { http: &self.http, url: &self.authority }.certify(token, &key).await?;
        let wrong =
            |what: String| KeylessError::Certificate { url: super::http::shown(&self.authority), what };
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or_else(|| wrong("no certificate".to_owned()))?;
        let identity = CertificateIdentity::read(&leaf).map_err(wrong)?;
        if identity.spki != key.public().spki() {
            return Err(wrong("a certificate for another key".to_owned()));
        }
        if identity.issuer.as_deref() != Some(token.issuer.as_str()) {
            return Err(wrong("a certificate for a token of another issuer".to_owned()));
        }
        let lifetime =
            Duration::try_from(identity.not_after.duration_since(identity.not_before)).unwrap_or_default();
        // What comes after the signature takes its time, too: log and clock must see it while the certificate is good.
        let margin = (lifetime / 4).min(Duration::from_secs(60));
        self.issued.lock().expect("nobody panics while holding it").push((leaf.clone(), identity));
        Ok(Current {
            key: Arc::new(key),
            leaf,
            chain: chain.collect(),
            subject: token.subject.clone(),
            good_until: asked + lifetime - margin,
        })
    }
}

fn new_key() -> Result<PrivateKey, KeylessError> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
    key.ok().and_then(|key| PrivateKey::from_pkcs8(key.as_ref()).ok()).ok_or(KeylessError::Key)
}

#[async_trait]
impl Signer for KeylessSigner {
    fn name(&self) -> &str {
        self.name.get().map_or("whoever logs in", String::as_str)
    }

    fn begin(&self) {
        if let Tokens::Desk(desk) = &self.tokens {
            desk.begin();
        }
    }

    async fn ready(&self) -> Result<(), SignerError> {
        match &self.tokens {
            Tokens::Source(_) => Ok(()),
            Tokens::Desk(_) => self.current().await.map(drop).map_err(|error| self.failed(error)),
        }
    }

    fn verifier(&self) -> &dyn Verifier {
        self
    }

    fn public_key(&self) -> Option<&PublicKey> {
        None
    }

    fn certified(&self) -> Option<Certified> {
        let issued = self.verifier.issued.lock().expect("nobody panics while holding it");
        let (_, identity) = issued.last()?;
        Some(Certified { identity: identity.clone(), by_clock: self.witnesses.give_no_time() })
    }

    async fn has_made(&self, content: Content<'_>, evidence: &Evidence) -> Result<bool, SignerError> {
        // Whose a certificate of an earlier run is, only a trust root can tell.
        if self.verifier.trust.is_none() || !matches!(evidence.material, Material::Certificate { .. }) {
            return Ok(false);
        }
        // By which name the authority knows us stands in a certificate alone.
        self.current().await.map_err(|error| self.failed(error))?;
        Ok(self.verifier.verify(content, evidence).is_ok())
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        self.attest(content).await.map_err(|error| self.failed(error))
    }
}

impl Verifier for KeylessSigner {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        self.witnesses.verify(&self.verifier, content, evidence)
    }

    fn trust(&self) -> Option<&TrustRoot> {
        self.verifier.trust()
    }
}

/// Accepts what was signed with the certificates of this run, or of an earlier one by the same identity: fully against
/// a trust root, else what can be checked without one.
struct OwnVerifier {
    trust: Option<TrustRoot>,
    issued: Issued,
}

/// Certificates, DER, and what they say.
type Issued = Arc<Mutex<Vec<(Vec<u8>, CertificateIdentity)>>>;

impl Verifier for OwnVerifier {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        let Material::Certificate { leaf, .. } = &evidence.material else {
            return Err("it carries no certificate".to_owned());
        };
        let issued = self.issued.lock().expect("nobody panics while holding it").clone();
        let identity = CertificateIdentity::read(leaf)?;
        let is_ours = |(issued, ours): &(Vec<u8>, CertificateIdentity)| {
            let same = ours.subject == identity.subject && ours.issuer == identity.issuer;
            issued == leaf || same && self.trust.is_some()
        };
        if !issued.iter().any(is_ours) {
            return Err("its certificate is not the one that it was signed with".to_owned());
        }
        let signed = || {
            let key = PublicKey::from_spki(&identity.spki).map_err(|error| error.to_string())?;
            let signed = key.verify(&content.message(), &evidence.signature);
            signed
                .map(|_| ())
                .ok_or("it is not a signature of its certificate's key over this content".to_owned())
        };
        let Some(trust) = &self.trust else { return signed() };
        let (Some(subject), Some(issuer)) = (&identity.subject, &identity.issuer) else {
            return Err("its certificate names nobody".to_owned());
        };
        let policy = IdentityPolicy {
            subject: Matcher::Exact(subject.clone()),
            issuer: Matcher::Exact(issuer.clone()),
        };
        // A private authority without certificate logs gives no proof of having logged.
        let leniency = Leniency { sct: !trust.has_certificate_logs(), log: false };
        let verified = IdentityVerifier::new(trust.clone(), policy, leniency).verify(content, evidence);
        // That looked at the signature, too, but has fewer words for it.
        verified.map_err(|error| signed().err().unwrap_or(error))
    }

    fn trust(&self) -> Option<&TrustRoot> {
        self.trust.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::http::HttpOptions;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    #[test]
    fn a_token_has_to_hold_by_the_authority_s_clock() {
        let hour = SignedDuration::from_hours(1);
        let check = |ends_in: SignedDuration, skew| {
            let now = jiff::Timestamp::now().as_second();
            let claims = json!({ "iss": "i", "aud": AUDIENCE, "sub": "s", "exp": now + ends_in.as_secs() });
            let text = ["{}", &claims.to_string(), "s"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let certifier = Certifier {
                http: Http::new(&HttpOptions::default()).unwrap(),
                authority: "http://127.0.0.1:1".parse().unwrap(),
                issuers: None,
                audience: AUDIENCE.to_owned(),
                skew,
                issued: Issued::default(),
                events: Events::off(),
            };
            certifier.check(&IdentityToken::parse(&text, "here").unwrap(), "here").is_ok()
        };
        assert!(check(hour, SignedDuration::ZERO) && !check(-hour, SignedDuration::ZERO));
        // Ours is two hours ahead, or behind.
        assert!(check(-hour, -2 * hour) && !check(hour, 2 * hour));
    }
}
