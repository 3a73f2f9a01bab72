//! What `verify` looks at and for.

use super::env::{Environment, names};
use super::keyless;
use super::misuse::Misuse;
use super::services;
use super::sign::{self, KeySettings, Password};
use super::source::Source;
use crate::cli::verify::VerifyByArgs;
use crate::registry::{Reference, Repository};
use crate::sign::http::HttpOptions;
use crate::sign::{ATTESTATION_LIMIT, IdentityPolicy, Leniency, Matcher, TrustRoot, TufRepository, Wanted};
use regex::Regex;
use std::collections::BTreeMap;
use std::path::Path;

/// What is verified, and how it is told.
#[derive(Debug)]
pub struct VerifySettings {
    /// The images.
    pub references: Vec<Reference>,
    /// Who must have signed.
    pub by: By,
    /// What must have been signed along.
    pub annotations: BTreeMap<String, String>,
    /// Where signatures are, if elsewhere.
    pub storage: Option<Repository>,
    /// What counts.
    pub wanted: Wanted,
    /// The largest attestation that is read, in bytes.
    pub largest: usize,
    /// What standard output gets.
    pub output: Output,
}

/// Who must have signed.
#[derive(Debug)]
pub enum By {
    /// Each of these keys.
    Keys {
        /// The keys.
        keys: Vec<KeySettings>,
        /// The password of a private one.
        password: Password,
        /// Logs must have the signatures, by the word of this root.
        logged: Option<Trust>,
    },
    /// Whom a certificate names.
    Identity {
        /// The name for messages.
        name: String,
        /// Who, and by whose word.
        policy: IdentityPolicy,
        /// Whose certificates and logs count.
        trust: Trust,
        /// What may be missing.
        leniency: Leniency,
    },
}

/// Who is trusted to say who signed.
#[derive(Debug)]
pub enum Trust {
    /// These.
    Root(TrustRoot),
    /// Whom a TUF repository names.
    Tuf(Box<(TufRepository, HttpOptions)>),
    /// Whom it named when it was last asked.
    Kept(Box<TufRepository>),
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
    let references = references
        .iter()
        .map(|text| text.parse::<Reference>().map_err(|error| invalid("REF", text, error.to_string())));
    let references = references.collect::<Result<Vec<_>, _>>()?;
    let output = match output {
        "json" => Output::Json,
        "text" => Output::Text,
        other => return Err(invalid("--output", other, "it is neither `json` nor `text`".to_owned())),
    };
    let annotations = sign::annotations("--annotations", &by.annotations)?;
    let storage = sign::storage(by.signature_repository.clone(), env)?;
    let wanted = attestation.map_or(Wanted::Signature, |kind| Wanted::Attestation(predicate_type(kind)));
    let largest = match env.get_filled(names::COSIGN_MAX_ATTACHMENT_SIZE) {
        Some(text) => bytes(&text).ok_or_else(|| {
            invalid(
                names::COSIGN_MAX_ATTACHMENT_SIZE,
                &text,
                "it is no size, such as 1048576 or 128MiB".to_owned(),
            )
        })?,
        None => ATTESTATION_LIMIT,
    };
    let by = who(by, directory, env)?;
    Ok(VerifySettings { references, by, annotations, storage, wanted, largest, output })
}

/// Resolves whose signature counts: an identity's where one is named, else a key's.
fn who(by: VerifyByArgs, directory: &Path, env: &dyn Environment) -> Result<By, Misuse> {
    // What a flag says isn't contradicted by a variable: neither a key nor the other way to say the same.
    let or = |exact: Option<String>, pattern: Option<String>, [one, other]: [&str; 2]| match exact.is_none()
        && pattern.is_none()
        && by.keys.is_empty()
        && !by.sk
    {
        true => (env.get_filled(one), env.get_filled(other)),
        false => (exact, pattern),
    };
    let [subject, issuer] = [names::COSIGN_CERTIFICATE_IDENTITY, names::COSIGN_CERTIFICATE_OIDC_ISSUER];
    let (exact, pattern) = or(by.certificate_identity, by.certificate_identity_regexp, subject);
    let subject = matcher("--certificate-identity", exact, pattern)?;
    let (exact, pattern) = or(by.certificate_oidc_issuer, by.certificate_oidc_issuer_regexp, issuer);
    let issuer = matcher("--certificate-oidc-issuer", exact, pattern)?;
    let trust = || {
        let named = keyless::trust(by.trusted_root.as_deref(), directory, env)?;
        Ok::<_, Misuse>(match named {
            Some(root) => Trust::Root(root),
            None if by.offline => Trust::Kept(Box::new(keyless::tuf(directory, env)?)),
            None => Trust::Tuf(Box::new((keyless::tuf(directory, env)?, services::http(env)))),
        })
    };
    match (subject, issuer) {
        (Some(subject), Some(issuer)) => Ok(By::Identity {
            name: subject.to_string(),
            policy: IdentityPolicy { subject, issuer },
            trust: trust()?,
            leniency: Leniency { sct: by.insecure_ignore_sct, log: by.insecure_ignore_tlog.unwrap_or(false) },
        }),
        (None, None) => {
            let mut texts: Vec<_> = by.keys.iter().map(|key| (key.clone(), Source::Flag("--key"))).collect();
            let security_key = by.sk.then(|| sign::security_key(by.slot.as_deref())).transpose()?;
            let security_key = security_key.map(|(key, _)| key);
            if texts.is_empty() && security_key.is_none() {
                let variable = env.get_filled(names::COSIGN_KEY);
                texts.extend(variable.map(|key| (key, Source::Env(names::COSIGN_KEY))));
            }
            if texts.is_empty() && security_key.is_none() {
                return Err(Misuse::VerifyWithoutKey);
            }
            let keys = texts.into_iter().map(|(text, source)| sign::key(&text, source, directory, env));
            Ok(By::Keys {
                keys: keys.chain(security_key.map(Ok)).collect::<Result<_, _>>()?,
                password: sign::password(by.cosign_password_file.as_deref(), directory, env)?,
                logged: (by.insecure_ignore_tlog == Some(false)).then(trust).transpose()?,
            })
        }
        // Anybody can have a certificate; without its issuer a name is anybody's.
        (Some(_), None) => Err(Misuse::VerifyHalf("--certificate-oidc-issuer")),
        (None, Some(_)) => Err(Misuse::VerifyHalf("--certificate-identity")),
    }
}

fn matcher(
    flag: &'static str,
    exact: Option<String>,
    pattern: Option<String>,
) -> Result<Option<Matcher>, Misuse> {
    match (exact, pattern) {
        (Some(text), _) => Ok(Some(Matcher::Exact(text))),
        (None, Some(text)) => match Regex::new(&text) {
            Ok(pattern) => Ok(Some(Matcher::Pattern(pattern))),
            Err(error) => Err(invalid(&format!("{flag}-regexp"), &text, error.to_string())),
        },
        (None, None) => Ok(None),
    }
}

/// Reads a size as cosign does: bytes, or with a unit of thousands (`MB`) or of 1024 (`MiB`).
fn bytes(text: &str) -> Option<usize> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
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
        let By::Keys { keys, logged: None, .. } = settings.by else { panic!("a key") };
        assert_eq!(keys[0].text, "env://PUB");
        assert_eq!(settings.storage, Some("r.example/signatures".parse().expect("a repository")));
        assert_eq!(settings.annotations["env"], "prod=1");
        assert_eq!(settings.wanted, Wanted::Attestation("https://slsa.dev/provenance/v1".to_owned()));
    }

    #[test]
    fn an_identity_beats_the_variable_of_a_key() {
        let env = Fixed::new([("COSIGN_KEY", "/no/such.pub")]);
        let by = VerifyByArgs {
            certificate_identity_regexp: Some("@b.example$".to_owned()),
            certificate_oidc_issuer: Some("https://issuer.example".to_owned()),
            ..VerifyByArgs::default()
        };
        let settings = resolve_with(by, &env).expect("settings");
        let By::Identity { leniency, .. } = settings.by else { panic!("an identity") };
        assert_eq!(leniency, Leniency::default(), "the strictest");
    }

    #[test]
    fn a_security_key_counts_where_the_build_reaches_it() {
        let env =
            Fixed::new([("COSIGN_KEY", "/no/such.pub"), ("COSIGN_CERTIFICATE_IDENTITY", "a@b.example")]);
        let by =
            || VerifyByArgs { sk: true, slot: Some("authentication".to_owned()), ..VerifyByArgs::default() };
        let resolved = resolve_with(by(), &env);
        assert_eq!(resolved.is_ok(), crate::sign::kms::piv::BUILT);
        match resolved {
            Ok(VerifySettings { by: By::Keys { keys, .. }, .. }) => {
                assert_eq!(keys.iter().map(|key| &key.text).collect::<Vec<_>>(), ["PIV slot authentication"]);
            }
            Ok(_) => panic!("a key"),
            Err(refused) => assert!(refused.to_string().contains("FEATURES=piv"), "{refused}"),
        }
        let refused = resolve_with(VerifyByArgs { slot: Some("9c".to_owned()), ..by() }, &env).unwrap_err();
        assert!(refused.to_string().contains("--slot"), "{refused}");
    }

    #[test]
    fn a_variable_names_the_trust_root_as_the_flag_does() {
        const ROOT: &str =
            concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/signing/trusted-root-local.json");
        let logged = |flag: Option<&str>, variable: &str| {
            let env = Fixed::new([("PUB", PUBLIC), ("COSIGN_TRUSTED_ROOT", variable)]);
            let by = VerifyByArgs {
                keys: vec!["env://PUB".to_owned()],
                insecure_ignore_tlog: Some(false),
                trusted_root: flag.map(Into::into),
                ..VerifyByArgs::default()
            };
            match resolve_with(by, &env).expect("settings").by {
                By::Keys { logged, .. } => format!("{logged:?}"),
                By::Identity { .. } => panic!("a key"),
            }
        };
        let by_flag = logged(Some(ROOT), "/no/such/root.json");
        assert!(by_flag.contains("Root(TrustRoot(1 authorities, 1 logs, 0 certificate logs"), "{by_flag}");
        assert_eq!(logged(None, ROOT), by_flag);
        assert!(logged(None, "").contains("Tuf"));
    }

    #[test]
    fn a_variable_says_how_large_an_attestation_may_be() {
        let largest = |size: &str| {
            let env = Fixed::new([("PUB", PUBLIC), ("COSIGN_MAX_ATTACHMENT_SIZE", size)]);
            let by = VerifyByArgs { keys: vec!["env://PUB".to_owned()], ..VerifyByArgs::default() };
            resolve_with(by, &env).map(|settings| settings.largest)
        };
        assert_eq!(largest("").expect("settings"), ATTESTATION_LIMIT);
        assert_eq!(largest("2MB").expect("settings"), 2_000_000);
        let refused = largest("much").expect_err("misuse").to_string();
        assert!(refused.contains("COSIGN_MAX_ATTACHMENT_SIZE"), "{refused}");
    }

    #[test]
    fn sizes_are_read_as_cosign_reads_them() {
        for (text, expected) in [
            ("1048576", Some(1 << 20)),
            ("128MiB", Some(128 << 20)),
            ("10 MB", Some(10_000_000)),
            ("1.5MB", None),
            ("MiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn misuse_is_named() {
        let env = Fixed::new([("PUB", PUBLIC)]);
        let keys = || vec!["env://PUB".to_owned()];
        let refused = |by| resolve_with(by, &env).expect_err("misuse").to_string();
        assert!(refused(VerifyByArgs::default()).contains("needs a key"));
        let half =
            VerifyByArgs { certificate_identity: Some("a@b.example".to_owned()), ..Default::default() };
        assert!(refused(half).contains("--certificate-oidc-issuer"));
        let pattern =
            VerifyByArgs { certificate_identity_regexp: Some("(".to_owned()), ..Default::default() };
        assert!(refused(pattern).contains("--certificate-identity-regexp"));
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
