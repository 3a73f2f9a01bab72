//! AWS Signature Version 4 (IAM User Guide, "Create a signed AWS API request").

use super::credentials::Keys;
use aws_lc_rs::{digest, hmac};
use http::HeaderName;
use secrecy::ExposeSecret as _;
use std::fmt::Write as _;
use url::Url;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The request as it is sent.
pub(super) struct ToSign<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    pub(super) body: &'a [u8],
}

/// Where and when the signature counts.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: jiff::Timestamp,
}

/// Signs these headers and `host`, and adds those of the signature.
pub(super) fn sign(
    request: &ToSign<'_>,
    headers: &mut Vec<(HeaderName, String)>,
    keys: &Keys,
    scope: &Scope<'_>,
) {
    let time = scope.time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &time[..8];
    headers.push((DATE, time.clone()));
    if let Some(token) = &keys.session_token {
        headers.push((TOKEN, token.expose_secret().to_owned()));
    }
    let mut signed: Vec<(String, String)> =
        headers.iter().map(|(name, value)| (name.to_string(), squeezed(value))).collect();
    signed.push(("host".to_owned(), host(request.url)));
    signed.sort();
    let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let lines = signed.iter().fold(String::new(), |mut lines, (name, value)| {
        let _infallible = writeln!(lines, "{name}:{value}");
        lines
    });
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        request.url.path(),
        query(request.url),
        hex(digest::digest(&digest::SHA256, request.body).as_ref())
    );
    let credential = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{time}\n{credential}\n{hashed}");
    let secret = format!("AWS4{}", keys.secret.expose_secret());
    let key = [date, scope.region, scope.service, "aws4_request"]
        .into_iter()
        .fold(secret.into_bytes(), |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, text.as_bytes()));
    headers.push((
        http::header::AUTHORIZATION,
        format!(
            "{ALGORITHM} Credential={}/{credential}, SignedHeaders={names}, Signature={signature}",
            keys.id
        ),
    ));
}

/// The header as the HTTP client writes it: the port only where it is not the scheme's own.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn squeezed(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn query(url: &Url) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    encoded.push(char::from(byte));
                }
                _ => {
                    let _infallible = write!(encoded, "%{byte:02X}");
                }
            }
            encoded
        })
    };
    let mut pairs: Vec<_> = url.query_pairs().map(|(name, value)| (encode(&name), encode(&value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS's published test suite: aws-sig-v4-test-suite, whose credentials and time these are.
    fn suite(method: &str, url: &str, headers: &[(HeaderName, &str)], body: &str) -> String {
        let keys = Keys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None);
        let time = "2015-08-30T12:36:00Z".parse().unwrap();
        let scope = Scope { region: "us-east-1", service: "service", time };
        let url = url.parse().unwrap();
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect();
        sign(&ToSign { method, url: &url, body: body.as_bytes() }, &mut headers, &keys, &scope);
        headers.pop().unwrap().1
    }

    #[test]
    fn the_published_vectors() {
        let prefix = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, ";
        let plain = |signature: &str| format!("{prefix}SignedHeaders=host;x-amz-date, Signature={signature}");
        let root = "https://example.amazonaws.com/";
        assert_eq!(
            suite("GET", root, &[], ""),
            plain("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            "get-vanilla"
        );
        assert_eq!(
            suite("POST", root, &[], ""),
            plain("5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            "post-vanilla"
        );
        assert_eq!(
            suite("GET", &format!("{root}?Param2=value2&Param1=value1"), &[], ""),
            plain("b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
            "get-vanilla-query-order-key-case"
        );
        let form = [(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        assert_eq!(
            suite("POST", root, &form, "Param1=value1"),
            format!(
                "{prefix}SignedHeaders=content-type;host;x-amz-date, \
                 Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
            ),
            "post-x-www-form-urlencoded"
        );
    }

    #[test]
    fn the_token_of_a_session_is_signed_and_the_port_too() {
        let keys = Keys::new("id", "secret", Some("session"));
        let scope = Scope { region: "r", service: "kms", time: jiff::Timestamp::UNIX_EPOCH };
        let mut headers = Vec::new();
        let url = "https://127.0.0.1:5640/".parse().unwrap();
        sign(&ToSign { method: "POST", url: &url, body: b"" }, &mut headers, &keys, &scope);
        let (_, authorization) = headers.last().unwrap();
        assert!(
            authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"),
            "{authorization}"
        );
        assert!(!authorization.contains("secret,"), "{authorization}");
        assert_eq!(host(&url), "127.0.0.1:5640");
        assert_eq!(host(&"https://kms.r.amazonaws.com:443/".parse().unwrap()), "kms.r.amazonaws.com");
    }
}
