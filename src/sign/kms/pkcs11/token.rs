//! The token itself, through its library. Calls block, for as long as a person takes to touch it.

use super::super::{Backend, Fault, Hashing, Opened, der};
use super::{Key, Settings};
use crate::sign::key::{KeyKind, PublicKey};
use crate::task;
use async_trait::async_trait;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// DER of the curves' names, as CKA_EC_PARAMS holds them.
const CURVES: [(&[u8], &str); 3] = [
    (&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "P-256"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
];

/// A session that holds the key. A token does one thing at a time.
struct Token {
    session: Arc<Mutex<Session>>,
    key: ObjectHandle,
    kind: KeyKind,
}

pub(in super::super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let found = task::spawn_blocking(move || find(&settings)).join().await;
    let (token, public) = found.map_err(|fault| (fault, None))?;
    Ok(Opened { backend: Box::new(token), hashing: Hashing::Sha256, public })
}

fn failed(call: &'static str) -> impl FnOnce(Error) -> Fault {
    move |error| match error {
        Error::Pkcs11(RvError::PinIncorrect, _) => Fault::Credentials("the PIN is wrong".to_owned()),
        Error::Pkcs11(RvError::PinLocked, _) => Fault::Credentials("the PIN is locked".to_owned()),
        Error::LibraryLoading(error) => Fault::Credentials(format!("its library cannot be loaded: {error}")),
        error => Fault::Program(format!("{call}: {error}")),
    }
}

/// One context for each library: it may be initialised once in a process.
fn context(module: &Path) -> Result<Pkcs11, Fault> {
    static LOADED: Mutex<Vec<(std::path::PathBuf, Pkcs11)>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().expect("no holder panics");
    if let Some((_, context)) = loaded.iter().find(|(path, _)| path == module) {
        return Ok(context.clone());
    }
    let context = Pkcs11::new(module).map_err(failed("loading its library"))?;
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    context.initialize(arguments).map_err(failed("C_Initialize"))?;
    loaded.push((module.to_owned(), context.clone()));
    Ok(context)
}

fn find(settings: &Settings) -> Result<(Token, PublicKey), Fault> {
    let Settings { key, module, pin, check_certificate } = settings;
    let context = context(module)?;
    let slot = slot(&context, key)?;
    let session = context.open_ro_session(slot).map_err(failed("C_OpenSession"))?;
    let token = context.get_token_info(slot).map_err(failed("C_GetTokenInfo"))?;
    match pin {
        Some(_) => match session.login(UserType::User, pin.as_ref()) {
            // A second key of the same token.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(failed("C_Login")(error)),
        },
        None if token.protected_authentication_path() => {
            session.login(UserType::User, None).map_err(failed("C_Login"))?;
        }
        None if token.login_required() => {
            return Err(Fault::Credentials(
                "it wants a PIN: set COSIGN_PKCS11_PIN, or name a file with `pin-source=file:PATH`"
                    .to_owned(),
            ));
        }
        None => {}
    }
    let named = |class| {
        let mut template = vec![Attribute::Class(class)];
        template.extend(key.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        template.extend(key.id.as_ref().map(|id| Attribute::Id(id.clone())));
        session.find_objects(&template).map_err(failed("C_FindObjects"))
    };
    let private = match named(ObjectClass::PRIVATE_KEY)?[..] {
        [one] => one,
        [] => return Err(Fault::Unusable("there is no such private key on it".to_owned())),
        _ => return Err(Fault::Unusable("several private keys on it have that name: say `id=…`".to_owned())),
    };
    let public = named(ObjectClass::PUBLIC_KEY)?;
    let public = public.first().ok_or_else(|| {
        Fault::Unusable("its public half is not on the token; write it there, under the same name".to_owned())
    })?;
    let public = read(&session, *public)?;
    if *check_certificate {
        for certificate in named(ObjectClass::CERTIFICATE)? {
            belongs(&session, certificate, &public)?;
        }
    }
    let kind = public.kind();
    Ok((Token { session: Arc::new(Mutex::new(session)), key: private, kind }, public))
}

fn slot(context: &Pkcs11, key: &Key) -> Result<Slot, Fault> {
    let mut fitting = Vec::new();
    let mut labels = Vec::new();
    for slot in context.get_slots_with_token().map_err(failed("C_GetSlotList"))? {
        let token = context.get_token_info(slot).map_err(failed("C_GetTokenInfo"))?;
        labels.push(format!("`{}`", token.label().trim_end()));
        let by_label = key.token.as_deref().is_none_or(|label| token.label().trim_end() == label);
        if by_label && key.slot.is_none_or(|number| slot.id() == number) {
            fitting.push(slot);
        }
    }
    match fitting[..] {
        [slot] => Ok(slot),
        [] => Err(Fault::Unusable(format!("there is no such token; there is {}", labels.join(", ")))),
        _ => Err(Fault::Unusable("several tokens have that label: say `slot-id=…`".to_owned())),
    }
}

fn read(session: &Session, object: ObjectHandle) -> Result<PublicKey, Fault> {
    let wanted = [
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    // Those of the other kind of key are left out of the answer.
    let found = session.get_attributes(object, &wanted).map_err(failed("C_GetAttributeValue"))?;
    let (mut curve, mut point, mut modulus, mut exponent) = (None, None, None, None);
    for attribute in found {
        match attribute {
            Attribute::EcParams(der) => curve = Some(der),
            Attribute::EcPoint(der) => point = Some(der),
            Attribute::Modulus(number) => modulus = Some(number),
            Attribute::PublicExponent(number) => exponent = Some(number),
            _ => {}
        }
    }
    let unusable = || Fault::Unusable("it is no RSA key and on none of P-256, P-384 and P-521".to_owned());
    let spki = match (curve.zip(point), modulus.zip(exponent)) {
        (_, Some((modulus, exponent))) if !modulus.is_empty() => der::rsa(&modulus, &exponent),
        (Some((curve, point)), _) => {
            let (_, name) = CURVES.into_iter().find(|(der, _)| *der == curve).ok_or_else(unusable)?;
            // An OCTET STRING around the point, which some libraries leave out.
            let length = match name {
                "P-256" => 64,
                "P-384" => 96,
                _ => 132,
            };
            let start = point.len().checked_sub(length).ok_or_else(unusable)?;
            let (x, y) = point[start..].split_at(length / 2);
            der::ec(name, x, y).ok_or_else(unusable)?
        }
        _ => return Err(unusable()),
    };
    Ok(PublicKey::from_spki(&spki)?)
}

/// A certificate of the same name holds the same key, or verifiers would be led astray.
fn belongs(session: &Session, certificate: ObjectHandle, public: &PublicKey) -> Result<(), Fault> {
    let wanted = [AttributeType::CertificateType, AttributeType::Value];
    let found = session.get_attributes(certificate, &wanted).map_err(failed("C_GetAttributeValue"))?;
    let x509 = found.contains(&Attribute::CertificateType(CertificateType::X_509));
    let der = found.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(der) => Some(der),
        _ => None,
    });
    match der {
        Some(der) if x509 && !der.windows(public.spki().len()).any(|part| part == public.spki()) => {
            Err(Fault::Unusable(
                "the certificate beside it holds another key; COSIGN_PKCS11_IGNORE_CERTIFICATE=1 passes over that"
                    .to_owned(),
            ))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Backend for Token {
    async fn sign(&self, message: &[u8], digest: &[u8], _hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let (session, key, kind) = (Arc::clone(&self.session), self.key, self.kind);
        let (message, digest) = (message.to_vec(), digest.to_vec());
        let signed = task::spawn_blocking(move || {
            let session = session.lock().expect("no holder panics");
            match kind {
                KeyKind::Rsa { .. } => session.sign(&Mechanism::Sha256RsaPkcs, key, &message),
                _ => session.sign(&Mechanism::Ecdsa, key, &digest),
            }
        });
        let raw = signed.join().await.map_err(failed("C_Sign"))?;
        match kind {
            KeyKind::Rsa { .. } => Ok(raw),
            _ => der::signature(&raw).ok_or(Fault::Answer("its signature is no pair of numbers")),
        }
    }

    fn takes_any_hash(&self) -> bool {
        true
    }

    fn hint(&self, _fault: &Fault) -> Option<String> {
        None
    }
}
