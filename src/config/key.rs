//! Where a new key goes, and its password.

use super::env::Environment;
use super::misuse::Misuse;
use super::sign::{self, KeySettings, Password};
use super::source::Source;
use crate::cli::key::NewKeyArgs;
use crate::sign::key::KeyReference;
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

/// Resolves the Secret that a new key goes to: namespace and name.
///
/// # Errors
/// Anything but `k8s://NAMESPACE/NAME`.
pub fn secret(text: &str) -> Result<(String, String), Misuse> {
    match text.parse::<KeyReference>() {
        Ok(KeyReference::KubernetesSecret { namespace, name }) => Ok((namespace, name)),
        _ => Err(Misuse::Value {
            name: "SECRET".to_owned(),
            value: text.chars().take_while(|letter| *letter != '?').take(100).collect(),
            reason: "a key is made as `k8s://NAMESPACE/NAME`, or in files without an argument".to_owned(),
        }),
    }
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
    fn only_a_secret_is_made_in_the_cluster() {
        assert_eq!(secret("k8s://ci/signing").expect("a Secret"), ("ci".to_owned(), "signing".to_owned()));
        for text in ["ci/signing", "k8s://signing", "env://A"] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}
