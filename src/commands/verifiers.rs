//! Whom `verify` believes: the public half of each key that was named, or an identity.

use super::failure::Failure;
use super::keys;
use crate::build::preflight;
use crate::cluster::{self, Connection};
use crate::config::sign::{KeyPlace, KeySettings, Password};
use crate::config::verify::{By, Trust};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::key::{KubernetesSecret, PublicKey};
use crate::sign::{IdentityVerifier, TrustRoot, Verifier, WitnessedKey};
use crate::ui::printer;
use secrecy::ExposeSecret as _;

/// A key to verify with, and the name that messages use.
pub(super) struct NamedKey {
    pub(super) name: String,
    pub(super) key: PublicKey,
}

/// A verifier with the name that messages use.
pub(super) struct NamedVerifier {
    pub(super) name: String,
    pub(super) verifier: Box<dyn Verifier>,
    /// It believes certificates.
    pub(super) certified: bool,
}

/// Whether any key stands in a Secret, for which a cluster is needed.
pub(super) fn need_cluster(by: &By) -> bool {
    matches!(by, By::Keys { keys, .. } if keys.iter().any(needs_cluster))
}

/// Finds those who must have signed.
///
/// # Errors
/// As [`of_key`].
pub(super) async fn of(by: By, cluster: Option<&Connection>) -> Result<Vec<NamedVerifier>, Failure> {
    let (keys, password, logged) = match by {
        By::Keys { keys, password, logged } => (keys, password, logged),
        By::Identity { name, policy, trust, leniency } => {
            let verifier = Box::new(IdentityVerifier::new(trusted(trust).await?, policy, leniency));
            return Ok(vec![NamedVerifier { name, verifier, certified: true }]);
        }
    };
    let logged = match logged {
        Some(trust) => Some(trusted(trust).await?),
        None => None,
    };
    let mut verifiers = Vec::new();
    for key in keys {
        let NamedKey { name, key } = of_key(key, &password, cluster).await?;
        let verifier: Box<dyn Verifier> = match logged.clone() {
            Some(trust) => Box::new(WitnessedKey::new(key, trust)),
            None => Box::new(key),
        };
        verifiers.push(NamedVerifier { name, verifier, certified: false });
    }
    Ok(verifiers)
}

/// Finds who is trusted, as fresh as may be had.
async fn trusted(trust: Trust) -> Result<TrustRoot, Failure> {
    let refreshed = match trust {
        Trust::Root(root) => return Ok(root),
        Trust::Tuf(asked) => {
            let (repository, http) = *asked;
            let http = Http::new(&http).map_err(Failure::services)?;
            repository.refresh(&http).await
        }
        Trust::Kept(repository) => repository.kept().await,
    };
    let refreshed = refreshed.map_err(Failure::tuf)?;
    printer::remark(refreshed.note).await;
    Ok(refreshed.trust)
}

/// Whether the key stands in a Secret, for which a cluster is needed.
pub(super) fn needs_cluster(key: &KeySettings) -> bool {
    matches!(key.place, KeyPlace::Secret { .. })
}

/// Finds a key's public half: a public key's own text, the Secret's `cosign.pub`, or what belongs to a private key.
///
/// # Errors
/// A key that is none, a Secret that can't be read, a password that nobody knows.
pub(super) async fn of_key(
    key: KeySettings,
    password: &Password,
    cluster: Option<&Connection>,
) -> Result<NamedKey, Failure> {
    let name = key.text.clone();
    let read_public =
        |pem: &[u8]| PublicKey::from_pem(pem).map_err(|error| Failure::public_key(&name, error));
    if let KeyPlace::Kms(kms) = key.place {
        let key = kms.public_key(&name).await.map_err(|error| Failure::kms(&error))?;
        return Ok(NamedKey { name, key });
    }
    let key = match &key.place {
        KeyPlace::Remote { place, http } => {
            let http = Http::new(http).map_err(Failure::services)?;
            let read = place.public(&http).await;
            let pem = read.map_err(|error| Failure::key_service(&name, &error))?;
            read_public(pem.expose_secret().as_bytes())?
        }
        KeyPlace::Pem(pem) if !pem.expose_secret().contains("PRIVATE KEY-----") => {
            read_public(pem.expose_secret().as_bytes())?
        }
        KeyPlace::Secret { namespace, name: secret } => {
            let cluster = cluster.expect("it was connected to for the Secret");
            let entries = cluster::secret::read(cluster, namespace, secret).await;
            let entries = entries.map_err(|error| Failure::secret(&name, error))?;
            // Who verifies needs nothing of the private half, and the Secret may lack it.
            let public = KubernetesSecret::public_of(&entries);
            public.map_err(|error| Failure::public_key(&name, error))?
        }
        KeyPlace::Pem(_) | KeyPlace::Kms(_) => {
            let locked = keys::gather_one(key, password, cluster).await?;
            let signers = preflight::unlock(vec![locked], &Events::off()).signers().await;
            let signers = signers.map_err(|error| Failure::build(error.into(), &[]))?;
            let public = signers.first().and_then(|signer| signer.public_key());
            public.expect("a key has a public half").clone()
        }
    };
    Ok(NamedKey { name, key })
}
