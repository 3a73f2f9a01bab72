//! Where a new key goes, and its password.

use super::env::Environment;
use super::misuse::Misuse;
use super::sign::{self, KeyPlace, KeySettings, Password};
use super::source::Source;
use crate::cli::key::NewKeyArgs;
use crate::sign::http::HttpOptions;
use crate::sign::key::{Gitlab, KeyReference, Remote};
use crate::sign::kms::KmsKey;
use std::path::{Path, PathBuf};

/// What a password from a file says of its source.
pub const PASSWORD_FILE: &str = "--cosign-password-file";

/// Where a new key goes.
#[derive(Debug)]
pub struct NewKeySettings {
    /// The file of the private half.
    pub private: PathBuf,
    /// The file of the public half.
    pub public: PathBuf,
    /// Its password.
    pub password: Password,
}

/// Resolves where a new key goes. The names stay as they were given, for messages: nothing changes the directory.
///
/// # Errors
/// A prefix that names no file, a password file that can't be read.
pub fn resolve(args: NewKeyArgs, directory: &Path, env: &dyn Environment) -> Result<NewKeySettings, Misuse> {
    let NewKeyArgs { output_key_prefix: prefix, cosign_password_file } = args;
    let Some(name) = prefix.file_name() else {
        return Err(Misuse::Value {
            name: "--output-key-prefix".to_owned(),
            value: prefix.display().to_string(),
            reason: "it names no file".to_owned(),
        });
    };
    let with = |suffix: &str| {
        let mut name = name.to_owned();
        name.push(suffix);
        prefix.with_file_name(name)
    };
    let password = sign::password(cosign_password_file.as_deref(), directory, env)?;
    Ok(NewKeySettings { private: with(".key"), public: with(".pub"), password })
}

/// Where a new key is kept, if not in files.
#[derive(Debug)]
pub enum NewKeyPlace {
    /// A Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The CI variables of a GitLab project.
    Gitlab(Gitlab, HttpOptions),
    /// A key service, which makes the key itself.
    Kms(Box<KmsKey>),
}

/// Resolves where a new key is kept, and how messages name it.
///
/// # Errors
/// A place where no key can be made, or that cannot be reached from here.
pub fn place(text: &str, directory: &Path, env: &dyn Environment) -> Result<(String, NewKeyPlace), Misuse> {
    let source = Source::Flag("PLACE");
    if let Ok(KeyReference::File(_) | KeyReference::Environment(_) | KeyReference::Url(_)) = text.parse() {
        return Err(Misuse::Value {
            name: source.to_string(),
            // An address may hold a password.
            value: match text.split_once("://") {
                Some((scheme, _)) => format!("{scheme}://…"),
                None => text.chars().take(100).collect(),
            },
            reason: "no key is made there; without an argument it is made in files (`--output-key-prefix`), else in \
                     `k8s://NAMESPACE/SECRET`, `gitlab://PROJECT` or a key service"
                .to_owned(),
        });
    }
    let KeySettings { text, place, .. } = sign::key(text, source, directory, env)?;
    let place = match place {
        KeyPlace::Secret { namespace, name } => NewKeyPlace::Secret { namespace, name },
        KeyPlace::Remote { place: Remote::Gitlab(project), http } => NewKeyPlace::Gitlab(project, http),
        KeyPlace::Kms(key) => NewKeyPlace::Kms(key),
        KeyPlace::Pem(_) | KeyPlace::Remote { .. } => unreachable!("refused above"),
    };
    Ok((text, place))
}

/// Resolves a key that is there already, and its password.
///
/// # Errors
/// A reference that names nothing.
pub fn existing(
    text: String,
    password_file: Option<&Path>,
    directory: &Path,
    env: &dyn Environment,
) -> Result<(KeySettings, Password), Misuse> {
    let key = sign::key(&text, Source::Flag("KEY"), directory, env)?;
    Ok((key, sign::password(password_file, directory, env)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;

    #[test]
    fn the_prefix_may_have_dots_and_directories() {
        let resolve = |prefix: &str| {
            let args = NewKeyArgs { output_key_prefix: prefix.into(), cosign_password_file: None };
            resolve(args, Path::new("/"), &Fixed::default())
        };
        let settings = resolve("keys/release-1.2").expect("settings");
        assert_eq!(settings.private, Path::new("keys/release-1.2.key"));
        assert_eq!(settings.public, Path::new("keys/release-1.2.pub"));
        assert!(resolve("keys/..").is_err());
    }

    #[test]
    fn keys_are_made_where_they_can_be() {
        let env =
            Fixed::new([("GITLAB_TOKEN", "SECRET"), ("VAULT_ADDR", "https://v"), ("VAULT_TOKEN", "SECRET")]);
        let place = |text: &str| place(text, Path::new("/"), &env);
        let (text, secret) = place("k8s://ci/signing").expect("a Secret");
        assert_eq!(text, "k8s://ci/signing");
        assert!(
            matches!(secret, NewKeyPlace::Secret { namespace, name } if namespace == "ci" && name == "signing")
        );
        assert!(matches!(place("gitlab://group/project"), Ok((_, NewKeyPlace::Gitlab(..)))));
        assert!(matches!(place("hashivault://app"), Ok((_, NewKeyPlace::Kms(_)))));
        for text in ["ci/signing", "k8s://signing", "env://A", "https://user:hunter2@host/k", "my-hsm://1"] {
            let error = place(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
