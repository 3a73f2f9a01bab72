//! Remembers which number was given to which file, since the receiver asks by number, at any time until the end.
//!
//! A map of paths would be the one thing that grows with the tree (about 150 bytes a file). The walk is in
//! order, so neighbours share most of their paths: each is stored as what differs from the one before, with a
//! whole path now and then. That comes to some 15 bytes a file.

use super::packet::{put_varint, take_varint};

/// Entries from one whole path to the next: a look-up unfolds half of them on average.
const STRIDE: usize = 32;

/// Bytes after which a stride starts on a new page: one buffer for all would be copied each time that it doubles,
/// and half empty after.
const PAGE: usize = 48 << 10;

/// Numbers and what is behind them. Entries are only ever added, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pages: Vec<Vec<u8>>,
    /// Where each stride starts: its page, and 16 bits of offset.
    strides: Vec<u32>,
    /// One bit for each number that was asked for.
    taken: Vec<u64>,
    count: usize,
    last: Vec<u8>,
}

/// What is behind a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing to send: a directory, a link, a device.
    None,
    /// A socket, which the receiver takes for an empty file.
    Empty,
    /// A file.
    File {
        /// Bytes announced.
        size: u64,
        /// See [`Meta::fingerprint`](super::tree::Meta::fingerprint).
        fingerprint: u32,
    },
}

/// Why a number can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadNumber {
    /// No file has it.
    Unknown,
    /// It was asked for before.
    Repeated,
    /// The tree is too big for 32 bits.
    Overflow,
}

impl Catalog {
    /// Adds the next entry and returns its number.
    pub(super) fn add(&mut self, path: &[u8], content: Content) -> Result<u32, BadNumber> {
        let number = u32::try_from(self.count).map_err(|_| BadNumber::Overflow)?;
        let shared = if self.count.is_multiple_of(STRIDE) {
            self.start_stride()?;
            0
        } else {
            self.last.iter().zip(path).take_while(|(old, new)| old == new).count()
        };
        let bytes = self.pages.last_mut().ok_or(BadNumber::Overflow)?;
        put_varint(bytes, shared as u64);
        put_varint(bytes, (path.len() - shared) as u64);
        bytes.extend_from_slice(&path[shared..]);
        // Bits of the first number: 0 nothing, 1 empty, 2 file, then the size.
        match content {
            Content::None => put_varint(bytes, 0),
            Content::Empty => put_varint(bytes, 1),
            Content::File { size, fingerprint } => {
                put_varint(bytes, size << 2 | 2);
                bytes.extend(fingerprint.to_le_bytes());
            }
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(&path[shared..]);
        self.count += 1;
        Ok(number)
    }

    fn start_stride(&mut self) -> Result<(), BadNumber> {
        if self.pages.last().is_none_or(|page| page.len() > PAGE) {
            // Small trees need no whole page, and the first one grows as it must.
            let capacity = if self.pages.is_empty() { 0 } else { PAGE + 4096 };
            self.pages.push(Vec::with_capacity(capacity));
        }
        let page = u16::try_from(self.pages.len() - 1).map_err(|_| BadNumber::Overflow)?;
        let offset = self.pages.last().map_or(0, Vec::len);
        self.strides.push(u32::from(page) << 16 | offset as u32);
        Ok(())
    }

    /// Returns what is behind a number that has contents, once; its path goes to `path`.
    pub(super) fn take(&mut self, number: u32, path: &mut Vec<u8>) -> Result<Content, BadNumber> {
        let content = self.look_up(number, path).ok_or(BadNumber::Unknown)?;
        if content == Content::None {
            return Err(BadNumber::Unknown);
        }
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        if self.taken[word] & bit != 0 {
            return Err(BadNumber::Repeated);
        }
        self.taken[word] |= bit;
        Ok(content)
    }

    /// Writes the path of any number to `path` and returns what is behind it.
    pub(super) fn look_up(&self, number: u32, path: &mut Vec<u8>) -> Option<Content> {
        let number = number as usize;
        if number >= self.count {
            return None;
        }
        let start = self.strides[number / STRIDE] as usize;
        let mut bytes = &self.pages[start >> 16][start & 0xffff..];
        path.clear();
        let mut content = Content::None;
        for _ in 0..=number % STRIDE {
            let mut next = || take_varint(&mut bytes).ok();
            let (shared, length) = (next()? as usize, next()? as usize);
            path.truncate(shared);
            path.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            let head = take_varint(&mut bytes).ok()?;
            content = match head & 3 {
                0 => Content::None,
                1 => Content::Empty,
                _ => {
                    let (fingerprint, rest) = bytes.split_first_chunk()?;
                    bytes = rest;
                    Content::File { size: head >> 2, fingerprint: u32::from_le_bytes(*fingerprint) }
                }
            };
        }
        Some(content)
    }

    /// Bytes held.
    #[cfg(test)]
    fn weight(&self) -> usize {
        self.pages.iter().map(Vec::capacity).sum::<usize>()
            + self.strides.capacity() * 4
            + self.taken.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::None),
            Just(Content::Empty),
            (0..u64::MAX >> 2, any::<u32>())
                .prop_map(|(size, fingerprint)| Content::File { size, fingerprint }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn gives_back_what_was_added(
            entries in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..12), 0..9000_usize, content()), 1..200),
        ) {
            // Long ones too, so that there is more than one page.
            let lengthen = |(mut path, length, content): (Vec<u8>, usize, Content)| {
                path.resize(path.len() + length.saturating_sub(7000), b'/');
                (path, content)
            };
            let entries: Vec<_> = entries.into_iter().map(lengthen).collect();
            let mut catalog = Catalog::default();
            for (index, (path, content)) in entries.iter().enumerate() {
                prop_assert_eq!(catalog.add(path, *content), Ok(index as u32));
            }
            let mut path = Vec::new();
            for (index, (expected, content)) in entries.iter().enumerate().rev() {
                let number = index as u32;
                prop_assert_eq!(catalog.look_up(number, &mut path), Some(*content));
                prop_assert_eq!(&path, expected);
                let first = if *content == Content::None { Err(BadNumber::Unknown) } else { Ok(*content) };
                prop_assert_eq!(catalog.take(number, &mut path), first);
                let again = if first.is_ok() { BadNumber::Repeated } else { BadNumber::Unknown };
                prop_assert_eq!(catalog.take(number, &mut path), Err(again));
            }
            prop_assert_eq!(catalog.take(entries.len() as u32, &mut path), Err(BadNumber::Unknown));
        }
    }

    #[test]
    fn a_million_files_are_a_few_megabytes() {
        let mut catalog = Catalog::default();
        for directory in 0..1000 {
            for file in 0..1000 {
                let path = format!("packages/some-package-{directory:04}/lib/source-file-{file:04}.js");
                catalog
                    .add(path.as_bytes(), Content::File { size: 5000, fingerprint: file })
                    .expect("room for a million");
            }
        }
        assert!(catalog.weight() < 20 << 20, "{} bytes", catalog.weight());
        let mut path = Vec::new();
        catalog.take(123_456, &mut path).expect("a file");
        assert_eq!(path, b"packages/some-package-0123/lib/source-file-0456.js");
    }
}
