//! Gathers keys and passwords before anything is drawn, because a prompt and a live view can't share a terminal.

use super::failure::Failure;
use crate::build::preflight::LockedKey;
use crate::cluster::{self, Connection};
use crate::config::sign::{KeyPlace, KeySettings, Password, SignSettings};
use crate::sign::key::{KeyFile, KubernetesSecret};
use crate::ui::prompt::{self, PromptError};
use secrecy::{ExposeSecret as _, SecretString};

/// Whether any key stands in a Secret, or the API server makes the identity's token: a cluster is needed then.
pub(super) fn need_cluster(settings: &SignSettings) -> bool {
    settings.keyless.needs_cluster()
        || settings.keys.iter().any(|key| matches!(key.place, KeyPlace::Secret { .. }))
}

/// Whether the keys can be unlocked before anything else is known: from files or the environment, nothing to ask.
pub(super) fn at_once(settings: &SignSettings) -> bool {
    !need_cluster(settings) && !matches!(settings.password, Password::Ask)
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
) -> Result<Vec<LockedKey>, Failure> {
    let mut gathered = Vec::new();
    for key in keys {
        gathered.push(gather_one(key, &password, cluster).await?);
    }
    Ok(gathered)
}

/// Reads one key and finds its password, as [`gather`] does.
///
/// # Errors
/// As [`gather`].
pub(super) async fn gather_one(
    settings: KeySettings,
    password: &Password,
    cluster: Option<&Connection>,
) -> Result<LockedKey, Failure> {
    let KeySettings { text: name, place, .. } = settings;
    let (file, own_password, secret) = match place {
        KeyPlace::Pem(pem) => {
            let file = KeyFile::parse(pem.expose_secret().as_bytes());
            (file.map_err(|error| Failure::key(&name, error))?, None, None)
        }
        KeyPlace::Secret { namespace, name: secret } => {
            let cluster = cluster.ok_or_else(|| Failure::key(&name, NoCluster))?;
            let entries = cluster::secret::read(cluster, &namespace, &secret).await;
            let entries = entries.map_err(|error| Failure::secret(&name, error))?;
            let secret =
                KubernetesSecret::from_entries(&entries).map_err(|error| Failure::key(&name, error))?;
            let file =
                KeyFile::parse(secret.private.expose_secret()).map_err(|error| Failure::key(&name, error))?;
            (file, secret.password.clone(), Some(secret))
        }
    };
    let (password, password_source) = match (&file, own_password, password) {
        (KeyFile::Plain(_), _, _) => (SecretString::default(), "nowhere"),
        (_, Some(own), _) => (own, "the Secret's cosign.password"),
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
    Ok(LockedKey { name, file, password, password_source, secret })
}

/// A key in a Secret, and no cluster to read it from.
#[derive(Debug, thiserror::Error)]
#[error("there is no cluster to read the Secret from")]
struct NoCluster;
