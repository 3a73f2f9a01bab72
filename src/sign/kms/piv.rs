//! Keys of a PIV security key (`--sk`), such as a YubiKey: through PC/SC, by a build that links its library.

#[cfg(any(feature = "piv", test))]
mod applet;
#[cfg(feature = "piv")]
mod reader;

use super::{Fault, Opened};
use secrecy::SecretString;
use std::fmt;
use std::str::FromStr;

/// The name of these in messages.
pub const SERVICE: &str = "the security key";

/// Whether this build can reach security keys.
pub const BUILT: bool = cfg!(feature = "piv");

/// Where on it a key is, by cosign's names (NIST SP 800-73-4, part 1, table 4b).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// 9a.
    Authentication,
    /// 9c.
    #[default]
    Signature,
    /// 9e.
    CardAuthentication,
    /// 9d.
    KeyManagement,
}

const SLOTS: [(Slot, &str); 4] = [
    (Slot::Authentication, "authentication"),
    (Slot::Signature, "signature"),
    (Slot::CardAuthentication, "card-authentication"),
    (Slot::KeyManagement, "key-management"),
];

impl FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SLOTS.into_iter().find(|(_, name)| *name == text);
        let none = "it is none of `authentication`, `signature`, `card-authentication` and `key-management`";
        found.map(|(slot, _)| slot).ok_or_else(|| none.to_owned())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = SLOTS.into_iter().find(|(slot, _)| slot == self).expect("each has a name");
        formatter.write_str(name)
    }
}

/// A slot and how it is opened.
#[derive(Debug)]
pub struct Settings {
    /// The slot.
    pub slot: Slot,
    /// The PIN, where somebody said one.
    pub pin: Option<SecretString>,
}

#[cfg(feature = "piv")]
pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    reader::open(settings).await
}

/// `config` refuses `--sk` before anything comes here.
#[cfg(not(feature = "piv"))]
pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    Err((Fault::Unusable(format!("this build reaches no slot `{}`", settings.slot)), None))
}
