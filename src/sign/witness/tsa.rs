//! RFC 3161: asking an authority for a timestamp.

use super::WitnessError;
use crate::registry::Digest;
use crate::sign::der;
use crate::sign::http::{Http, Limits, Request, shown};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use std::time::Duration;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(20);
/// A response with all its certificates takes a few kilobytes.
const LONGEST: usize = 256 * 1024;

/// Returns the DER of a TimeStampResp over these bytes.
pub(super) async fn timestamp(http: &Http, url: &Url, message: &[u8]) -> Result<Vec<u8>, WitnessError> {
    let digest = Digest::of(message);
    let mut nonce = [0; 8];
    // Without randomness replies could be replayed, which the check against the trust root finds by their time.
    let _best_effort = aws_lc_rs::rand::fill(&mut nonce);
    let nonce = der::positive(&nonce);
    let request = Request::new(Method::POST, url.clone())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/timestamp-query"))
        .header(ACCEPT, HeaderValue::from_static("application/timestamp-reply"))
        .body(query(&digest, &nonce))
        .repeatable();
    let limits = Limits { timeout: TIMEOUT, max_body: LONGEST };
    let answer = http.send("the timestamp authority", request, limits).await?;
    if !answer.is_success() {
        return Err(answer.refused("").into());
    }
    check(&answer.body, &digest, &nonce).map_err(|what| WitnessError::Foreign {
        service: "the timestamp authority",
        url: shown(url),
        what,
    })?;
    Ok(answer.body.to_vec())
}

/// TimeStampReq, RFC 3161 2.4.1. The certificate isn't asked for, as sigstore's clients don't: verifiers have it.
fn query(digest: &Digest, nonce: &[u8]) -> Vec<u8> {
    let algorithm = der::sequence(&[der::OID_SHA256, &der::NULL]);
    let imprint = der::sequence(&[&algorithm, &der::tlv(der::OCTET_STRING, digest.bytes())]);
    der::sequence(&[&der::tlv(der::INTEGER, &[1]), &imprint, nonce])
}

/// Whether the response grants, and is about this question.
fn check(response: &[u8], digest: &Digest, nonce: &[u8]) -> Result<(), &'static str> {
    const NONE: &str = "something that is no timestamp response";
    let (der::SEQUENCE, outer, []) = der::read(response).ok_or(NONE)? else { return Err(NONE) };
    let (der::SEQUENCE, status, token) = der::read(outer).ok_or(NONE)? else { return Err(NONE) };
    let (der::INTEGER, status, _) = der::read(status).ok_or(NONE)? else { return Err(NONE) };
    // granted, grantedWithMods (RFC 3161 2.4.2).
    if !matches!(status, [0 | 1]) {
        return Err("a refusal");
    }
    let has = |needle: &[u8]| token.windows(needle.len()).any(|window| window == needle);
    if !has(&der::tlv(der::OCTET_STRING, digest.bytes())) {
        return Err("a timestamp of something else");
    }
    if !has(nonce) {
        return Err("a timestamp that was made for somebody else");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_about_its_question() {
        let nonce = der::positive(&[7; 8]);
        let digest = Digest::of(b"signature");
        // The token's own structure is for the library that verifies it; here it has to be there and to fit.
        let response = |status: u8, digest: &Digest, nonce: &[u8]| {
            let status = der::sequence(&[&der::tlv(der::INTEGER, &[status])]);
            let token = der::sequence(&[&der::tlv(der::OCTET_STRING, digest.bytes()), nonce]);
            der::sequence(&[&status, &token])
        };
        assert_eq!(check(&response(0, &digest, &nonce), &digest, &nonce), Ok(()));
        assert_eq!(check(&response(2, &digest, &nonce), &digest, &nonce), Err("a refusal"));
        assert!(check(&response(0, &Digest::of(b"other"), &nonce), &digest, &nonce).is_err());
        assert!(check(&response(0, &digest, &der::positive(&[8; 8])), &digest, &nonce).is_err());
        for garbage in [&b""[..], b"<html>", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 2, 0x30, 0]] {
            assert!(check(garbage, &digest, &nonce).is_err());
        }
    }
}
