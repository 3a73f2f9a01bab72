//! Gathers keys and passwords before anything is drawn, because a prompt and a live view can't share a terminal.

use super::failure::Failure;
use crate::build::preflight::{self, Locked, LockedKey, Unlocking};
use crate::cluster::{self, Connection};
use crate::config::sign::{KeyPlace, KeySettings, Password, SignSettings};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::key::{KeyFile, KubernetesSecret};
use crate::sign::kms::KmsKey;
use crate::ui::printer;
use crate::ui::prompt::{self, PromptError};
use secrecy::{ExposeSecret as _, SecretString};

/// Whether any key stands in a Secret, or the API server makes the identity's token: a cluster is needed then.
pub(super) fn need_cluster(settings: &SignSettings) -> bool {
    settings.keyless.needs_cluster()
        || settings.keys.iter().any(|key| matches!(key.place, KeyPlace::Secret { .. }))
}

/// Whether the builder's key, as the flag has it, stands in a Secret.
pub(super) fn builders_needs_cluster(settings: &SignSettings) -> bool {
    settings.builder_key.as_ref().is_some_and(|key| key.starts_with("k8s://"))
}

/// Whether the keys can be unlocked before anything else is known: from files or the environment, nothing to ask.
pub(super) fn at_once(settings: &SignSettings) -> bool {
    let no_password = |key: &KeySettings| matches!(key.place, KeyPlace::Kms(_));
    let asks = matches!(settings.password, Password::Ask) && !settings.keys.iter().all(no_password);
    !need_cluster(settings) && !asks
}

/// Reads the keys and finds their passwords: a Secret's own, the one that was given, or a prompt. To be run under
/// the cancellation of signals: one that comes instead of a password is left to it.
///
/// # Errors
/// A key that is none, a Secret that can't be read, a password that nobody knows.
pub(super) async fn gather(
    keys: Vec<KeySettings>,
    password: Password,
    cluster: Option<&Connection>,
) -> Result<Vec<Locked>, Failure> {
    let mut gathered = Vec::new();
    for key in keys {
        gathered.push(gather_one(key, &password, cluster).await?);
    }
    Ok(gathered)
}

/// Starts to unlock a builder's own key, if there is one: the flag's, or what stands on the builder.
///
/// # Errors
/// As [`gather`]; a Secret that isn't in reach here is one of them.
pub(super) async fn unlock_builders(
    key: Option<KeySettings>,
    password: &Password,
    cluster: Option<&Connection>,
    events: &Events,
) -> Result<Option<Unlocking>, Failure> {
    match key {
        Some(key) => Ok(Some(preflight::unlock(vec![gather_one(key, password, cluster).await?], events))),
        None => Ok(None),
    }
}

/// Reads one key and finds its password, as [`gather`] does.
///
/// # Errors
/// As [`gather`].
pub(super) async fn gather_one(
    settings: KeySettings,
    password: &Password,
    cluster: Option<&Connection>,
) -> Result<Locked, Failure> {
    let KeySettings { text: name, place, .. } = settings;
    let parse = |pem: &[u8]| KeyFile::parse(pem).map_err(|error| Failure::key(&name, error));
    let (file, own_password, secret) = match place {
        KeyPlace::Kms(mut key) => {
            if let Some(pin) = key.missing_pin().filter(|_| prompt::available()) {
                match prompt::password(&format!("PIN of the token for {name} (empty if it wants none)")).await
                {
                    Ok(given) if given.expose_secret().is_empty() => {}
                    Ok(given) => *pin = Some(given),
                    Err(PromptError::Interrupted) => std::future::pending().await,
                    Err(error) if matches!(*key, KmsKey::Pkcs11(_)) => {
                        return Err(Failure::key(&name, error).hint_pin());
                    }
                    Err(error) => return Err(Failure::key(&name, error)),
                }
            }
            if matches!(*key, KmsKey::Piv(_)) {
                printer::remark(["the security key may want a touch for each signature: mind its light"])
                    .await;
            }
            return Ok(Locked::Kms { name, key });
        }
        KeyPlace::Pem(pem) => (parse(pem.expose_secret().as_bytes())?, None, None),
        KeyPlace::Remote { place, http } => {
            let http = Http::new(&http).map_err(Failure::services)?;
            let read = place.private(&http).await;
            let (pem, password) = read.map_err(|error| Failure::key_service(&name, &error))?;
            let password = password.map(|text| (text, "GitLab's COSIGN_PASSWORD"));
            (parse(pem.expose_secret().as_bytes())?, password, None)
        }
        KeyPlace::Secret { namespace, name: secret } => {
            let cluster = cluster.ok_or_else(|| Failure::key(&name, NoCluster))?;
            let entries = cluster::secret::read(cluster, &namespace, &secret).await;
            let entries = entries.map_err(|error| Failure::secret(&name, error))?;
            let secret =
                KubernetesSecret::from_entries(&entries).map_err(|error| Failure::key(&name, error))?;
            let password = secret.password.clone().map(|text| (text, "the Secret's cosign.password"));
            (parse(secret.private.expose_secret())?, password, Some(secret))
        }
    };
    if secret.is_none() {
        printer::remark(remarks(&name, &file)).await;
    }
    let (password, password_source) = match (&file, own_password, password) {
        (KeyFile::Plain(_), _, _) => (SecretString::default(), "nowhere"),
        (_, Some(own), _) => own,
        (_, None, Password::Given { text, source }) => (text.clone(), *source),
        (_, None, Password::Ask) if prompt::available() => {
            match prompt::password(&format!("Password for {name}")).await {
                Ok(password) => (password, "the prompt"),
                // The signal that ended the question cancels everything in a moment, and knows the exit code.
                Err(PromptError::Interrupted) => std::future::pending().await,
                Err(error) => return Err(Failure::prompt(&name, error)),
            }
        }
        (_, None, Password::Ask) => return Err(Failure::no_password(&name)),
    };
    Ok(Locked::Key(Box::new(LockedKey { name, file, password, password_source, secret })))
}

/// Returns what is to be said of a private key that others may get hold of, where it stands in a file.
fn remarks(name: &str, file: &KeyFile) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut remarks = Vec::new();
    // As it was given it is as good as resolved: nothing changes the directory.
    let Some(metadata) = std::fs::metadata(name).ok().filter(std::fs::Metadata::is_file) else {
        return remarks;
    };
    if matches!(file, KeyFile::Plain(_)) {
        remarks.push(format!(
            "warning: the private key {name} is not encrypted; `kubectl buildkit key import {name}` makes one that is"
        ));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        remarks.push(format!(
            "warning: others may read the private key {name} (mode {mode:04o}): `chmod 600 {name}`"
        ));
    }
    remarks
}

/// A key in a Secret, and no cluster to read it from.
#[derive(Debug, thiserror::Error)]
#[error("there is no cluster to read the Secret from")]
struct NoCluster;
