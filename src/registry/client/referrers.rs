//! Referrers, by the API of distribution spec 1.1.

use super::{Call, Client, MANIFEST_MAX, Target, below};
use crate::registry::descriptor::media_type;
use crate::registry::error::{Kind, RegistryError, Trouble};
use crate::registry::{Descriptor, Digest, Repository};
use http::HeaderValue;
use http::header::{ACCEPT, LINK};
use serde::Deserialize;
use url::Url;

/// Pages of one list; a page holds some hundreds.
const PAGES_MAX: usize = 50;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    manifests: Option<Vec<serde_json::Value>>,
}

impl Client {
    /// Returns what refers to a digest, of every artifact type; none if the registry has no such API, and the
    /// fallback tag ([`Digest::tag`]) must be read instead.
    ///
    /// GHCR answers with 404 or a redirect to a page for people, others with 400, 405, 406 or 501: all of them
    /// mean that there is no API.
    ///
    /// # Errors
    /// As every call.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let action = format!("list the referrers of {digest} in");
        self.run(repository, &action, async {
            let mut target = Target::Path(format!("referrers/{digest}"));
            let mut all = Vec::new();
            for _page in 0..PAGES_MAX {
                let Some((mut page, next)) = self.page(repository, target).await? else {
                    return Ok(None);
                };
                all.append(&mut page);
                match next {
                    Some(next) => target = Target::Url(next),
                    None => return Ok(Some(all)),
                }
            }
            Err(Trouble::new(Kind::TooLarge, format!("the list has more than {PAGES_MAX} pages")))
        })
        .await
    }

    async fn page(
        &self,
        repository: &Repository,
        target: Target,
    ) -> Result<Option<(Vec<Descriptor>, Option<Url>)>, Trouble> {
        let mut call = Call::get(repository, String::new());
        (call.target, call.follow) = (target, false);
        call.headers.insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
        let response = self.call(call).await?;
        match response.status.as_u16() {
            300..400 | 400 | 404..=406 | 501 => {
                response.discard().await;
                return Ok(None);
            }
            200..300 => {}
            _ => return Err(response.refusal().await),
        }
        // Without the type it may be any page at all.
        if !matches!(response.media_type(), Some(media_type::OCI_INDEX | "application/json")) {
            response.discard().await;
            return Ok(None);
        }
        let next = match response.header(LINK).and_then(next_link) {
            Some(link) => Some(below(&response.url, link)?),
            None => None,
        };
        let bytes = response.bytes(MANIFEST_MAX).await?;
        let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
            Trouble::new(Kind::Protocol, "the list of referrers is no index").caused_by(error)
        })?;
        // An entry that we cannot read, say with a digest of another algorithm, does not spoil the others.
        let entries = page.manifests.unwrap_or_default().into_iter();
        Ok(Some((entries.filter_map(|entry| serde_json::from_value(entry).ok()).collect(), next)))
    }
}

/// Returns the target of the link to the next page (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| matches!(parameter.trim(), r#"rel="next""# | "rel=next");
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(
            next_link(r#"</v2/a/referrers/x?n=1&last=2>; rel="next""#),
            Some("/v2/a/referrers/x?n=1&last=2")
        );
        assert_eq!(next_link(r#"</a>; rel="prev", </b>; title=x; rel=next"#), Some("/b"));
        assert_eq!(next_link(r#"</a>; rel="prev""#), None);
        assert_eq!(next_link("nonsense"), None);
    }
}
