//! JSON objects that keep what they don't understand byte for byte.
//!
//! Signature manifests are shared with other tools: a member that we don't touch must come out as it went in,
//! down to its spaces, numbers and escapes.

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::fmt;

/// An object with its members in order, each as the text that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Reads an object; two members of one name are refused, since readers differ in which of them counts.
    pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Returns a member; `null` counts as absent, as in Go.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> serde_json::Result<Option<T>> {
        match self.0.iter().find(|(key, _)| key == name) {
            Some((_, value)) => serde_json::from_str(value.get()),
            None => Ok(None),
        }
    }

    /// Returns the elements of an array, each as its text; nothing where the member is absent.
    pub(super) fn elements(&self, name: &str) -> serde_json::Result<Vec<Box<RawValue>>> {
        Ok(self.get(name)?.unwrap_or_default())
    }

    /// Replaces a member in its place, or adds it at the end.
    pub(super) fn set(&mut self, name: &str, value: &impl Serialize) {
        let raw = raw(value);
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = raw,
            None => self.0.push((name.to_owned(), raw)),
        }
    }

    /// Returns the object's text, without spaces of its own.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and JSON texts always serialise")
    }
}

/// Returns the JSON text of a value of ours.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("our own values serialise")
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(other, _)| *other == key) {
                        return Err(A::Error::custom(format_args!("member `{key}` stands twice")));
                    }
                    members.push((key, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_was() {
        let text = br#"{"z":1e400,"a":[ 1,  {"\u0041":0.10} ],"m":"\u003c/"}"#;
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.to_vec(), text);
        object.set("m", &7);
        object.set("new", &[1, 2]);
        assert_eq!(object.to_vec(), br#"{"z":1e400,"a":[ 1,  {"\u0041":0.10} ],"m":7,"new":[1,2]}"#);
        assert_eq!(object.get::<u8>("m").unwrap(), Some(7));
        assert_eq!(object.get::<u8>("none").unwrap(), None);
        assert_eq!(object.elements("a").unwrap()[1].get(), r#"{"\u0041":0.10}"#);
    }

    #[test]
    fn ambiguity_is_refused() {
        assert!(Object::parse(br#"{"layers":[],"layers":[1]}"#).is_err());
        assert!(Object::parse(b"[]").is_err());
        assert!(Object::parse(b"{} {}").is_err());
    }
}
