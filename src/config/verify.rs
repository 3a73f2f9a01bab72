//! What `verify` looks at and for.

use super::env::{Environment, names};
use super::misuse::Misuse;
use super::sign::{self, KeySettings, Password};
use super::source::Source;
use crate::cli::verify::VerifyByArgs;
use crate::registry::{Reference, Repository};
use crate::sign::Wanted;
use std::collections::BTreeMap;
use std::path::Path;

/// What is verified, and how it is told.
#[derive(Debug)]
pub struct VerifySettings {
    /// The images.
    pub references: Vec<Reference>,
    /// Who must have signed, each of them.
    pub keys: Vec<KeySettings>,
    /// The password of a private key.
    pub password: Password,
    /// What must have been signed along.
    pub annotations: BTreeMap<String, String>,
    /// Where signatures are, if elsewhere.
    pub storage: Option<Repository>,
    /// What counts.
    pub wanted: Wanted,
    /// What standard output gets.
    pub output: Output,
}

/// What standard output gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// cosign's array for each image.
    Json,
    /// A line for each signature.
    Text,
}

/// Resolves what is verified, and how.
///
/// # Errors
/// Names that are none, no key, unknown words.
pub fn resolve(
    references: &[String],
    by: VerifyByArgs,
    attestation: Option<&str>,
    output: &str,
    directory: &Path,
    env: &dyn Environment,
) -> Result<VerifySettings, Misuse> {
    let VerifyByArgs {
        keys,
        cosign_password_file,
        annotations,
        signature_repository,
        offline: _,
        insecure_ignore_tlog,
    } = by;
    let references = references
        .iter()
        .map(|text| text.parse::<Reference>().map_err(|error| invalid("REF", text, error.to_string())));
    let references = references.collect::<Result<Vec<_>, _>>()?;
    let output = match output {
        "json" => Output::Json,
        "text" => Output::Text,
        other => return Err(invalid("--output", other, "it is neither `json` nor `text`".to_owned())),
    };
    if insecure_ignore_tlog == Some(false) {
        let reason = "logs of keys' signatures cannot be verified yet".to_owned();
        return Err(invalid("--insecure-ignore-tlog", "false", reason));
    }
    let mut texts: Vec<_> = keys.into_iter().map(|key| (key, Source::Flag("--key"))).collect();
    if texts.is_empty() {
        texts.extend(env.get_filled(names::COSIGN_KEY).map(|key| (key, Source::Env(names::COSIGN_KEY))));
    }
    if texts.is_empty() {
        return Err(Misuse::VerifyWithoutKey);
    }
    let keys = texts.into_iter().map(|(text, source)| sign::key(&text, source, directory, env));
    Ok(VerifySettings {
        references,
        keys: keys.collect::<Result<_, _>>()?,
        password: sign::password(cosign_password_file.as_deref(), directory, env)?,
        annotations: sign::annotations("--annotations", &annotations)?,
        storage: sign::storage(signature_repository, env)?,
        wanted: attestation.map_or(Wanted::Signature, |kind| Wanted::Attestation(predicate_type(kind))),
        output,
    })
}

fn invalid(name: &str, value: &str, reason: String) -> Misuse {
    Misuse::Value { name: name.to_owned(), value: value.to_owned(), reason }
}

/// Returns the predicate type that cosign calls by this name (`pkg/cosign/attestation`); any other word is one
/// itself.
fn predicate_type(name: &str) -> String {
    match name {
        "slsaprovenance" | "slsaprovenance02" => "https://slsa.dev/provenance/v0.2",
        "slsaprovenance1" => "https://slsa.dev/provenance/v1",
        "spdx" | "spdxjson" => "https://spdx.dev/Document",
        "cyclonedx" => "https://cyclonedx.org/bom",
        "link" => "https://in-toto.io/Link/v1",
        "vuln" => "https://cosign.sigstore.dev/attestation/vuln/v1",
        "openvex" => "https://openvex.dev/ns",
        "custom" => "https://cosign.sigstore.dev/attestation/v1",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;

    const PUBLIC: &str = include_str!("../../integration/fixtures/signing/cosign.pub");

    fn resolve_with(by: VerifyByArgs, env: &Fixed) -> Result<VerifySettings, Misuse> {
        resolve(&["r.example/a:1".to_owned()], by, Some("slsaprovenance1"), "json", Path::new("/"), env)
    }

    #[test]
    fn the_variables_count_where_flags_are_absent() {
        let env = Fixed::new([
            ("COSIGN_KEY", "env://PUB"),
            ("PUB", PUBLIC),
            ("COSIGN_REPOSITORY", "r.example/signatures"),
        ]);
        let by = VerifyByArgs { annotations: vec!["env=prod=1".to_owned()], ..VerifyByArgs::default() };
        let settings = resolve_with(by, &env).expect("settings");
        assert_eq!(settings.keys[0].text, "env://PUB");
        assert_eq!(settings.storage, Some("r.example/signatures".parse().expect("a repository")));
        assert_eq!(settings.annotations["env"], "prod=1");
        assert_eq!(settings.wanted, Wanted::Attestation("https://slsa.dev/provenance/v1".to_owned()));
    }

    #[test]
    fn misuse_is_named() {
        let env = Fixed::new([("PUB", PUBLIC)]);
        let keys = || vec!["env://PUB".to_owned()];
        let refused = |by| resolve_with(by, &env).expect_err("misuse").to_string();
        assert!(refused(VerifyByArgs::default()).contains("needs a key"));
        let by = VerifyByArgs { keys: keys(), annotations: vec!["env".to_owned()], ..Default::default() };
        assert!(refused(by).contains("KEY=VALUE"));
        let by = VerifyByArgs {
            keys: keys(),
            signature_repository: Some("r.example/a:1".to_owned()),
            ..Default::default()
        };
        assert!(refused(by).contains("--signature-repository"));
    }
}
