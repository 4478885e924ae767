//! The rows in and out of snapshots: a view of one moment that knows where the log stood, and rows made anew from pieces.
//!
//! While rows are made anew the watermark says that no commit has been applied, so that a crash in the middle has it begun again.

use cairn_store::{Restore, Watermark};
use rocksdb::{IteratorMode, WriteBatch};

use super::{ENGINE, ROWS, RocksEngine, RocksLog, RocksSnapshot, VERSION, WATERMARK, encode_watermark};
use crate::database::Frozen;
use crate::kv::{KEY_LEN_MAX, Version};
use crate::sealed::{decode_rows, decode_words};
use crate::{Error, Result};

impl RocksEngine {
    pub(super) fn frozen(&self) -> Option<Frozen<'_>> {
        if self.log == RocksLog::Own {
            return None;
        }
        // Whoever writes holds it.
        let applied = self.applied();
        let rows = RocksSnapshot {
            engine: self,
            snapshot: self.db.snapshot(),
        };
        Some(Frozen {
            rows: Box::new(rows),
            watermark: *applied,
            version: Version(self.version.load(std::sync::atomic::Ordering::Acquire)),
        })
    }

    pub(super) fn restore_step(&self, step: Restore) -> Result<()> {
        let mut applied = self.applied();
        let rows = self.family(ROWS);
        let mut batch = WriteBatch::default();
        let mut version = None;
        let mut watermark = *applied;
        match step {
            Restore::Begin => {
                if self.db.iterator_cf(rows, IteratorMode::Start).next().is_some() {
                    batch.delete_range_cf(rows, &[][..], &[0xff; KEY_LEN_MAX + 1][..]);
                }
                (version, watermark.commit) = (Some(Version::default()), 0);
            }
            Restore::Rows(piece) => {
                for (key, row) in decode_rows(&piece)? {
                    batch.put_cf(rows, key, [&row.version.0.to_be_bytes()[..], &row.value].concat());
                }
            }
            Restore::End { commit, words } => {
                let (last, count) = decode_words(&words)?;
                if self.count_rows()? != count {
                    return Err(Error::Malformed {
                        what: "snapshot of the index",
                        reason: "it has other rows than it says",
                    });
                }
                (version, watermark.commit) = (Some(last), commit);
            }
        }
        if let Some(version) = version {
            batch.put_cf(self.family(ENGINE), VERSION, version.0.to_be_bytes());
            self.put_watermark(&mut batch, watermark);
        }
        let written = self.db.write_opt(batch, &self.log.write_options());
        written.map_err(|source| self.failed("write", source))?;
        if let Some(version) = version {
            self.version.store(version.0, std::sync::atomic::Ordering::Release);
            *applied = watermark;
        }
        Ok(())
    }

    fn put_watermark(&self, batch: &mut WriteBatch, watermark: Watermark) {
        batch.put_cf(self.family(ENGINE), WATERMARK, encode_watermark(watermark));
    }

    fn count_rows(&self) -> Result<u64> {
        let mut count = 0;
        let mut rows = self.db.raw_iterator_cf(self.family(ROWS));
        rows.seek_to_first();
        while rows.valid() {
            count += 1;
            rows.next();
        }
        rows.status().map_err(|source| self.failed("count rows", source))?;
        Ok(count)
    }
}
