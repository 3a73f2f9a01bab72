//! As much DER as requests to certificate and timestamp authorities, and keys and signatures of key services, take.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
/// `NULL`.
pub(super) const NULL: [u8; 2] = [0x05, 0x00];
/// id-sha256, 2.16.840.1.101.3.4.2.1.
pub(super) const OID_SHA256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
pub(super) const OID_ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Returns one element.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ ..0x80 => bytes.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
            bytes.push(0x80 | length.len() as u8);
            bytes.extend_from_slice(length);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// Returns a SEQUENCE of elements.
pub(super) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &elements.concat())
}

/// Returns an INTEGER that isn't negative, of big-endian bytes.
pub(super) fn positive(bytes: &[u8]) -> Vec<u8> {
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let sign: &[u8] = if digits.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    tlv(INTEGER, &[sign, digits].concat())
}

/// Takes the first element off: its tag, its content, and what follows it.
pub(super) fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, after) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(at, _)| at.len() <= 4)?;
        length = digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_negative() {
        assert_eq!(positive(&[0, 0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(positive(&[0x7f]), [2, 1, 0x7f]);
        assert_eq!(positive(&[0]), [2, 1, 0]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(0u8.., 0..70_000), tail: Vec<u8>) {
            let bytes = [tlv(OCTET_STRING, &content), tail.clone()].concat();
            proptest::prop_assert_eq!(read(&bytes), Some((OCTET_STRING, &content[..], &tail[..])));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _either_way = read(&bytes);
        }
    }
}
