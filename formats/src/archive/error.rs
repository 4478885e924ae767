//! What is wrong with an archive, and where.

/// A rule of the format that an archive, or what was to become one, breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad archive at byte {offset}, entry {entry:?}: {rule}")]
pub struct ArchiveError {
    /// Offset in the archive.
    pub offset: u64,
    /// Path of the entry at hand, `.` for the root; bytes that are not UTF-8 are replaced.
    pub entry: String,
    /// The rule.
    pub rule: &'static str,
}

/// The path of the entry at hand: names, joined, with the way back.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryPath {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl EntryPath {
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.ends.push(self.bytes.len());
        if !self.bytes.is_empty() {
            self.bytes.push(b'/');
        }
        self.bytes.extend_from_slice(name);
    }

    pub(crate) fn pop(&mut self) {
        if let Some(end) = self.ends.pop() {
            self.bytes.truncate(end);
        }
    }

    pub(crate) fn error(&self, offset: u64, rule: &'static str) -> ArchiveError {
        /// Bytes of a path that a message shows.
        const SHOWN: usize = 1024;
        let entry = match self.bytes.as_slice() {
            [] => ".".to_owned(),
            long if long.len() > SHOWN => {
                format!("…{}", String::from_utf8_lossy(&long[long.len() - SHOWN..]))
            }
            short => String::from_utf8_lossy(short).into_owned(),
        };
        ArchiveError { offset, entry, rule }
    }
}
