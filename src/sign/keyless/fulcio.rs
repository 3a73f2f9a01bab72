//! Fulcio, the certificate authority: a token and a key in, a certificate out.

use super::KeylessError;
use crate::sign::der;
use crate::sign::http::{Http, HttpError, Limits, Request, shown};
use crate::sign::identity::{AUDIENCE, IdentityToken};
use crate::sign::key::{Hash, PrivateKey, pem_text};
use crate::sign::witness::path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use url::Url;

const SERVICE: &str = "the certificate authority";
const TIMEOUT: Duration = Duration::from_secs(30);
/// A chain takes a few kilobytes.
const LONGEST: usize = 1 << 20;

/// A Fulcio.
pub(super) struct Authority<'a> {
    pub(super) http: &'a Http,
    pub(super) url: &'a Url,
}

/// An issuer of tokens that the authority accepts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IssuerJson {
    issuer_url: Option<String>,
    wildcard_issuer_url: Option<String>,
    audience: Option<String>,
}

#[derive(Deserialize)]
struct ConfigurationJson {
    issuers: Vec<IssuerJson>,
}

impl IssuerJson {
    /// Whether this is the issuer of that name. In a wildcard `*` stands for letters, digits, `-` and `_` (Fulcio's
    /// `pkg/config`).
    pub(super) fn is(&self, name: &str) -> bool {
        if let Some(url) = self.issuer_url.as_deref().filter(|url| !url.is_empty()) {
            return url == name;
        }
        let Some(wildcard) = self.wildcard_issuer_url.as_deref().filter(|url| !url.is_empty()) else {
            return false;
        };
        let mut rest = name;
        for (index, literal) in wildcard.split('*').enumerate() {
            if index > 0 {
                let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
                rest = rest.trim_start_matches(word);
            }
            match rest.strip_prefix(literal) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }

    pub(super) fn audience(&self) -> &str {
        self.audience.as_deref().filter(|audience| !audience.is_empty()).unwrap_or(AUDIENCE)
    }

    /// Returns what is accepted, for people.
    pub(super) fn list(issuers: &[Self]) -> String {
        const SHOWN: usize = 5;
        let name = |issuer: &Self| {
            let urls = [&issuer.issuer_url, &issuer.wildcard_issuer_url];
            urls.into_iter().flatten().find(|url| !url.is_empty()).cloned()
        };
        let names: Vec<_> = issuers.iter().filter_map(name).collect();
        match names.len().checked_sub(SHOWN) {
            Some(more @ 1..) => format!("it accepts {} and {more} more", names[..SHOWN].join(", ")),
            _ => format!("it accepts {}", names.join(", ")),
        }
    }
}

impl Authority<'_> {
    /// Asks which issuers are accepted, `None` where the authority doesn't say, and what time it is there.
    pub(super) async fn issuers(
        &self,
    ) -> Result<(Option<Vec<IssuerJson>>, Option<jiff::Timestamp>), HttpError> {
        let request = Request::get(path(self.url, "api/v2/configuration"));
        let answer = self.http.send(SERVICE, request, Limits::within(Duration::from_secs(10))).await?;
        let date = answer.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        let now = date.and_then(|date| Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp()));
        match answer.status {
            status if status.is_success() => Ok((Some(answer.json::<ConfigurationJson>()?.issuers), now)),
            http::StatusCode::NOT_FOUND | http::StatusCode::NOT_IMPLEMENTED => Ok((None, now)),
            _ => Err(answer.refused("")),
        }
    }

    /// Gets a certificate for the key; returns it with what signed it, DER, the leaf first.
    pub(super) async fn certify(
        &self,
        token: &IdentityToken,
        key: &PrivateKey,
    ) -> Result<Vec<Vec<u8>>, KeylessError> {
        let request = signing_request(key).ok_or(KeylessError::Key)?;
        let request = pem_text("CERTIFICATE REQUEST", &request);
        let body = json!({
            "credentials": { "oidcIdentityToken": token.expose() },
            "certificateSigningRequest": STANDARD.encode(request),
        });
        // A certificate too many does no harm.
        let request = Request::post_json(path(self.url, "api/v2/signingCert"), &body).repeatable();
        let limits = Limits { timeout: TIMEOUT, max_body: LONGEST };
        let answer = self.http.send(SERVICE, request, limits).await?;
        if !answer.is_success() {
            // Its words don't quote the token (Fulcio's `pkg/server/error.go`).
            let said = answer.json::<RefusalJson>().map(|refusal| refusal.message).unwrap_or_default();
            return Err(answer.refused(&said).into());
        }
        let certificates =
            answer.json::<AnswerJson>()?.chain().ok_or_else(|| answer.garbage("a certificate"))?;
        let der = certificates.into_iter().map(|text| pem::parse(text).map(pem::Pem::into_contents));
        der.collect::<Result<Vec<_>, _>>().map_err(|_| KeylessError::Certificate {
            url: shown(self.url),
            what: "something that is no certificate".to_owned(),
        })
    }
}

/// A PKCS#10 request without a name: the token says who asks, and the signature proves the key. It makes knowing
/// which claim the authority would want signed instead unnecessary.
fn signing_request(key: &PrivateKey) -> Option<Vec<u8>> {
    let no_name = der::sequence(&[]);
    let no_attributes = [0xa0, 0];
    let info = der::sequence(&[&der::tlv(der::INTEGER, &[0]), &no_name, key.public().spki(), &no_attributes]);
    let signature = key.sign(&info, Hash::Sha256).ok()?;
    let algorithm = der::sequence(&[der::OID_ECDSA_SHA256]);
    let bits = [&[0], signature.as_slice()].concat();
    Some(der::sequence(&[&info, &algorithm, &der::tlv(der::BIT_STRING, &bits)]))
}

#[derive(Deserialize)]
struct RefusalJson {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerJson {
    signed_certificate_embedded_sct: Option<SignedJson>,
    signed_certificate_detached_sct: Option<SignedJson>,
}

#[derive(Deserialize)]
struct SignedJson {
    chain: ChainJson,
}

#[derive(Deserialize)]
struct ChainJson {
    certificates: Vec<String>,
}

impl AnswerJson {
    fn chain(self) -> Option<Vec<String>> {
        let signed = self.signed_certificate_embedded_sct.or(self.signed_certificate_detached_sct)?;
        (!signed.chain.certificates.is_empty()).then_some(signed.chain.certificates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(json: serde_json::Value) -> IssuerJson {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn issuers_are_found_by_name_and_by_wildcard() {
        let exact = issuer(json!({ "issuerUrl": "https://a", "audience": "other" }));
        assert!(exact.is("https://a") && !exact.is("https://a/"));
        assert_eq!(exact.audience(), "other");
        let wild =
            issuer(json!({ "issuerUrl": "", "wildcardIssuerUrl": "https://oidc.eks.*.amazonaws.com/id/*" }));
        assert!(wild.is("https://oidc.eks.eu-west-1.amazonaws.com/id/ABC123"));
        assert!(!wild.is("https://oidc.eks.evil.com/x.amazonaws.com/id/ABC"));
        assert!(!wild.is("https://oidc.eks.eu-west-1.amazonaws.com/id/ABC/more"));
        assert_eq!(wild.audience(), AUDIENCE);
        assert_eq!(IssuerJson::list(&[exact]), "it accepts https://a");
    }

    #[test]
    fn the_request_is_signed_by_its_key() {
        let key = super::super::new_key().unwrap();
        let request = signing_request(&key).unwrap();
        let (der::SEQUENCE, outer, []) = der::read(&request).unwrap() else { panic!("a SEQUENCE") };
        let (_, info, rest) = der::read(outer).unwrap();
        let (_, _, rest) = der::read(rest).unwrap();
        let (der::BIT_STRING, bits, []) = der::read(rest).unwrap() else { panic!("a BIT STRING") };
        assert!(key.public().verify(&der::tlv(der::SEQUENCE, info), &bits[1..]).is_some());
    }
}
