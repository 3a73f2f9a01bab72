//! Keys on PKCS#11 tokens. The signing itself is a cargo feature: it loads a native library.

#[cfg(feature = "pkcs11")]
mod token;

use super::{Fault, Opened};
use secrecy::SecretString;
use std::fmt;
use std::path::{Path, PathBuf};
use url::form_urlencoded;

/// The name of these in messages.
pub const SERVICE: &str = "the PKCS#11 token";

/// `pkcs11:token=…;object=…?module-path=…&pin-value=…` (RFC 7512, the part of it that cosign takes).
#[derive(Clone)]
pub struct Key {
    /// The token's label.
    pub token: Option<String>,
    /// The slot's number.
    pub slot: Option<u64>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's identifier.
    pub id: Option<Vec<u8>>,
    /// The library.
    pub module: Option<PathBuf>,
    /// The PIN itself.
    pub pin: Option<SecretString>,
    /// The file that holds the PIN.
    pub pin_file: Option<PathBuf>,
}

impl Key {
    /// Reads what stands behind `pkcs11:`; none if it names no key. `;` and `&` both separate, as for cosign.
    pub fn parse(rest: &str) -> Option<Self> {
        let mut key =
            Self { token: None, slot: None, object: None, id: None, module: None, pin: None, pin_file: None };
        for part in rest.split(['?', ';', '&']).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let bytes = percent_decoded(value)?;
            let text = || String::from_utf8(bytes.clone()).ok();
            match name {
                "token" => key.token = Some(text()?),
                "slot-id" => key.slot = Some(text()?.parse().ok()?),
                "object" => key.object = Some(text()?),
                "id" => key.id = Some(bytes),
                "module-path" => key.module = Some(text()?.into()),
                "pin-value" => key.pin = Some(text()?.into()),
                "pin-source" => {
                    let source = text()?;
                    key.pin_file = Some(source.strip_prefix("file:").unwrap_or(&source).into());
                }
                // Others only narrow the search (RFC 7512, 2.3); cosign passes over them, too.
                _ => {}
            }
        }
        let filled = |text: &Option<String>| text.as_ref().is_none_or(|text| !text.is_empty());
        let names_token = key.token.is_some() || key.slot.is_some();
        let names_key = key.object.is_some() || key.id.is_some();
        (names_token && names_key && filled(&key.token) && filled(&key.object)).then_some(key)
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push((high * 16 + low) as u8);
    }
    Some(decoded)
}

/// Without the PIN: what may be shown, and read back.
impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text: &str| {
            form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
        };
        let mut path = Vec::new();
        path.extend(self.token.as_deref().map(|token| format!("token={}", escaped(token))));
        path.extend(self.slot.map(|slot| format!("slot-id={slot}")));
        path.extend(self.object.as_deref().map(|object| format!("object={}", escaped(object))));
        path.extend(self.id.as_deref().map(|id| {
            let id: String = id.iter().map(|byte| format!("%{byte:02x}")).collect();
            format!("id={id}")
        }));
        write!(formatter, "pkcs11:{}", path.join(";"))?;
        // Paths are UTF-8, as what they were read from.
        let place = |path: &Path| escaped(&path.to_string_lossy()).replace("%2F", "/");
        let mut query = Vec::new();
        query.extend(self.module.as_deref().map(|path| format!("module-path={}", place(path))));
        query.extend(self.pin_file.as_deref().map(|path| format!("pin-source=file:{}", place(path))));
        if query.is_empty() { Ok(()) } else { write!(formatter, "?{}", query.join("&")) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({self})")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Key {}

/// A key on a token and how it is reached.
#[derive(Debug)]
pub struct Settings {
    /// The key.
    pub key: Key,
    /// The library, an absolute path.
    pub module: PathBuf,
    /// The PIN, where there is one.
    pub pin: Option<SecretString>,
    /// A certificate of the token's for the key must belong to it (`COSIGN_PKCS11_IGNORE_CERTIFICATE` unset).
    pub check_certificate: bool,
}

/// Whether this build can load the library of a token.
pub const BUILT: bool = cfg!(feature = "pkcs11");

#[cfg(feature = "pkcs11")]
pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    token::open(settings).await
}

/// `config` refuses these keys before anything comes here.
#[cfg(not(feature = "pkcs11"))]
pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    Err((Fault::Unusable(format!("this build cannot load {}", settings.module.display())), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn the_grammar() {
        let text = "token=my%20token;slot-id=3;object=key?module-path=/usr/lib/lib.so&pin-value=12%3b4";
        let key = Key::parse(text).unwrap();
        assert_eq!(key.token.as_deref(), Some("my token"));
        assert_eq!(key.slot, Some(3));
        assert_eq!(key.pin.as_ref().unwrap().expose_secret(), "12;4");
        assert_eq!(
            key.to_string(),
            "pkcs11:token=my%20token;slot-id=3;object=key?module-path=/usr/lib/lib.so"
        );
        assert!(!format!("{key:?}").contains("12;4"));
        let separators =
            Key::parse("slot-id=0&object=o?module-path=/l%3b%26%3f%25.so&pin-source=/a%2520b").unwrap();
        assert_eq!(Key::parse(&separators.to_string()["pkcs11:".len()..]), Some(separators));
        let key = Key::parse("slot-id=0&id=%01%ff;serial=1?pin-source=file:/run/pin").unwrap();
        assert_eq!(key.id, Some(vec![1, 0xff]));
        assert_eq!(key.pin_file.as_deref(), Some(Path::new("/run/pin")));
        assert_eq!(Key::parse(&key.to_string()["pkcs11:".len()..]), Some(key));
        for text in [
            "",
            "token=t",
            "object=o",
            "token=;object=o",
            "slot-id=x;object=o",
            "token=t;id=%0",
            "token=%ff;object=o",
            "token=t;object",
        ] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "(token=|object=|id=|slot-id=|[;&?%a-z0-9é])*") {
            if let Some(key) = Key::parse(&text) {
                proptest::prop_assert_eq!(Key::parse(&key.to_string()["pkcs11:".len()..]), Some(key));
            }
        }
    }
}
