//! `--attest`, `--provenance` and `--sbom`: to the attributes that BuildKit's frontend reads.

use super::misuse::Misuse;
use crate::cli::build::OptionArgs;
use std::collections::BTreeMap;

/// Resolves what is to be attested, by type: the fields of each as the frontend has them. Nothing unless asked.
///
/// # Errors
/// What is no attestation, or one that is asked for twice.
pub(super) fn resolve(options: &OptionArgs) -> Result<BTreeMap<String, String>, Misuse> {
    let given = options.attest.iter().map(|text| ("--attest", text.clone()));
    let short = [("--provenance", "provenance", &options.provenance), ("--sbom", "sbom", &options.sbom)];
    let short =
        short.into_iter().filter_map(|(flag, kind, value)| Some((flag, expand(kind, value.as_deref()?))));
    let mut attests = BTreeMap::new();
    let mut seen = Vec::new();
    for (flag, text) in given.chain(short) {
        let invalid = |reason: String| Misuse::Value { name: flag.to_owned(), value: text.clone(), reason };
        let Parsed { kind, enabled, fields } = parse(&text).map_err(invalid)?;
        if seen.contains(&kind) {
            return Err(invalid(format!("`{kind}` is asked for twice")));
        }
        seen.push(kind.clone());
        if enabled {
            attests.insert(kind, fields);
        }
    }
    Ok(attests)
}

/// Writes a short flag's value as `--attest` has it (buildx util/buildflags/attests.go).
fn expand(kind: &str, value: &str) -> String {
    match boolean(value) {
        Some(enabled) => format!("type={kind},disabled={}", !enabled),
        None => format!("type={kind},{value}"),
    }
}

/// Reads a boolean as Go does.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

struct Parsed {
    kind: String,
    enabled: bool,
    fields: String,
}

fn parse(text: &str) -> Result<Parsed, String> {
    let (mut kind, mut enabled, mut kept) = (None, true, Vec::new());
    for field in fields(text) {
        let bare = field.trim_matches('"');
        let (key, value) =
            bare.split_once('=').ok_or_else(|| format!("`{bare}` is not written KEY=VALUE"))?;
        match key.to_lowercase().as_str() {
            "type" => kind = Some(value.to_lowercase()),
            "disabled" => enabled = !boolean(value).ok_or_else(|| format!("`{value}` is no boolean"))?,
            _ => kept.push(field),
        }
    }
    let kind = kind.ok_or("it says no type, such as `type=provenance`")?;
    if !["provenance", "sbom"].contains(&kind.as_str()) {
        return Err(format!("there is no attestation `{kind}`: use `provenance` or `sbom`"));
    }
    let said = |key: &str| kept.iter().any(|field| field.trim_matches('"').split('=').next() == Some(key));
    // The daemon's own default changed with its version; verifiers ask for one.
    if kind == "provenance" && !said("version") {
        kept.push("version=v1");
    }
    Ok(Parsed { kind, enabled, fields: kept.join(",") })
}

/// Splits at commas, but for those within quotes.
pub(super) fn fields(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use rstest::rstest;

    fn resolved(arguments: &[&str]) -> Result<BTreeMap<String, String>, String> {
        let line = ["kubectl build"].iter().chain(arguments).chain(&["."]);
        let parsed = crate::cli::build::BuildArgs::try_parse_from(line).map_err(|error| error.to_string())?;
        resolve(&parsed.options).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case(&[], &[])]
    #[case(&["--provenance"], &[("provenance", "version=v1")])]
    #[case(&["--provenance=false", "--sbom=0"], &[])]
    #[case(&["--provenance=mode=max"], &[("provenance", "mode=max,version=v1")])]
    #[case(&["--provenance=mode=min,version=v0.2"], &[("provenance", "mode=min,version=v0.2")])]
    #[case(&["--attest", "type=provenance,mode=max", "--sbom=generator=r.example/scan:1"],
        &[("provenance", "mode=max,version=v1"), ("sbom", "generator=r.example/scan:1")])]
    #[case(&["--attest=type=sbom,\"generator=r.example/scan\",\"X=a,b\""],
        &[("sbom", "\"generator=r.example/scan\",\"X=a,b\"")])]
    fn attestations_become_attributes(#[case] arguments: &[&str], #[case] expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(kind, fields)| ((*kind).to_owned(), (*fields).to_owned()));
        assert_eq!(resolved(arguments), Ok(expected.collect()));
    }

    #[rstest]
    #[case(&["--attest", "mode=max"], "says no type")]
    #[case(&["--attest", "type=vex"], "no attestation `vex`")]
    #[case(&["--provenance", "--attest", "type=provenance"], "asked for twice")]
    #[case(&["--provenance=max"], "KEY=VALUE")]
    fn what_is_no_attestation(#[case] arguments: &[&str], #[case] said: &str) {
        let error = resolved(arguments).expect_err("refused");
        assert!(error.contains(said), "{error}");
    }
}
