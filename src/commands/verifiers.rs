//! Whom `verify` believes: the public half of each key that was named.

use super::failure::Failure;
use super::keys;
use crate::build::preflight;
use crate::cluster::{self, Connection};
use crate::config::sign::{KeyPlace, KeySettings, Password};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::key::{KubernetesSecret, PublicKey};
use crate::sign::{Content, Evidence, Signer, Verifier};
use secrecy::ExposeSecret as _;

/// A verifier with the name that messages use.
pub(super) struct NamedVerifier {
    pub(super) name: String,
    pub(super) verifier: Box<dyn Verifier>,
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
) -> Result<NamedVerifier, Failure> {
    let name = key.text.clone();
    let read_public =
        |pem: &[u8]| PublicKey::from_pem(pem).map_err(|error| Failure::public_key(&name, error));
    if let KeyPlace::Kms(key) = key.place {
        let public = key.public_key(&name).await.map_err(|error| Failure::kms(&error))?;
        return Ok(NamedVerifier { name, verifier: Box::new(public) });
    }
    let verifier: Box<dyn Verifier> = match &key.place {
        KeyPlace::Remote { place, http } => {
            let http = Http::new(http).map_err(Failure::services)?;
            let read = place.public(&http).await;
            let pem = read.map_err(|error| Failure::key_service(&name, &error))?;
            Box::new(read_public(pem.expose_secret().as_bytes())?)
        }
        KeyPlace::Pem(pem) if !pem.expose_secret().contains("PRIVATE KEY-----") => {
            Box::new(read_public(pem.expose_secret().as_bytes())?)
        }
        KeyPlace::Secret { namespace, name: secret } => {
            let cluster = cluster.expect("it was connected to for the Secret");
            let entries = cluster::secret::read(cluster, namespace, secret).await;
            let entries = entries.map_err(|error| Failure::secret(&name, error))?;
            // Who verifies needs no right to the private half, and the Secret may lack it.
            let public = KubernetesSecret::public_of(&entries);
            Box::new(public.map_err(|error| Failure::public_key(&name, error))?)
        }
        KeyPlace::Pem(_) | KeyPlace::Kms(_) => {
            let locked = keys::gather_one(key, password, cluster).await?;
            let signers = preflight::unlock(vec![locked]).signers(&Events::off()).await;
            let signers = signers.map_err(|error| Failure::build(error.into(), &[]))?;
            Box::new(Own(signers.into_iter().next().expect("one key makes one signer")))
        }
    };
    Ok(NamedVerifier { name, verifier })
}

/// Believes what a signer of ours would have signed.
struct Own(Box<dyn Signer>);

impl Verifier for Own {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        self.0.verifier().verify(content, evidence)
    }
}
