//! Ids that we give: versions, uploads, parts. Unguessable, and in order of time.
//!
//! The order of a version is its milliseconds since 1970 UTC times 65 536, or one more than that of the version before it if that
//! is greater: versions of a key have one order whatever the clock does, and their times never run backwards.

use std::fmt;

use crate::{Error, Result};

/// Bytes of an id: eight that give its order, twelve at random.
const ID_LEN: usize = 20;

/// Random bytes of an id.
pub(super) const CHANCE_LEN: usize = 12;

/// Greatest number of a part.
pub const PART_NUMBER_MAX: u16 = 10_000;

/// Where a version stands among those of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionOrder(pub(super) u64);

impl VersionOrder {
    /// That of a version made at `now_ms` after one of order `before`.
    pub fn next(now_ms: u64, before: Option<Self>) -> Self {
        Self((now_ms << 16).max(before.map_or(0, |before| before.0.saturating_add(1))))
    }

    /// Milliseconds since 1970 UTC.
    pub fn created_ms(self) -> u64 {
        self.0 >> 16
    }
}

/// Id of a version: `null`, or 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(Option<[u8; ID_LEN]>);

impl VersionId {
    /// That of a version made while its bucket kept no versions.
    pub const NULL: Self = Self(None);

    pub(super) fn made(order: VersionOrder, chance: [u8; CHANCE_LEN]) -> Self {
        Self(Some(joined(order.0, chance)))
    }

    /// Reads what `Display` writes.
    ///
    /// Errors: [`Error::BadName`].
    pub fn parse(text: &str) -> Result<Self> {
        if text == "null" {
            return Ok(Self::NULL);
        }
        parse_hex(text).map(|id| Self(Some(id))).ok_or_else(|| Error::BadName {
            what: "version",
            name: text.chars().take(64).collect(),
            rule: "null, or 40 of 0-9 and a-f",
        })
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.0.is_none()
    }

    /// Its place among the versions of its key; that of `null` is not in its id.
    pub(super) fn order(self) -> Option<VersionOrder> {
        self.0.map(|id| VersionOrder(order_of(&id)))
    }

    pub(super) fn encode(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |id| id)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(Self::NULL),
            bytes => bytes.try_into().ok().map(|id| Self(Some(id))),
        }
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("null"),
            Some(id) => write_hex(id, f),
        }
    }
}

/// Id of an upload in parts: 40 hexadecimal digits. Those of a key sort by the time at which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId([u8; ID_LEN]);

impl UploadId {
    pub(super) fn made(now_ms: u64, chance: [u8; CHANCE_LEN]) -> Self {
        Self(joined(VersionOrder::next(now_ms, None).0, chance))
    }

    pub(super) const fn from_bytes(id: [u8; ID_LEN]) -> Self {
        Self(id)
    }

    pub(super) fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }

    /// Reads what `Display` writes. What cannot be an id is none that we gave: `None`.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// When it began, in milliseconds since 1970 UTC.
    pub fn initiated_ms(&self) -> u64 {
        VersionOrder(order_of(&self.0)).created_ms()
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// Number of a part, 1 to [`PART_NUMBER_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u16);

impl PartNumber {
    /// A part's number; `None`: it is out of range.
    pub fn new(number: u64) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        (1..=PART_NUMBER_MAX).contains(&number).then_some(Self(number))
    }

    /// As a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn joined(order: u64, chance: [u8; CHANCE_LEN]) -> [u8; ID_LEN] {
    let mut id = [0; ID_LEN];
    id[..8].copy_from_slice(&order.to_be_bytes());
    id[8..].copy_from_slice(&chance);
    id
}

fn order_of(id: &[u8; ID_LEN]) -> u64 {
    let (order, _) = id.split_first_chunk().expect("an id is longer than its order");
    u64::from_be_bytes(*order)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_key_are_in_order_whatever_the_clock_does() {
        let first = VersionOrder::next(1000, None);
        assert_eq!(first.created_ms(), 1000);
        let same = VersionOrder::next(1000, Some(first));
        let back = VersionOrder::next(900, Some(same));
        assert!(first < same && same < back);
        assert_eq!((same.created_ms(), back.created_ms()), (1000, 1000));
        assert_eq!(VersionOrder::next(1001, Some(back)).created_ms(), 1001);
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = VersionId::made(VersionOrder::next(7, None), [0xab; CHANCE_LEN]);
        assert_eq!(VersionId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(VersionId::parse("null").unwrap(), VersionId::NULL);
        assert_eq!(VersionId::decode(id.encode()), Some(id));
        assert_eq!(VersionId::decode(VersionId::NULL.encode()), Some(VersionId::NULL));
        for text in ["", "NULL", "12", &"g".repeat(40), &"A".repeat(40), &"a".repeat(41)] {
            assert!(matches!(VersionId::parse(text), Err(Error::BadName { .. })), "{text:?}");
        }
        let upload = UploadId::made(9, [1; CHANCE_LEN]);
        assert_eq!(UploadId::parse(&upload.to_string()), Some(upload));
        assert_eq!((upload.initiated_ms(), UploadId::parse("null")), (9, None));
    }

    #[test]
    fn parts_are_numbered_from_one_to_ten_thousand() {
        assert!(
            [0, 10_001, u64::MAX]
                .iter()
                .all(|&number| PartNumber::new(number).is_none())
        );
        assert_eq!(PartNumber::new(10_000).unwrap().get(), 10_000);
    }
}
