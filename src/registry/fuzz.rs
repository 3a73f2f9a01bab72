//! The registry's readers of what others wrote, each taking any bytes; see [`crate::fuzz`].

use super::{Digest, Reference, Repository};

pub(crate) fn references(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // What we print is read back as the same.
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    if let Ok(repository) = text.parse::<Repository>() {
        assert_eq!(repository.to_string().parse(), Ok(repository));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
}

pub(crate) fn challenges(bytes: &[u8]) {
    super::auth::read_any(bytes);
}

pub(crate) fn docker_config(bytes: &[u8]) {
    super::credentials::read_any(bytes);
}
