//! Whether a build signs, and with which keys.

use super::env::{Environment, names};
use super::keyless::{self, KeylessSettings};
use super::misuse::Misuse;
use super::source::{self, Source};
use super::{kms, services};
use crate::cli::signing::{HowArgs, KeyArgs, SigningArgs};
use crate::registry::{Digest, Reference, Repository};
use crate::sign::http::HttpOptions;
use crate::sign::key::{KeyReference, Remote};
use crate::sign::kms::{KmsKey, piv};
use crate::sign::{Formats, Scope, SignOptions};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::Path;

/// Who signs, and how.
#[derive(Debug)]
pub struct SignSettings {
    /// The keys, in the order given.
    pub keys: Vec<KeySettings>,
    /// Who signs beside the keys or instead of them, and which services take part.
    pub keyless: KeylessSettings,
    /// What is written.
    pub formats: Formats,
    /// The formats were asked for: nothing else will do.
    pub formats_explicit: bool,
    /// Where the password of an encrypted key comes from.
    pub password: Password,
    /// What else is special about the signatures.
    pub options: SignOptions,
    /// The key that signs for the builder, as the flag has it.
    pub builder_key: Option<String>,
    /// The flags as given, for command lines that we print to be run again.
    pub flags: Vec<String>,
}

/// One key, with what can be read of it without a cluster.
#[derive(Debug)]
pub struct KeySettings {
    /// As it was given, without what must not be shown.
    pub text: String,
    /// Flag or variable.
    pub source: Source,
    /// Where the key is.
    pub place: KeyPlace,
}

/// Resolves the key that signs for a builder: the flag's, or the reference that stands on the builder, which must be
/// one that a builder can have.
///
/// # Errors
/// A reference that names nothing, or a place of somebody else's machine.
pub fn builder_key(
    flag: Option<String>,
    stored: Option<&str>,
    directory: &Path,
    env: &dyn Environment,
) -> Result<Option<KeySettings>, Misuse> {
    match (flag, stored) {
        (Some(text), _) => key(&text, Source::Flag("--builder-key"), directory, env).map(Some),
        (None, Some(text)) => {
            let source = "the builder's key";
            key(&super::builder::shared_key(text, source)?, Source::Builder, directory, env).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Where a key is.
#[derive(Debug)]
pub enum KeyPlace {
    /// Its PEM text, read from a file or variable.
    Pem(SecretString),
    /// PEM text that another host keeps.
    Remote {
        /// Where.
        place: Remote,
        /// How it is reached.
        http: HttpOptions,
    },
    /// Nowhere but in a key service, which signs with it.
    Kms(Box<KmsKey>),
    /// In a Secret.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
    },
}

/// Where a password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// From a file or COSIGN_PASSWORD.
    Given {
        /// The password, as it stands there.
        text: SecretString,
        /// Which.
        source: &'static str,
    },
    /// Nowhere yet: a prompt, where there is a terminal.
    Ask,
}

/// Resolves the signing flags of a build; `None` if it doesn't sign.
///
/// KUBECTL_BUILD_SIGN counts only for builds that push: a local build in the same shell shall not fail for it.
///
/// # Errors
/// Signing without a push or a key, unknown words, keys that can't be read.
pub fn resolve_for_build(
    args: SigningArgs,
    push: bool,
    directory: &Path,
    env: &dyn Environment,
) -> Result<Option<SignSettings>, Misuse> {
    let flag = args.sign.as_deref().map(|value| truth("--sign", value)).transpose()?;
    let wanted = match flag {
        Some(wanted) => wanted,
        None if push => match env.get_filled(names::SIGN) {
            Some(value) => truth(names::SIGN, &value)?,
            None => false,
        },
        None => false,
    };
    if !wanted {
        let unused = [
            ("`--cosign-key`", !args.keys.keys.is_empty()),
            ("`--sk`", args.keys.sk),
            ("`--cosign-password-file`", args.keys.cosign_password_file.is_some()),
            ("`--signature-format`", args.keys.signature_format.is_some()),
            ("`--sign-annotation`", !args.sign_annotations.is_empty()),
            ("`--sign-scope`", args.how.scope.is_some()),
            ("`--builder-key`", args.how.builder_key.is_some()),
            ("`--signature-repository`", args.how.signature_repository.is_some()),
            ("`--sign-container-identity`", args.how.container_identity.is_some()),
            ("`--keyless`", args.keys.identity.keyless),
            ("`--identity-token`", args.keys.identity.identity_token.is_some()),
            ("`--service-account`", args.keys.identity.service_account.is_some()),
            ("`--oidc-client-id`", args.keys.identity.oidc_client_id.is_some()),
            ("`--oidc-client-secret-file`", args.keys.identity.oidc_client_secret_file.is_some()),
            ("`--oidc-redirect-url`", args.keys.identity.oidc_redirect_url.is_some()),
            ("`--oidc-disable-ambient-providers`", args.keys.identity.oidc_disable_ambient_providers),
            ("`--fulcio-auth-flow`", args.keys.identity.fulcio_auth_flow.is_some()),
            ("`--sign-timeout`", args.keys.identity.sign_timeout.is_some()),
            ("`--rekor`", args.keys.identity.rekor.is_some()),
            ("`--fulcio-url`", args.keys.identity.fulcio_url.is_some()),
            ("`--rekor-url`", args.keys.identity.rekor_url.is_some()),
            ("`--timestamp-server-url`", args.keys.identity.timestamp_server_url.is_some()),
            ("`--signing-config`", args.keys.identity.signing_config.is_some()),
            ("`--trusted-root`", args.keys.identity.trusted_root.is_some()),
        ];
        // `--sign=false` on a line that otherwise signs is a wish, not a mistake.
        let mistake = unused.into_iter().find(|(_, given)| *given && flag.is_none());
        return mistake.map_or(Ok(None), |(name, _)| Err(Misuse::SigningOptionUnused(name)));
    }
    if !push {
        return Err(Misuse::SignWithoutPush);
    }
    let mut settings = resolve(args.keys, directory, env)?;
    settings.add(options(args.how, ("--sign-annotation", &args.sign_annotations), env)?);
    Ok(Some(settings))
}

/// What else is special about signatures, with the flags that said so.
pub struct Options {
    options: SignOptions,
    builder_key: Option<String>,
    flags: Vec<String>,
}

impl SignSettings {
    /// Takes in what else is special.
    pub fn add(&mut self, Options { options, builder_key, flags }: Options) {
        self.options = options;
        self.builder_key = builder_key;
        self.flags.extend(flags);
    }
}

/// Resolves what is special about signatures, whoever signs.
///
/// # Errors
/// Unknown words, annotations and repositories that are none.
pub fn options(
    how: HowArgs,
    (annotation_flag, pairs): (&'static str, &[String]),
    env: &dyn Environment,
) -> Result<Options, Misuse> {
    let HowArgs { scope, builder_key, signature_repository, container_identity: identity } = how;
    let mut flags = Vec::new();
    let given = [
        ("--sign-scope", &scope),
        ("--builder-key", &builder_key),
        ("--signature-repository", &signature_repository),
        ("--sign-container-identity", &identity),
    ];
    for (name, value) in given {
        flags.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
    }
    // The line that finishes a build is one of `sign`, whatever the build calls it.
    flags.extend(pairs.iter().flat_map(|pair| ["-a".to_owned(), pair.clone()]));
    let scope = match scope {
        None => Scope::default(),
        Some(text) => text.parse().map_err(|reason| Misuse::Value {
            name: "--sign-scope".to_owned(),
            value: text.clone(),
            reason,
        })?,
    };
    let options = SignOptions {
        scope,
        storage: storage(signature_repository, env)?,
        annotations: annotations(annotation_flag, pairs)?,
        identity: identity.filter(|name| !name.is_empty()),
        docker_media_types: env
            .get(names::COSIGN_DOCKER_MEDIA_TYPES)
            .is_some_and(|value| ["1", "true"].contains(&value.as_str())),
    };
    Ok(Options { options, builder_key, flags })
}

/// Resolves the keys of something that signs.
///
/// # Errors
/// No key, or one that can't be read.
pub fn resolve(args: KeyArgs, directory: &Path, env: &dyn Environment) -> Result<SignSettings, Misuse> {
    let mut texts: Vec<(String, Source)> =
        args.keys.into_iter().map(|key| (key, Source::Flag("--cosign-key"))).collect();
    if texts.is_empty() && !args.sk {
        texts.extend(env.get_filled(names::COSIGN_KEY).map(|key| (key, Source::Env(names::COSIGN_KEY))));
    }
    let security_key = args.sk.then(|| security_key(args.slot.as_deref())).transpose()?;
    let count = texts.len() + usize::from(args.sk);
    let keyless = keyless::resolve(args.identity, count, directory, env)?;
    let mut keys = texts
        .into_iter()
        .map(|(text, source)| key(&text, source, directory, env))
        .collect::<Result<Vec<_>, _>>()?;
    let mut flags = keyless.flags.clone();
    for key in keys.iter().filter(|key| matches!(key.source, Source::Flag(_))) {
        flags.extend(["--cosign-key".to_owned(), key.text.clone()]);
    }
    if let Some((key, slot)) = security_key {
        flags.extend(["--sk", "--slot", &slot.to_string()].map(str::to_owned));
        keys.push(key);
    }
    let format = args.signature_format.as_deref().unwrap_or("both");
    let formats = format.parse::<Formats>().map_err(|reason| Misuse::Value {
        name: "--signature-format".to_owned(),
        value: format.to_owned(),
        reason,
    })?;
    if args.signature_format.is_some() {
        flags.extend(["--signature-format".to_owned(), format.to_owned()]);
    }
    let password_file = args.cosign_password_file.as_deref();
    if let Some(path) = password_file {
        flags.extend(["--cosign-password-file".to_owned(), path.display().to_string()]);
    }
    let password = password(password_file, directory, env)?;
    let formats_explicit = args.signature_format.is_some();
    let options = SignOptions::default();
    Ok(SignSettings { keys, keyless, formats, formats_explicit, password, options, builder_key: None, flags })
}

/// Finds the password of encrypted keys: the file, COSIGN_PASSWORD, or nobody has said it yet.
///
/// # Errors
/// A file that can't be read.
pub(super) fn password(
    file: Option<&Path>,
    directory: &Path,
    env: &dyn Environment,
) -> Result<Password, Misuse> {
    if let Some(path) = file {
        let path = directory.join(path);
        let failed = |source| Misuse::File { name: "--cosign-password-file", path: path.clone(), source };
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        return Ok(Password::Given { text: text.into(), source: "--cosign-password-file" });
    }
    Ok(match env.get(names::COSIGN_PASSWORD) {
        Some(text) => Password::Given { text: text.into(), source: names::COSIGN_PASSWORD },
        None => Password::Ask,
    })
}

/// Reads `KEY=VALUE` pairs; the value may hold further equals signs.
///
/// # Errors
/// One without an equals sign or key, or a key that stands twice with different values.
pub(super) fn annotations(flag: &'static str, pairs: &[String]) -> Result<BTreeMap<String, String>, Misuse> {
    let mut annotations = BTreeMap::new();
    for pair in pairs {
        let invalid = |reason: &str| Misuse::Value {
            name: flag.to_owned(),
            value: pair.clone(),
            reason: reason.to_owned(),
        };
        let (key, value) = pair.split_once('=').unwrap_or_default();
        if key.is_empty() {
            return Err(invalid("it is written KEY=VALUE"));
        }
        let before = annotations.insert(key.to_owned(), value.to_owned());
        if before.is_some_and(|before| before != value) {
            return Err(invalid("it stands twice, with different values"));
        }
    }
    Ok(annotations)
}

/// Finds the repository that signatures are kept in, if it isn't the image's.
///
/// # Errors
/// A name that is no repository.
pub(super) fn storage(flag: Option<String>, env: &dyn Environment) -> Result<Option<Repository>, Misuse> {
    let found = source::resolve(flag, "--signature-repository", env, names::COSIGN_REPOSITORY, "");
    match found.value.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error: crate::registry::ReferenceError| Misuse::Value {
            name: found.source.to_string(),
            value: text.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// What `sign` is to finish.
#[derive(Debug)]
pub struct SignTarget {
    /// The image.
    pub digest: Digest,
    /// Where it is, each repository once.
    pub repositories: Vec<Repository>,
    /// The tags to write, each in one of the repositories.
    pub tags: Vec<Reference>,
}

/// Resolves what `sign` is to sign and to tag.
///
/// # Errors
/// References without a digest or with different ones, tags elsewhere.
pub fn target(references: &[String], tags: &[String]) -> Result<SignTarget, Misuse> {
    let invalid = |name: &str, value: &str, reason: String| Misuse::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    };
    let parse = |name: &str, value: &str| {
        value.parse::<Reference>().map_err(|error| invalid(name, value, error.to_string()))
    };
    let mut target: Option<SignTarget> = None;
    for text in references {
        let reference = parse("REF@DIGEST", text)?;
        let Some(digest) = reference.digest else {
            let reason = "digests are signed, never tags: write REPOSITORY@sha256:…".to_owned();
            return Err(invalid("REF@DIGEST", text, reason));
        };
        let target =
            target.get_or_insert_with(|| SignTarget { digest, repositories: Vec::new(), tags: Vec::new() });
        if target.digest != digest {
            return Err(invalid("REF@DIGEST", text, "all references must have one digest".to_owned()));
        }
        if !target.repositories.contains(&reference.repository) {
            target.repositories.push(reference.repository);
        }
    }
    let mut target = target.ok_or_else(|| invalid("REF@DIGEST", "", "it is missing".to_owned()))?;
    for text in tags {
        let tag = parse("--tag", text)?;
        let reason = if tag.digest.is_some() {
            "a tag is written, not a digest"
        } else if tag.tag.is_none() {
            "the tag is missing: write NAME:TAG"
        } else if !target.repositories.contains(&tag.repository) {
            "it is in none of the repositories that are signed"
        } else {
            target.tags.push(tag);
            continue;
        };
        return Err(invalid("--tag", text, reason.to_owned()));
    }
    Ok(target)
}

/// Reads what can be read of a key without a cluster.
///
/// # Errors
/// A reference that names nothing.
pub(super) fn key(
    text: &str,
    source: Source,
    directory: &Path,
    env: &dyn Environment,
) -> Result<KeySettings, Misuse> {
    let invalid = |value, reason| Misuse::Value { name: source.to_string(), value, reason };
    let reference = text.parse::<KeyReference>();
    let reference = reference.map_err(|error| invalid(error.redact(text), error.to_string()))?;
    let shown = reference.to_string();
    let reader = kms::Reader { env, directory, source, shown: shown.clone() };
    let place = match reference {
        KeyReference::File(path) => {
            let path = directory.join(path);
            let failed = |source| Misuse::File { name: "the signing key", path: path.clone(), source };
            KeyPlace::Pem(std::fs::read_to_string(&path).map_err(failed)?.into())
        }
        KeyReference::Environment(name) => match env.get_filled(&name) {
            Some(pem) => KeyPlace::Pem(pem.into()),
            None => return Err(invalid(shown, format!("the variable {name} is not set"))),
        },
        KeyReference::KubernetesSecret { namespace, name } => KeyPlace::Secret { namespace, name },
        KeyReference::Url(url) => KeyPlace::Remote { place: Remote::Url(url), http: services::http(env) },
        KeyReference::Gitlab(project) => {
            KeyPlace::Remote { place: Remote::Gitlab(reader.gitlab(project)?), http: services::http(env) }
        }
        KeyReference::Kms(reference) => KeyPlace::Kms(Box::new(reader.kms(reference)?)),
    };
    Ok(KeySettings { text: shown, source, place })
}

/// Resolves the security key that `--sk` means, and the slot of the key on it.
pub(super) fn security_key(slot: Option<&str>) -> Result<(KeySettings, piv::Slot), Misuse> {
    let refuse = |name: &str, value: &str, reason: String| Misuse::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    };
    let slot = match slot {
        Some(text) => text.parse::<piv::Slot>().map_err(|reason| refuse("--slot", text, reason))?,
        None => piv::Slot::default(),
    };
    if !piv::BUILT {
        let reason =
            "security keys need a build that links the library of PC/SC: `make install FEATURES=piv`";
        return Err(refuse("--sk", "true", reason.to_owned()));
    }
    let (text, source) = (format!("PIV slot {slot}"), Source::Flag("--sk"));
    let place = KeyPlace::Kms(Box::new(KmsKey::Piv(piv::Settings { slot, pin: None })));
    Ok((KeySettings { text, source, place }, slot))
}

fn truth(name: &str, value: &str) -> Result<bool, Misuse> {
    match value {
        "true" | "cosign" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Misuse::SignValue { name: name.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::signing::IdentityArgs;
    use crate::config::env::Fixed;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n";

    fn args(sign: Option<&str>, keys: &[&str]) -> SigningArgs {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        let identity = IdentityArgs::default();
        let keys = KeyArgs { keys, identity, ..KeyArgs::default() };
        let how = HowArgs::default();
        SigningArgs { sign: sign.map(str::to_owned), keys, sign_annotations: Vec::new(), how }
    }

    fn resolve_with(
        sign: Option<&str>,
        keys: &[&str],
        push: bool,
        env: &Fixed,
    ) -> Result<Option<SignSettings>, Misuse> {
        resolve_for_build(args(sign, keys), push, Path::new("/"), env)
    }

    #[test]
    fn the_variable_counts_only_for_builds_that_push() {
        let env = Fixed::new([("KUBECTL_BUILD_SIGN", "true"), ("COSIGN_KEY", "env://PEM"), ("PEM", PEM)]);
        assert!(resolve_with(None, &[], true, &env).expect("signs").is_some());
        assert!(resolve_with(None, &[], false, &env).expect("does not sign").is_none());
        assert!(resolve_with(Some("false"), &[], true, &env).expect("does not sign").is_none());
    }

    #[test]
    fn misuse_is_named() {
        let env = Fixed::new([("PEM", PEM)]);
        let error = |sign, keys: &[&str], push| resolve_with(sign, keys, push, &env).expect_err("misuse");
        assert!(matches!(error(Some("true"), &["env://PEM"], false), Misuse::SignWithoutPush));
        assert!(matches!(error(Some("true"), &[], true), Misuse::SignWithoutKey));
        assert!(matches!(error(Some("maybe"), &[], true), Misuse::SignValue { .. }));
        assert!(matches!(error(None, &["env://PEM"], true), Misuse::SigningOptionUnused(_)));
        assert!(matches!(error(Some("true"), &["env://ABSENT"], true), Misuse::Value { .. }));
        assert!(matches!(error(Some("true"), &["/no/such.key"], true), Misuse::File { .. }));
    }

    #[test]
    fn a_key_or_pin_in_the_wrong_place_is_not_repeated() {
        let base64 = "LS0tLS1CRUdJTiBFTkNSWVBURUQgU0VDUkVU";
        for (text, said) in [
            ("-----BEGIN PRIVATE KEY-----\nSECRET\n", "env://NAME"),
            (base64, "env://NAME"),
            ("pkcs11:token=t;object=o?pin-value=SECRET", "pkcs11:"),
            ("vault://user:SECRET@host/key", "vault://"),
            ("env://A=SECRET", "env://"),
        ] {
            let env = Fixed::new([("COSIGN_KEY", text)]);
            for keys in [&[][..], &[text][..]] {
                let error = resolve_with(Some("true"), keys, true, &env).expect_err("misuse");
                let told = format!("{error} {error:?} {:?}", error.hint());
                assert!(!told.contains("SECRET") && !told.contains(base64), "{told}");
                assert!(error.to_string().contains(said), "{error}");
            }
        }
    }

    #[test]
    fn what_is_special_is_said_again_when_the_build_is_finished() {
        let env = Fixed::new([("PEM", PEM), ("COSIGN_REPOSITORY", "r.example/from-env")]);
        let how = || HowArgs {
            scope: Some("all".to_owned()),
            builder_key: Some("k8s://ci/builder".to_owned()),
            signature_repository: Some("r.example/signatures".to_owned()),
            container_identity: Some("proxy.example/a".to_owned()),
        };
        let resolve = |sign, annotations: &[&str], how| {
            let annotations = annotations.iter().map(|&pair| pair.to_owned()).collect();
            let args = SigningArgs { sign_annotations: annotations, how, ..args(sign, &["env://PEM"]) };
            resolve_for_build(args, true, Path::new("/"), &env)
        };
        let settings =
            resolve(Some("true"), &["env=prod", "a=b=c"], how()).expect("signs").expect("settings");
        let SignOptions { scope, storage, annotations, identity, docker_media_types } = settings.options;
        assert_eq!(
            (scope, identity.as_deref(), docker_media_types),
            (Scope::All, Some("proxy.example/a"), false)
        );
        assert_eq!(storage, Some("r.example/signatures".parse().expect("a repository")));
        assert_eq!(annotations["a"], "b=c");
        assert_eq!(
            settings.flags.join(" "),
            "--cosign-key env://PEM --sign-scope all --builder-key k8s://ci/builder --signature-repository r.example/signatures \
             --sign-container-identity proxy.example/a -a env=prod -a a=b=c"
        );
        let settings = resolve(Some("true"), &[], HowArgs::default()).expect("signs").expect("settings");
        assert_eq!(settings.options.storage, Some("r.example/from-env".parse().expect("a repository")));
        let refused = |pairs: &[&str]| resolve(Some("true"), pairs, HowArgs::default()).expect_err("misuse");
        assert!(refused(&["env"]).to_string().contains("KEY=VALUE"));
        assert!(refused(&["a=b", "a=c"]).to_string().contains("twice"));
        let unused = resolve(None, &["a=b"], HowArgs::default()).expect_err("misuse");
        assert!(matches!(unused, Misuse::SigningOptionUnused(_)));
    }

    #[test]
    fn a_builder_s_key_is_nobody_s_own() {
        let env = Fixed::new([("SIGSTORE_ID_TOKEN", "a.b.c")]);
        let resolve = |change: fn(&mut IdentityArgs)| {
            let how = HowArgs { builder_key: Some("k8s://ci/builder".to_owned()), ..HowArgs::default() };
            let mut args = SigningArgs { how, ..args(Some("true"), &[]) };
            change(&mut args.keys.identity);
            resolve_for_build(args, true, Path::new("/"), &env)
        };
        assert!(matches!(resolve(|_| ()), Err(Misuse::SignWithoutKey)));
        let identities: [fn(&mut IdentityArgs); 2] = [
            |identity| identity.keyless = true,
            |identity| identity.service_account = Some("ci/builder".to_owned()),
        ];
        for identity in identities {
            let settings = resolve(identity).expect("signs").expect("settings");
            assert!(settings.keyless.identity.is_some() && settings.keys.is_empty());
            assert_eq!(settings.builder_key.as_deref(), Some("k8s://ci/builder"));
            let notes = settings.keyless.notes;
            assert!(!notes.iter().any(|note| note.contains("the identity is not used")), "{notes:?}");
        }
    }

    #[test]
    fn a_security_key_is_a_key() {
        let resolve = |slot: Option<&str>| {
            let keys = KeyArgs { sk: true, slot: slot.map(str::to_owned), ..KeyArgs::default() };
            super::resolve(keys, Path::new("/"), &Fixed::new([("COSIGN_KEY", "/no/such.key")]))
        };
        let refused = resolve(Some("9c")).expect_err("no slot").to_string();
        assert!(refused.contains("--slot") && refused.contains("`card-authentication`"), "{refused}");
        match resolve(Some("authentication")) {
            Ok(settings) => {
                assert_eq!(settings.flags, ["--sk", "--slot", "authentication"]);
                assert_eq!(settings.keys[0].text, "PIV slot authentication");
            }
            Err(error) => {
                assert!(!piv::BUILT && error.to_string().contains("make install FEATURES=piv"), "{error}");
            }
        }
    }

    #[test]
    fn an_empty_password_is_one() {
        let env = Fixed::new([("PEM", PEM), ("COSIGN_PASSWORD", "")]);
        let settings =
            resolve_with(Some("cosign"), &["env://PEM"], true, &env).expect("signs").expect("settings");
        assert!(matches!(settings.password, Password::Given { source: "COSIGN_PASSWORD", .. }));
    }
}
