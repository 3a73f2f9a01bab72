//! Answers, read with limits on time and size.

use super::dial::Endless;
use super::failure;
use crate::registry::connect::Way;
use crate::registry::error::{Kind, Trouble};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use url::Url;

/// How much of an error's text is read.
const TEXT_MAX: u64 = 64 * 1024;
/// How much of it is shown.
const SHOWN: usize = 400;

/// An answer whose body has not been read.
pub(in crate::registry) struct Response {
    /// What was asked for.
    pub(in crate::registry) url: Url,
    pub(in crate::registry) status: StatusCode,
    pub(in crate::registry) headers: HeaderMap,
    body: Incoming,
    idle: Duration,
    /// How the host is reached, if it is through somebody else.
    way: Option<Way>,
    /// Nobody may tell where the connection ends.
    endless: bool,
}

impl Response {
    pub(super) fn new(
        response: http::Response<Incoming>,
        url: Url,
        idle: Duration,
        way: Option<Way>,
    ) -> Self {
        let (head, body) = response.into_parts();
        let endless = head.extensions.get::<Endless>().is_some();
        Self { url, status: head.status, headers: head.headers, body, idle, way, endless }
    }

    /// Returns a header's text, if it is there and text.
    pub(in crate::registry) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the media type without parameters.
    pub(in crate::registry) fn media_type(&self) -> Option<&str> {
        let value = self.header(CONTENT_TYPE)?;
        Some(value.split_once(';').map_or(value, |(media_type, _)| media_type).trim())
    }

    /// Returns how long the registry asks us to pause: seconds or a date (RFC 9110 §10.2.3).
    pub(in crate::registry) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER)?, SystemTime::now())
    }

    /// Reads the body.
    pub(in crate::registry) async fn bytes(mut self, max: u64) -> Result<Bytes, Trouble> {
        let at = super::place(&self.url);
        let too_large =
            || Trouble::new(Kind::TooLarge, format!("the answer of {at} is larger than {max} bytes"));
        if self.body.size_hint().lower() > max {
            return Err(too_large());
        }
        let ends = self.body.size_hint().exact().is_some() || self.headers.contains_key(TRANSFER_ENCODING);
        if self.endless && !ends {
            let what = format!("{at} does not say how long its answer is");
            let mut trouble = Trouble::new(Kind::Protocol, what);
            if let Some(way) = self.way {
                trouble.what = format!("{}, and nobody tells where it ends {}", trouble.what, way.through);
                trouble.hint = Some(way.hint);
            }
            return Err(trouble);
        }
        let mut bytes = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await.map_err(|_elapsed| {
                let seconds = self.idle.as_secs();
                Trouble::new(Kind::Timeout, format!("no further bytes from {at} within {seconds} s"))
                    .on(self.way.as_ref())
            })?;
            let Some(frame) = frame else { return Ok(bytes.freeze()) };
            let frame = frame.map_err(|error| failure::broken(error, &at).on(self.way.as_ref()))?;
            if let Some(data) = frame.data_ref() {
                if (bytes.len() + data.len()) as u64 > max {
                    return Err(too_large());
                }
                bytes.extend_from_slice(data);
            }
        }
    }

    /// Reads a body that nobody needs, so that its connection can be used again.
    pub(in crate::registry) async fn discard(self) {
        let _of_no_interest = self.bytes(TEXT_MAX).await;
    }

    /// Reads a refusal: its kind by status, and what the registry says.
    pub(in crate::registry) async fn refusal(self) -> Trouble {
        let (status, retry_after) = (self.status, self.retry_after());
        // The proxy's own word, not the registry's.
        let proxy = self.way.clone().filter(|_| status == StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let at = super::place(&self.url);
        let text = self.bytes(TEXT_MAX).await.ok();
        let said = text.as_deref().and_then(said);
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let kind = match status.as_u16() {
            401 => Kind::Unauthorized,
            403 => Kind::Denied,
            404 => Kind::NotFound,
            429 => Kind::RateLimited { retry_after },
            400 if said.contains("HTTP request to an HTTPS server") => Kind::NeedsTls,
            400..500 => Kind::Rejected,
            500.. => Kind::Server,
            _ => Kind::Protocol,
        };
        let mut trouble = Trouble::new(kind, format!("{status}{said}"));
        trouble.by = Some(at);
        trouble.status = Some(status.as_u16());
        if let Some(way) = proxy {
            trouble.what = format!("{}, {}", trouble.what, way.through);
            trouble.hint = Some(way.hint);
        }
        trouble
    }
}

/// The error envelope of the distribution spec ("error codes"), and what some registries and token services
/// write instead.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<EnvelopeError>,
    #[serde(alias = "details", alias = "error_description", alias = "error")]
    message: Option<String>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    detail: serde_json::Value,
}

/// Returns what a refusal's body says, on one line; none for web pages.
fn said(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.errors.is_empty() => {
            envelope.errors.iter().map(EnvelopeError::line).collect::<Vec<_>>().join("; ")
        }
        Ok(envelope) => envelope.message?,
        Err(_) => std::str::from_utf8(body).ok()?.trim().to_owned(),
    };
    let text: Vec<_> = text.split_whitespace().collect();
    let text = text.join(" ").chars().filter(|letter| !letter.is_control()).take(SHOWN).collect::<String>();
    (!text.is_empty() && !text.starts_with('<')).then_some(text)
}

impl EnvelopeError {
    fn line(&self) -> String {
        let code = self.code.as_str().unwrap_or_default();
        let detail = self.detail.as_str().filter(|detail| !detail.is_empty());
        let message = self.message.as_deref().filter(|message| !message.is_empty());
        match (message.or(detail), code) {
            (Some(message), "") => message.to_owned(),
            (Some(message), code) => format!("{message} ({code})"),
            (None, code) => code.to_owned(),
        }
    }
}

fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
    SystemTime::from(date).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::spec(
        r#"{"errors":[{"code":"DENIED","message":"no way","detail":[1]}]}"#,
        Some("no way (DENIED)")
    )]
    #[case::two(r#"{"errors":[{"code":"A","message":"a"},{"code":"B"}]}"#, Some("a (A); B"))]
    #[case::detail(r#"{"errors":[{"code":"A","message":"","detail":"d"}]}"#, Some("d (A)"))]
    #[case::number(r#"{"errors":[{"code":404,"message":"m"}]}"#, Some("m"))]
    #[case::token_service(r#"{"details":"incorrect username"}"#, Some("incorrect username"))]
    #[case::text("too many\n requests\n", Some("too many requests"))]
    #[case::escape("\u{1b}[2Jx", Some("[2Jx"))]
    #[case::page("<html><body>Bad gateway</body></html>", None)]
    #[case::other_json("{}", None)]
    #[case::nothing("", None)]
    fn what_registries_say(#[case] body: &str, #[case] expected: Option<&str>) {
        assert_eq!(said(body.as_bytes()).as_deref(), expected);
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 5);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(5)));
        assert_eq!(retry_after("soon", now), None);
    }
}
