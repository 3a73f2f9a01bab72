//! The card in the one reader, through PC/SC. Calls block, for as long as a person takes to touch it.

use super::super::{Backend, Fault, Hashing, Opened};
use super::applet::{self, Card};
use super::{Settings, Slot};
use crate::sign::key::KeyKind;
use crate::task;
use async_trait::async_trait;
use pcsc::{Context, Error, MAX_BUFFER_SIZE, Protocols, Scope, ShareMode};
use secrecy::SecretString;
use std::sync::{Arc, Mutex};

struct SecurityKey {
    card: Arc<Mutex<pcsc::Card>>,
    slot: Slot,
    pin: Option<SecretString>,
    kind: KeyKind,
}

/// The card, while no other program may speak to it.
struct Held<'a>(pcsc::Transaction<'a>);

impl Card for Held<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut buffer = [0; MAX_BUFFER_SIZE];
        self.0.transmit(command, &mut buffer).map(<[u8]>::to_vec).map_err(failed)
    }
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let found = task::spawn_blocking(move || {
        let Settings { slot, pin } = settings;
        let mut card = insert()?;
        let public = applet::public_key(&mut hold(&mut card)?, slot)?;
        let card = Arc::new(Mutex::new(card));
        let backend = Box::new(SecurityKey { card, slot, pin, kind: public.kind() });
        Ok(Opened { backend, public, hashing: Hashing::Sha256 })
    });
    found.join().await.map_err(|fault| {
        let hint = hint(&fault);
        (fault, hint)
    })
}

/// As cosign, only where there is no choice.
fn insert() -> Result<pcsc::Card, Fault> {
    let context = Context::establish(Scope::User).map_err(failed)?;
    let readers = context.list_readers_owned().map_err(failed)?;
    let [reader] = &readers[..] else {
        return Err(match readers.len() {
            0 => failed(Error::NoReadersAvailable),
            several => Fault::Credentials(format!("there are {several} readers: leave one plugged in")),
        });
    };
    context.connect(reader, ShareMode::Shared, Protocols::ANY).map_err(failed)
}

/// Others may have turned to another application meanwhile.
fn hold(card: &mut pcsc::Card) -> Result<Held<'_>, Fault> {
    let mut held = Held(card.transaction().map_err(failed)?);
    applet::select(&mut held)?;
    Ok(held)
}

fn failed(error: Error) -> Fault {
    match error {
        Error::NoService | Error::ServiceStopped => {
            Fault::Credentials("the smart card service (pcscd) does not run".to_owned())
        }
        Error::NoReadersAvailable => Fault::Credentials("no security key is plugged in".to_owned()),
        Error::NoSmartcard | Error::RemovedCard => Fault::Credentials("the reader has no card".to_owned()),
        Error::SharingViolation => Fault::Credentials("another program holds the card".to_owned()),
        error => Fault::Program(format!("PC/SC: {error}")),
    }
}

fn hint(fault: &Fault) -> Option<String> {
    let missing = matches!(fault, Fault::Credentials(text) if text.contains("pcscd"));
    missing.then(|| "start it: `systemctl start pcscd.socket` (package `pcscd`)".to_owned())
}

#[async_trait]
impl Backend for SecurityKey {
    async fn sign(&self, _message: &[u8], digest: &[u8], _hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let (card, slot, pin, kind) = (Arc::clone(&self.card), self.slot, self.pin.clone(), self.kind);
        let digest = digest.to_vec();
        let signed = task::spawn_blocking(move || {
            let mut card = card.lock().expect("no holder panics");
            applet::sign(&mut hold(&mut card)?, slot, pin.as_ref(), kind, &digest)
        });
        signed.join().await
    }

    fn takes_any_hash(&self) -> bool {
        true
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        hint(fault)
    }
}
