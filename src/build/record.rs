//! What a daemon recorded of a build, as the metadata file has it: buildx's keys and shape.

use crate::buildkit::Client;
use crate::event::Events;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What buildx calls it; where there are several platforms, the platform follows.
pub(super) const PROVENANCE: &str = "buildx.build.provenance";

/// How much is told of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What takes much room and tells much is left out.
    Min,
    /// All of it.
    Max,
}

/// Returns the provenance of a build, one entry for each platform. It is told if there is none to be had; the build is
/// none the worse for it.
pub(super) async fn provenance(
    client: &Client,
    reference: &str,
    detail: Detail,
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
    let entry = |(platform, predicate): (_, Vec<u8>)| {
        Some((key(platform), STANDARD.encode(told(&predicate, detail)?)))
    };
    found.into_iter().filter_map(entry).collect()
}

/// Returns a predicate as buildx writes it: in the older shape, whatever its own.
fn told(predicate: &[u8], detail: Detail) -> Option<String> {
    let mut predicate: Map<String, Value> = serde_json::from_slice(predicate).ok()?;
    if let Some(definition) = predicate.get("buildDefinition") {
        predicate = older(definition, predicate.get("runDetails").unwrap_or(&Value::Null));
    }
    if detail == Detail::Min {
        predicate.retain(|name, _| name != "buildConfig" && name != "metadata");
    }
    Some(Value::Object(predicate).to_string())
}

/// Writes SLSA v1 as v0.2 has it (buildkit solver/llbsolver/provenance/types).
fn older(definition: &Value, details: &Value) -> Map<String, Value> {
    let external = &definition["externalParameters"];
    let mut environment = definition["internalParameters"].as_object().cloned().unwrap_or_default();
    let config = environment.shift_remove("buildConfig");
    if let Some(platform) = environment.shift_remove("builderPlatform") {
        environment.insert("platform".to_owned(), platform);
    }
    let mut source = external["configSource"].as_object().cloned().unwrap_or_default();
    if let Some(path) = source.shift_remove("path") {
        source.insert("entryPoint".to_owned(), path);
    }
    let predicate = json!({
        "builder": { "id": details["builder"]["id"].as_str().unwrap_or_default() },
        "buildType": "https://mobyproject.org/buildkit@v1",
        "invocation": {
            "configSource": source, "parameters": external["request"], "environment": environment,
        },
    });
    let Value::Object(mut predicate) = predicate else { unreachable!("it is an object") };
    if let Some(dependencies) = definition["resolvedDependencies"].as_array().filter(|all| !all.is_empty()) {
        let material = |one: &Value| json!({ "uri": one["uri"], "digest": one["digest"] });
        predicate.insert("materials".to_owned(), dependencies.iter().map(material).collect());
    }
    predicate.extend(config.map(|config| ("buildConfig".to_owned(), config)));
    predicate.insert("metadata".to_owned(), older_metadata(&details["metadata"]));
    predicate
}

fn older_metadata(metadata: &Value) -> Value {
    let complete = |what: &str| metadata["buildkit_completeness"][what] == true;
    let mut older = json!({
        "buildInvocationID": metadata["invocationId"],
        "buildStartedOn": metadata["startedOn"],
        "buildFinishedOn": metadata["finishedOn"],
        "completeness": {
            "parameters": complete("request"), "environment": true, "materials": complete("resolvedDependencies"),
        },
        "reproducible": metadata["buildkit_reproducible"] == true,
    });
    let more = older.as_object_mut().expect("it is an object");
    for (name, here) in [("hermetic", "buildkit_hermetic"), ("metadata", "buildkit_metadata")] {
        if let Some(value) = metadata.get(here) {
            more.insert(format!("https://mobyproject.org/buildkit@v1#{name}"), value.clone());
        }
    }
    more.retain(|_, value| !value.is_null());
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_is_cut_short_and_of_the_older_shape() {
        let full =
            br#"{"builder":{"id":""},"buildType":"t","materials":[1],"metadata":{"a":1},"buildConfig":{}}"#;
        let told = |bytes: &[u8], detail| {
            told(bytes, detail).map(|text| serde_json::from_str::<Value>(&text).expect("JSON"))
        };
        let brief = |bytes: &[u8]| told(bytes, Detail::Min);
        let expected = json!({ "builder": { "id": "" }, "buildType": "t", "materials": [1] });
        assert_eq!(brief(full), Some(expected));
        assert_eq!(told(full, Detail::Max), serde_json::from_slice(full).ok());
        let v1 = json!({
            "buildDefinition": {
                "buildType": "other", "resolvedDependencies": [{ "uri": "u", "digest": { "sha256": "d" }, "name": "n" }],
                "externalParameters": { "configSource": { "uri": "c", "path": "Dockerfile" }, "request": { "frontend": "f" } },
                "internalParameters": { "buildConfig": {}, "builderPlatform": "linux/amd64", "dockerfileVersion": "1" },
            },
            "runDetails": { "builder": { "id": "b" }, "metadata": {
                "invocationId": "i", "buildkit_hermetic": true, "buildkit_completeness": { "request": true },
            } },
        });
        let mut expected = json!({
            "builder": { "id": "b" },
            "buildType": "https://mobyproject.org/buildkit@v1",
            "invocation": {
                "configSource": { "uri": "c", "entryPoint": "Dockerfile" }, "parameters": { "frontend": "f" },
                "environment": { "dockerfileVersion": "1", "platform": "linux/amd64" },
            },
            "materials": [{ "uri": "u", "digest": { "sha256": "d" } }],
        });
        assert_eq!(brief(v1.to_string().as_bytes()).as_ref(), Some(&expected));
        expected["buildConfig"] = json!({});
        expected["metadata"] = json!({
            "buildInvocationID": "i", "reproducible": false, "https://mobyproject.org/buildkit@v1#hermetic": true,
            "completeness": { "parameters": true, "environment": true, "materials": false },
        });
        assert_eq!(told(v1.to_string().as_bytes(), Detail::Max), Some(expected));
        assert_eq!(brief(b"[]"), None);
    }
}
