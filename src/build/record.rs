//! What a daemon recorded of a build, as the metadata file has it: buildx's keys and shape.

use crate::buildkit::Client;
use crate::event::Events;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;

/// What buildx calls it; where there are several platforms, the platform follows.
pub(super) const PROVENANCE: &str = "buildx.build.provenance";

/// Returns the provenance of a build, one entry for each platform. It is told if there is none to be had; the build is
/// none the worse for it.
pub(super) async fn provenance(
    client: &Client,
    reference: &str,
    events: &Events,
) -> BTreeMap<String, String> {
    let found = match client.provenance(reference).await {
        Ok(found) => found,
        Err(error) => {
            events.note(format!("the metadata file lacks the provenance: {error}"));
            BTreeMap::new()
        }
    };
    let key = |platform: String| match platform.as_str() {
        "" => PROVENANCE.to_owned(),
        platform => format!("{PROVENANCE}/{platform}"),
    };
    let entry =
        |(platform, predicate): (_, Vec<u8>)| Some((key(platform), STANDARD.encode(brief(&predicate)?)));
    found.into_iter().filter_map(entry).collect()
}

/// Returns a predicate without what takes much room and tells much, as buildx does unless it is told otherwise.
fn brief(predicate: &[u8]) -> Option<String> {
    let mut predicate: serde_json::Map<String, Value> = serde_json::from_slice(predicate).ok()?;
    for name in ["buildConfig", "metadata"] {
        predicate.shift_remove(name);
    }
    if predicate.get("builder").is_some_and(|builder| builder["id"].as_str().is_none_or(str::is_empty)) {
        predicate.shift_remove("builder");
    }
    Some(Value::Object(predicate).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_is_cut_short() {
        let full =
            br#"{"builder":{"id":""},"buildType":"t","materials":[1],"metadata":{"a":1},"buildConfig":{}}"#;
        assert_eq!(brief(full).expect("JSON"), r#"{"buildType":"t","materials":[1]}"#);
        assert_eq!(brief(br#"{"builder":{"id":"x"}}"#).expect("JSON"), r#"{"builder":{"id":"x"}}"#);
        assert_eq!(brief(b"[]"), None);
    }
}
