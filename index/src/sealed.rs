//! Snapshots of the rows, sealed into the packs: what an index that was lost is made from, with the commits behind it.
//!
//! The rows of one moment are streamed into the log while commits go on; once the snapshot is whole, the commits in it are needed no
//! more, and compaction gives their packs back. Each row keeps its version. The bytes are in `formats/FORMATS.md`, "Snapshots";
//! everything is checked when they are read. Not here: how pieces lie in packs and when they count (`store`).

use bytes::{Buf as _, Bytes};
use cairn_store::{NewSnapshot, PackEngine, SNAPSHOT_PIECE_LEN};

use crate::database::Engine;
use crate::kv::{KEY_LEN_MAX, Order, Row, SCAN_ROWS_MAX, VALUE_LEN_MAX, Version};
use crate::{Error, KeyRange, Result};

const FORMAT: u8 = 1;

/// Bytes in front of a row's key: the lengths of key and value, the version.
const ROW_HEAD_LEN: usize = 2 + 4 + 8;

/// Packs of which less than this share is named count as held by their commits. Of others so little is dead that it would not be
/// worth writing them anew.
const HELD_SHARE: f64 = 0.95;

/// When a snapshot is worth its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SnapshotPolicy {
    /// Bytes of commits since the last one, at least.
    pub bytes_min: u64,
    /// Bytes of packs that nothing but such commits keeps, at least.
    pub held_min: u64,
    /// Either, as a multiple of the last one.
    pub growth: f64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            bytes_min: 64 << 20,
            held_min: 256 << 10,
            growth: 2.0,
        }
    }
}

impl SnapshotPolicy {
    /// Whether a new one is due.
    ///
    /// - `also_held`: bytes that it would free besides those of mostly dead packs.
    pub fn is_due(&self, packs: &PackEngine, also_held: u64) -> Result<bool> {
        let stat = packs.snapshot_stat(HELD_SHARE)?;
        let pays = |bytes: u64, min: u64| bytes > min && bytes as f64 > self.growth * stat.bytes as f64;
        Ok(pays(stat.commit_bytes, self.bytes_min) || pays(stat.held_bytes + also_held, self.held_min))
    }
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Rows.
    pub rows: u64,
    /// Bytes of them, encoded.
    pub bytes: u64,
}

/// Writes the rows of an engine into the packs that are its log. `None`: it has none, or has committed nothing since the last.
///
/// - `pace`: called before each piece with its bytes. It may wait; an error ends the work and is returned, and what was written counts
///   for nothing.
pub fn write_snapshot<E: Engine>(
    engine: &E,
    packs: &PackEngine,
    pace: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Option<SnapshotReport>> {
    write_pieces(engine, packs, SNAPSHOT_PIECE_LEN, pace)
}

/// [`write_snapshot`] in pieces of about this many bytes.
pub(crate) fn write_pieces<E: Engine>(
    engine: &E,
    packs: &PackEngine,
    piece_len: usize,
    pace: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Option<SnapshotReport>> {
    let before = packs.snapshot_stat(HELD_SHARE)?;
    let Some(frozen) = engine.freeze()? else {
        return Ok(None);
    };
    if frozen.watermark.commit <= before.commit {
        return Ok(None);
    }
    let mut snapshot = packs.begin_snapshot(frozen.watermark.commit, frozen.watermark.position)?;
    let mut report = SnapshotReport::default();
    let mut piece = vec![FORMAT];
    let mut rest = Some(KeyRange::prefix(b""));
    while let Some(range) = rest {
        let page = frozen.rows.scan(&range, Order::Forward, SCAN_ROWS_MAX)?;
        for (key, row) in &page.rows {
            push_row(&mut piece, key, row);
            report.rows += 1;
            if piece.len() >= piece_len {
                end_piece(&mut snapshot, &mut piece, &mut report, pace)?;
            }
        }
        rest = page.rest;
    }
    if piece.len() > 1 {
        end_piece(&mut snapshot, &mut piece, &mut report, pace)?;
    }
    let mut words = vec![FORMAT];
    words.extend_from_slice(&frozen.version.0.to_le_bytes());
    words.extend_from_slice(&report.rows.to_le_bytes());
    snapshot.finish(&words)?;
    Ok(Some(report))
}

fn end_piece(
    snapshot: &mut NewSnapshot<'_>,
    piece: &mut Vec<u8>,
    report: &mut SnapshotReport,
    pace: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    pace(piece.len() as u64)?;
    snapshot.push(piece)?;
    report.bytes += piece.len() as u64;
    piece.truncate(1);
    Ok(())
}

fn push_row(piece: &mut Vec<u8>, key: &[u8], row: &Row) {
    let key_len = u16::try_from(key.len()).expect("keys are at most KEY_LEN_MAX bytes");
    let value_len = u32::try_from(row.value.len()).expect("values are at most VALUE_LEN_MAX bytes");
    piece.extend_from_slice(&key_len.to_le_bytes());
    piece.extend_from_slice(&value_len.to_le_bytes());
    piece.extend_from_slice(&row.version.0.to_le_bytes());
    piece.extend_from_slice(key);
    piece.extend_from_slice(&row.value);
}

/// The rows of a piece, without copying.
///
/// Errors: [`Error::Malformed`].
pub(crate) fn decode_rows(piece: &Bytes) -> Result<Vec<(Bytes, Row)>> {
    let mut rest = piece.clone();
    if rest.is_empty() || rest.get_u8() != FORMAT {
        return Err(malformed("its format is of a later release"));
    }
    let mut rows = Vec::new();
    while !rest.is_empty() {
        if rest.len() < ROW_HEAD_LEN {
            return Err(malformed("it ends early"));
        }
        let (key_len, value_len) = (usize::from(rest.get_u16_le()), rest.get_u32_le() as usize);
        let version = Version(rest.get_u64_le());
        if key_len > KEY_LEN_MAX || value_len > VALUE_LEN_MAX {
            return Err(malformed("a row in it is too long"));
        }
        if rest.len() < key_len + value_len {
            return Err(malformed("it ends early"));
        }
        let key = rest.split_to(key_len);
        let value = rest.split_to(value_len);
        rows.push((key, Row { version, value }));
    }
    Ok(rows)
}

/// The version that an end says, and how many rows there are.
///
/// Errors: [`Error::Malformed`].
pub(crate) fn decode_words(words: &Bytes) -> Result<(Version, u64)> {
    let mut rest = words.clone();
    if rest.len() != 17 || rest.get_u8() != FORMAT {
        return Err(malformed("its end is of a later release"));
    }
    Ok((Version(rest.get_u64_le()), rest.get_u64_le()))
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "snapshot of the index",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(rows in rows()) {
            let piece = encode(&rows);
            prop_assert_eq!(decode_rows(&piece).unwrap(), rows);
        }

        #[test]
        fn damaged_rows_are_refused_or_read(rows in rows(), cut in 0.0..1.0, flip in any::<(u16, u8)>()) {
            let mut bytes = encode(&rows).to_vec();
            let at = usize::from(flip.0) % bytes.len();
            bytes[at] ^= flip.1;
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            if let Err(error) = decode_rows(&Bytes::from(bytes)) {
                let malformed = matches!(error, Error::Malformed { .. });
                prop_assert!(malformed);
            }
        }
    }

    fn encode(rows: &[(Bytes, Row)]) -> Bytes {
        let mut piece = vec![FORMAT];
        rows.iter().for_each(|(key, row)| push_row(&mut piece, key, row));
        Bytes::from(piece)
    }

    fn rows() -> impl Strategy<Value = Vec<(Bytes, Row)>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
        let row = (any::<u64>(), bytes()).prop_map(|(version, value)| Row {
            version: Version(version),
            value,
        });
        prop::collection::vec((bytes(), row), 0..6)
    }
}
