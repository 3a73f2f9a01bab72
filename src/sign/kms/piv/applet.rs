//! What is said to a card's PIV application (NIST SP 800-73-4, part 2), and to a YubiKey's for what it attests
//! (Yubico, "PIV attestation").

use super::{Fault, Slot};
use crate::sign::CertificateIdentity;
use crate::sign::der;
use crate::sign::key::{KeyKind, PublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

const APPLICATION: [u8; 5] = [0xa0, 0, 0, 3, 8];
const SELECT: u8 = 0xa4;
const VERIFY: u8 = 0x20;
const GENERAL_AUTHENTICATE: u8 = 0x87;
const GET_DATA: u8 = 0xcb;
const GET_RESPONSE: u8 = 0xc0;
/// Yubico's.
const ATTEST: u8 = 0xf9;
/// More commands than this follow in a row.
const CHAINED: u8 = 0x10;
/// A certificate takes at most 3 kilobytes.
const LONGEST: usize = 16 << 10;
const PIN_LENGTH: usize = 8;

/// A card, as a reader has it.
pub(super) trait Card {
    /// Sends a command and returns the answer with its two bytes of status.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, Fault>;
}

/// Why a card says no.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It did not answer.
    Fault(Fault),
    /// Its status.
    Status(u16),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a command does, for people.
type Doing = &'static str;

impl Refusal {
    fn during(self, doing: Doing) -> Fault {
        let status = match self {
            Self::Fault(fault) => return fault,
            Self::Status(status) => status,
        };
        match status {
            0x6982 => Fault::Credentials(
                "it wants its PIN (which is asked for on a terminal), or a touch that did not come"
                    .to_owned(),
            ),
            0x6983 => Fault::Credentials("its PIN is blocked: unblock it with the PUK".to_owned()),
            tries @ 0x63c0..=0x63cf => {
                Fault::Credentials(format!("the PIN is wrong; {} tries are left", tries & 0xf))
            }
            _ => Fault::Program(format!("it refused {doing} (status {status:04x})")),
        }
    }
}

impl Slot {
    fn id(self) -> u8 {
        match self {
            Self::Authentication => 0x9a,
            Self::Signature => 0x9c,
            Self::CardAuthentication => 0x9e,
            Self::KeyManagement => 0x9d,
        }
    }

    /// The last byte of the tag of the slot's certificate.
    fn certificate(self) -> u8 {
        match self {
            Self::Authentication => 0x05,
            Self::Signature => 0x0a,
            Self::CardAuthentication => 0x01,
            Self::KeyManagement => 0x0b,
        }
    }
}

/// Turns to the PIV application.
pub(super) fn select(card: &mut dyn Card) -> Result<(), Fault> {
    let selected = call(card, SELECT, (4, 0), &APPLICATION);
    selected.map(drop).map_err(|refusal| match refusal {
        Refusal::Status(_) => Fault::Unusable("the card in the reader has no PIV application".to_owned()),
        refusal => refusal.during("its PIV application"),
    })
}

/// Reads a slot's public key: from what the card attests of a key that it made itself, else from the certificate that
/// somebody put there.
pub(super) fn public_key(card: &mut dyn Card, slot: Slot) -> Result<PublicKey, Fault> {
    let attested = call(card, ATTEST, (slot.id(), 0), &[]);
    let certificate = match attested {
        Ok(certificate) => certificate.to_vec(),
        Err(Refusal::Status(_)) => {
            let tag = [0x5c, 3, 0x5f, 0xc1, slot.certificate()];
            let object = call(card, GET_DATA, (0x3f, 0xff), &tag).map_err(|refusal| match refusal {
                Refusal::Status(_) => Fault::Unusable(format!("there is no key in its slot `{slot}`")),
                refusal => refusal.during("the slot's certificate"),
            })?;
            let none = || Fault::Answer("the slot's certificate is none");
            let (0x53, inner, _) = der::read(&object).ok_or_else(none)? else { return Err(none()) };
            let (0x70, certificate, _) = der::read(inner).ok_or_else(none)? else { return Err(none()) };
            certificate.to_vec()
        }
        Err(refusal) => return Err(refusal.during("the slot's attestation")),
    };
    let read = CertificateIdentity::read(&certificate);
    let read = read.map_err(|_| Fault::Answer("the slot's certificate cannot be read"))?;
    Ok(PublicKey::from_spki(&read.spki)?)
}

/// Signs a SHA-256, after the PIN where there is one: the slot `signature` wants it each time.
pub(super) fn sign(
    card: &mut dyn Card,
    slot: Slot,
    pin: Option<&SecretString>,
    kind: KeyKind,
    digest: &[u8],
) -> Result<Vec<u8>, Fault> {
    if let Some(pin) = pin {
        let pin = pin.expose_secret().as_bytes();
        if pin.is_empty() || pin.len() > PIN_LENGTH {
            return Err(Fault::Credentials("a PIN has 1 to 8 characters".to_owned()));
        }
        let mut padded = Zeroizing::new([0xff; PIN_LENGTH]);
        padded[..pin.len()].copy_from_slice(pin);
        call(card, VERIFY, (0, 0x80), &*padded).map_err(|refusal| refusal.during("its PIN"))?;
    }
    let (algorithm, challenge) = challenge(kind, digest)?;
    // A dynamic authentication template: an empty response is asked for, over the challenge.
    let template = [der::tlv(0x82, &[]), der::tlv(0x81, &challenge)].concat();
    let answer = call(card, GENERAL_AUTHENTICATE, (algorithm, slot.id()), &der::tlv(0x7c, &template));
    let answer = answer.map_err(|refusal| refusal.during("to sign"))?;
    let none = || Fault::Answer("its signature is none");
    let (0x7c, inner, _) = der::read(&answer).ok_or_else(none)? else { return Err(none()) };
    let (0x82, signature, _) = der::read(inner).ok_or_else(none)? else { return Err(none()) };
    Ok(signature.to_vec())
}

/// Returns the algorithm's number and what the card computes with.
fn challenge(kind: KeyKind, digest: &[u8]) -> Result<(u8, Vec<u8>), Fault> {
    /// DigestInfo of a SHA-256, without it (RFC 8017, 9.2).
    const SHA256: [u8; 19] =
        [0x30, 0x31, 0x30, 0x0d, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    let padded = |bits: usize| {
        let info = [&SHA256[..], digest].concat();
        let padding = vec![0xff; bits / 8 - info.len() - 3];
        [&[0, 1], &padding[..], &[0], &info].concat()
    };
    // Leading zeros of a hash change nothing for ECDSA.
    let wide = |length: usize| [vec![0; length - digest.len()], digest.to_vec()].concat();
    match kind {
        KeyKind::EcdsaP256 => Ok((0x11, digest.to_vec())),
        KeyKind::EcdsaP384 => Ok((0x14, wide(48))),
        KeyKind::Rsa { bits: 2048 } => Ok((0x07, padded(2048))),
        KeyKind::Rsa { bits: 3072 } => Ok((0x05, padded(3072))),
        KeyKind::Rsa { bits: 4096 } => Ok((0x16, padded(4096))),
        other => Err(Fault::Unusable(format!("no security key signs with {other}"))),
    }
}

/// Sends a command, in several parts where it is long, and gathers the answer.
fn call(
    card: &mut dyn Card,
    instruction: u8,
    (p1, p2): (u8, u8),
    data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let parts: Vec<&[u8]> = if data.is_empty() { vec![&[]] } else { data.chunks(0xff).collect() };
    let mut answer = Zeroizing::new(Vec::new());
    for (at, part) in parts.iter().enumerate() {
        let class = if at + 1 == parts.len() { 0 } else { CHAINED };
        let mut command = Zeroizing::new(vec![class, instruction, p1, p2]);
        if !part.is_empty() {
            command.push(part.len() as u8);
            command.extend_from_slice(part);
        }
        command.push(0);
        let mut status = take(&mut answer, card.transmit(&command)?)?;
        while let [0x61, more] = status {
            status = take(&mut answer, card.transmit(&[0, GET_RESPONSE, 0, 0, more])?)?;
        }
        match u16::from_be_bytes(status) {
            0x9000 => {}
            status => return Err(Refusal::Status(status)),
        }
    }
    Ok(answer)
}

fn take(into: &mut Vec<u8>, answer: Vec<u8>) -> Result<[u8; 2], Fault> {
    let answer = Zeroizing::new(answer);
    let (data, status) = answer.split_last_chunk::<2>().ok_or(Fault::Answer("its answer has no status"))?;
    if into.len() + data.len() > LONGEST {
        return Err(Fault::Answer("its answer does not end"));
    }
    into.extend_from_slice(data);
    Ok(*status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{Content, Evidence, Material, Verifier};
    use aws_lc_rs::digest::{Digest, SHA256, digest};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    /// A fake of a card with a P-256 key in its slot `signature`; it answers in pieces, as cards do.
    struct FakeCard {
        pair: EcdsaKeyPair,
        certificate: Vec<u8>,
        attests: bool,
        verified: bool,
        held: Vec<u8>,
        rest: Vec<u8>,
    }

    impl FakeCard {
        fn new(attests: bool) -> Self {
            let keys = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["card".to_owned()]).unwrap();
            let certificate = certificate.self_signed(&keys).unwrap().der().to_vec();
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &keys.serialize_der()).unwrap();
            Self { pair, certificate, attests, verified: false, held: Vec::new(), rest: Vec::new() }
        }

        fn say(&mut self, answer: Vec<u8>) -> Vec<u8> {
            self.rest = answer;
            self.more()
        }

        fn more(&mut self) -> Vec<u8> {
            let tail = self.rest.split_off(self.rest.len().min(100));
            let mut answer = std::mem::replace(&mut self.rest, tail);
            let left = self.rest.len().min(0xff) as u8;
            answer.extend(if left == 0 { [0x90, 0] } else { [0x61, left] });
            answer
        }
    }

    impl Card for FakeCard {
        fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, Fault> {
            let status = |status: u16| Ok(status.to_be_bytes().to_vec());
            let (header, rest) = command.split_at(4);
            let data = if rest.len() > 1 { &rest[1..=usize::from(rest[0])] } else { &[] };
            self.held.extend_from_slice(data);
            if header[0] == CHAINED {
                return status(0x9000);
            }
            let data = std::mem::take(&mut self.held);
            match header[1..] {
                [SELECT, 4, 0] if data == APPLICATION => status(0x9000),
                [GET_RESPONSE, 0, 0] => Ok(self.more()),
                [ATTEST, 0x9c, 0] if self.attests => Ok(self.say(self.certificate.clone())),
                [ATTEST, ..] => status(0x6d00),
                [GET_DATA, 0x3f, 0xff] if data == [0x5c, 3, 0x5f, 0xc1, 0x0a] => {
                    let object = [der::tlv(0x70, &self.certificate), vec![0x71, 1, 0, 0xfe, 0]].concat();
                    Ok(self.say(der::tlv(0x53, &object)))
                }
                [VERIFY, 0, 0x80] => {
                    self.verified = data == *b"123456\xff\xff";
                    status(if self.verified { 0x9000 } else { 0x63c2 })
                }
                [GENERAL_AUTHENTICATE, 0x11, 0x9c] if self.verified => {
                    self.verified = false;
                    let hash = &data[data.len() - 32..];
                    let hash = Digest::import_less_safe(hash, &SHA256).unwrap();
                    let signature = self.pair.sign_digest(&hash).unwrap();
                    Ok(self.say(der::tlv(0x7c, &der::tlv(0x82, signature.as_ref()))))
                }
                [GENERAL_AUTHENTICATE, ..] => status(0x6982),
                _ => status(0x6a82),
            }
        }
    }

    #[test]
    fn a_fake_card_signs_what_its_public_half_verifies() {
        for attests in [true, false] {
            let mut card = FakeCard::new(attests);
            select(&mut card).unwrap();
            let key = public_key(&mut card, Slot::Signature).unwrap();
            let hash = digest(&SHA256, b"message");
            let mut sign = |pin: Option<&str>| {
                let pin = pin.map(SecretString::from);
                super::sign(&mut card, Slot::Signature, pin.as_ref(), key.kind(), hash.as_ref())
            };
            let signature = sign(Some("123456")).unwrap();
            let evidence = Evidence::new(signature, Material::PublicKey { hint: key.hint() });
            assert_eq!(Verifier::verify(&key, Content::Payload(b"message"), &evidence), Ok(()));
            assert!(Verifier::verify(&key, Content::Payload(b"another"), &evidence).is_err());
            let mut told = |pin| sign(pin).unwrap_err().to_string();
            assert_eq!(told(Some("999999")), "the PIN is wrong; 2 tries are left");
            assert!(told(None).contains("wants its PIN"));
            assert!(told(Some("123456789")).contains("1 to 8"));
        }
        let mut card = FakeCard::new(true);
        let empty = public_key(&mut card, Slot::Authentication).unwrap_err();
        assert_eq!(empty.to_string(), "there is no key in its slot `authentication`");
    }

    #[test]
    fn long_commands_go_in_parts() {
        /// Takes down what it is sent.
        struct Noting(Vec<Vec<u8>>);
        impl Card for Noting {
            fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, Fault> {
                self.0.push(command.to_vec());
                Ok(vec![0x90, 0])
            }
        }
        let mut card = Noting(Vec::new());
        let digest = [7; 32];
        let (algorithm, block) = challenge(KeyKind::Rsa { bits: 2048 }, &digest).unwrap();
        assert_eq!((algorithm, block.len(), &block[..3]), (7, 256, &[0, 1, 0xff][..]));
        assert!(block.ends_with(&digest));
        call(&mut card, GENERAL_AUTHENTICATE, (7, 0x9c), &block).unwrap();
        let [first, last] = &card.0[..] else { panic!("two parts: {:?}", card.0) };
        assert_eq!((&first[..5], first.len()), (&[0x10, 0x87, 7, 0x9c, 0xff][..], 261));
        assert_eq!((&last[..5], last.len()), (&[0, 0x87, 7, 0x9c, 1][..], 7));
        assert!(challenge(KeyKind::EcdsaP521, &digest).is_err());
    }
}
