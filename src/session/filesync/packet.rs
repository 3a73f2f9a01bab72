//! The packets of a transfer as bytes, each framed as a gRPC message (tonistiigi/fsutil types/wire.proto).
//!
//! Written by hand because one buffer then takes many packets, names and file contents go straight into it,
//! and no message struct is built per file. The tests hold it against the generated code.

/// Bytes of a gRPC frame's header: a flag and a big-endian length.
pub(super) const FRAME_HEADER: usize = 5;

const STAT: u64 = 0;
const REQ: u64 = 1;
const DATA: u64 = 2;
const FIN: u64 = 3;
const ERR: u64 = 4;

const TYPE_TAG: u8 = 1 << 3;
const STAT_TAG: u8 = 2 << 3 | 2;
const ID_TAG: u8 = 3 << 3;
const DATA_TAG: u8 = 4 << 3 | 2;

/// Bits of Go's `os.FileMode`, which the protocol carries instead of `st_mode`.
pub(super) mod mode {
    pub(in super::super) const DIRECTORY: u32 = 1 << 31;
    pub(in super::super) const SYMLINK: u32 = 1 << 27;
    pub(in super::super) const DEVICE: u32 = 1 << 26;
    pub(in super::super) const FIFO: u32 = 1 << 25;
    pub(in super::super) const SETUID: u32 = 1 << 23;
    pub(in super::super) const SETGID: u32 = 1 << 22;
    pub(in super::super) const CHARACTER: u32 = 1 << 21;
    pub(in super::super) const STICKY: u32 = 1 << 20;
    pub(in super::super) const IRREGULAR: u32 = 1 << 19;
    /// What makes a file other than regular; the socket bit is never sent.
    pub(in super::super) const TYPES: u32 = DIRECTORY | SYMLINK | DEVICE | FIFO | CHARACTER | IRREGULAR;

    /// Translates `st_mode`. A socket comes out as a regular file: upstream clears its bit.
    pub(in super::super) fn from_unix(unix: u32) -> u32 {
        let kind = match unix & 0o170_000 {
            0o040_000 => DIRECTORY,
            0o120_000 => SYMLINK,
            0o060_000 => DEVICE,
            0o020_000 => DEVICE | CHARACTER,
            0o010_000 => FIFO,
            0o100_000 | 0o140_000 => 0,
            _ => IRREGULAR,
        };
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        let special = special.iter().filter(|(bit, _)| unix & bit != 0).map(|(_, bit)| bit);
        special.fold(kind | unix & 0o777, |mode, bit| mode | bit)
    }
}

/// What a STAT says of an entry; owner and group are always sent as 0, as every other client does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat<'a> {
    pub(super) path: &'a [u8],
    pub(super) mode: u32,
    pub(super) size: i64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
    pub(super) link: &'a [u8],
    pub(super) device_major: i64,
    pub(super) device_minor: i64,
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Appends a STAT.
pub(super) fn put_stat(buffer: &mut Vec<u8>, stat: &Stat<'_>) {
    let xattr_len = |(key, value): &(Vec<u8>, Vec<u8>)| bytes_len(key) + bytes_len(value);
    let length = bytes_len(stat.path)
        + number_len(u64::from(stat.mode))
        + number_len(stat.size.cast_unsigned())
        + number_len(stat.modified.cast_unsigned())
        + bytes_len(stat.link)
        + number_len(stat.device_major.cast_unsigned())
        + number_len(stat.device_minor.cast_unsigned())
        + stat.xattrs.iter().map(|entry| 1 + prefixed_len(xattr_len(entry))).sum::<usize>();
    put_header(buffer, 1 + prefixed_len(length));
    buffer.push(STAT_TAG);
    put_varint(buffer, length as u64);
    put_bytes(buffer, 1, stat.path);
    put_number(buffer, 2, u64::from(stat.mode));
    put_number(buffer, 5, stat.size.cast_unsigned());
    put_number(buffer, 6, stat.modified.cast_unsigned());
    put_bytes(buffer, 7, stat.link);
    put_number(buffer, 8, stat.device_major.cast_unsigned());
    put_number(buffer, 9, stat.device_minor.cast_unsigned());
    for entry in stat.xattrs {
        buffer.push(10 << 3 | 2);
        put_varint(buffer, xattr_len(entry) as u64);
        put_bytes(buffer, 1, &entry.0);
        put_bytes(buffer, 2, &entry.1);
    }
}

/// Appends the STAT that ends the walk: an empty message.
pub(super) fn put_last_stat(buffer: &mut Vec<u8>) {
    put_header(buffer, 0);
}

/// Appends all of a DATA packet but its `length` bytes, which the caller puts next.
pub(super) fn put_data_header(buffer: &mut Vec<u8>, id: u32, length: usize) {
    let id_len = number_len(u64::from(id));
    put_header(buffer, 2 + id_len + 1 + prefixed_len(length));
    buffer.extend([TYPE_TAG, DATA as u8]);
    put_number(buffer, 3, u64::from(id));
    buffer.push(DATA_TAG);
    put_varint(buffer, length as u64);
}

/// Appends the empty DATA packet that ends a file.
pub(super) fn put_end_of_file(buffer: &mut Vec<u8>, id: u32) {
    put_header(buffer, 2 + number_len(u64::from(id)));
    buffer.extend([TYPE_TAG, DATA as u8]);
    put_number(buffer, 3, u64::from(id));
}

/// Appends the FIN that answers the receiver's.
pub(super) fn put_fin(buffer: &mut Vec<u8>) {
    put_header(buffer, 2);
    buffer.extend([TYPE_TAG, FIN as u8]);
}

/// Appends an ERR; the receiver fails with its text.
pub(super) fn put_error(buffer: &mut Vec<u8>, text: &str) {
    put_header(buffer, 2 + 1 + prefixed_len(text.len()));
    buffer.extend([TYPE_TAG, ERR as u8, DATA_TAG]);
    put_varint(buffer, text.len() as u64);
    buffer.extend_from_slice(text.as_bytes());
}

fn put_header(buffer: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a packet is far smaller than 4 GiB");
    buffer.push(0);
    buffer.extend(length.to_be_bytes());
}

pub(super) fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn put_number(buffer: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        buffer.push(field << 3);
        put_varint(buffer, value);
    }
}

fn put_bytes(buffer: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        buffer.push(field << 3 | 2);
        put_varint(buffer, value.len() as u64);
        buffer.extend_from_slice(value);
    }
}

fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn prefixed_len(length: usize) -> usize {
    varint_len(length as u64) + length
}

fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

fn bytes_len(value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { 1 + prefixed_len(value.len()) }
}

/// What the receiver may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It wants the contents of the entry with this number.
    Request(u32),
    /// It has all that it wants.
    Finished,
    /// It failed with this text.
    Failed(String),
}

/// Bytes that are no packet, or none that a receiver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one message, without its frame header.
pub(super) fn read(mut message: &[u8]) -> Result<Received, Malformed> {
    let (mut kind, mut id, mut data) = (STAT, 0, &[][..]);
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                match tag {
                    tag if tag == u64::from(TYPE_TAG) => kind = value,
                    tag if tag == u64::from(ID_TAG) => id = value,
                    _ => {}
                }
            }
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).map_err(|_| Malformed)?;
                let (value, rest) = message.split_at_checked(length).ok_or(Malformed)?;
                message = rest;
                if tag == u64::from(DATA_TAG) {
                    data = value;
                }
            }
            // Fixed-width fields of some future version.
            1 => message = message.get(8..).ok_or(Malformed)?,
            5 => message = message.get(4..).ok_or(Malformed)?,
            _ => return Err(Malformed),
        }
    }
    match kind {
        REQ => Ok(Received::Request(u32::try_from(id).map_err(|_| Malformed)?)),
        FIN => Ok(Received::Finished),
        ERR => Ok(Received::Failed(String::from_utf8_lossy(data).into_owned())),
        _ => Err(Malformed),
    }
}

pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::fsutil::types as pb;
    use proptest::prelude::*;
    use prost::Message as _;
    use rstest::rstest;

    #[rstest]
    #[case(0o100_644, 0x0000_01A4)]
    #[case(0o104_755, 0x0080_01ED)]
    #[case(0o102_755, 0x0040_01ED)]
    #[case(0o040_755, 0x8000_01ED)]
    #[case(0o041_777, 0x8010_01FF)]
    #[case(0o120_777, 0x0800_01FF)]
    #[case(0o010_644, 0x0200_01A4)]
    #[case(0o020_600, 0x0420_0180)]
    #[case(0o060_600, 0x0400_0180)]
    #[case(0o140_755, 0x0000_01ED)]
    fn translates_modes(#[case] unix: u32, #[case] expected: u32) {
        assert_eq!(mode::from_unix(unix), expected);
    }

    #[test]
    fn known_bytes() {
        let put = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut buffer = Vec::new();
            write(&mut buffer);
            buffer
        };
        assert_eq!(put(&put_last_stat), [0, 0, 0, 0, 0]);
        assert_eq!(put(&put_fin), [0, 0, 0, 0, 2, 8, 3]);
        assert_eq!(put(&|buffer| put_end_of_file(buffer, 5)), [0, 0, 0, 0, 4, 8, 2, 0x18, 5]);
        assert_eq!(read(&[8, 1]), Ok(Received::Request(0)));
        assert_eq!(read(&[8, 1, 0x18, 5]), Ok(Received::Request(5)));
        assert_eq!(read(&[8, 3]), Ok(Received::Finished));
        assert_eq!(read(&[8, 4, 0x22, 2, b'n', b'o']), Ok(Received::Failed("no".into())));
    }

    #[test]
    fn refuses_what_no_receiver_sends() {
        for bytes in [&[][..], &[8], &[8, 2], &[0x22, 9, 1], &[0x0b], &[8, 1, 0x18, 0xff]] {
            assert_eq!(read(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    fn xattrs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..200);
        prop::collection::vec((bytes(), bytes()), 0..3)
    }

    proptest! {
        #[test]
        fn a_stat_reads_back_as_the_generated_code_reads_it(
            path in prop::collection::vec(any::<u8>(), 0..300),
            link in prop::collection::vec(any::<u8>(), 0..20),
            mode: u32, size: i64, modified: i64, device_major: i64, device_minor: i64,
            xattrs in xattrs(),
        ) {
            let stat = Stat {
                path: &path, mode, size, modified, link: &link, device_major, device_minor, xattrs: &xattrs,
            };
            let mut buffer = Vec::new();
            put_stat(&mut buffer, &stat);
            let length = u32::from_be_bytes(buffer[1..5].try_into().expect("four bytes"));
            prop_assert_eq!(length as usize, buffer.len() - FRAME_HEADER);
            let packet = pb::Packet::decode(&buffer[FRAME_HEADER..]).expect("a packet");
            prop_assert_eq!(packet.r#type(), pb::packet::Type::Stat);
            let read = packet.stat.expect("a stat");
            let entries = xattrs.iter().map(|(key, value)| pb::Xattr {
                key: key.clone().into(),
                value: value.clone().into(),
            });
            let expected = pb::Stat {
                path: path.clone().into(), mode, uid: 0, gid: 0, size, mod_time: modified,
                linkname: link.clone().into(), devmajor: device_major, devminor: device_minor,
                xattrs: entries.collect(),
            };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn data_reads_back(id: u32, data in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = Vec::new();
            put_data_header(&mut buffer, id, data.len());
            buffer.extend_from_slice(&data);
            let length = u32::from_be_bytes(buffer[1..5].try_into().expect("four bytes"));
            prop_assert_eq!(length as usize, buffer.len() - FRAME_HEADER);
            let packet = pb::Packet::decode(&buffer[FRAME_HEADER..]).expect("a packet");
            prop_assert_eq!((packet.r#type(), packet.id, &packet.data[..]), (pb::packet::Type::Data, id, &data[..]));
        }

        #[test]
        fn requests_of_the_generated_code_are_read(id: u32) {
            let packet = pb::Packet { r#type: pb::packet::Type::Req.into(), id, ..Default::default() };
            prop_assert_eq!(read(&packet.encode_to_vec()), Ok(Received::Request(id)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _either = read(&bytes);
        }
    }
}
