//! The archive of something that is walked, pulled into whatever buffer its reader has.
//!
//! Hot path: records are copied once, a file's bytes are read into the reader's own buffer. Not here: what is walked, and in
//! which order (`walk.rs` for folders, `from_tar.rs` for tar files).

use std::io::{self, Read};

use super::note::Notes;
use crate::engine::{Error, Result};

/// Goes through a tree in the order of its archive.
pub(crate) trait Walk: Send {
    /// Goes on by an entry, or out of a folder, and appends the records of that; none for what is left out. `false`: all is done.
    ///
    /// Errors: the entry that cannot be read or kept.
    fn step(&mut self, records: &mut Vec<u8>) -> Result<bool>;

    /// Reads on in the file that was entered last; `None` when it has no more bytes.
    ///
    /// Errors: it cannot be read, or ends before the length that its record announced.
    fn read_file(&mut self, room: &mut [u8]) -> Result<Option<usize>>;

    /// What was left out or changed although the flags keep it.
    fn take_notes(&mut self) -> Notes;
}

/// The archive of what is walked, to be read.
pub(crate) struct ArchiveReader<W> {
    pub(super) walk: W,
    /// Records that were made last, and how much of them was read.
    pub(super) records: Vec<u8>,
    records_read: usize,
    failure: Option<Error>,
}

/// An archive that is pulled, whatever it is made of.
pub(crate) trait TreeSource: Read + Send {
    /// Fills `buffer`; fewer bytes only at the end of the archive. Errors: those of the walk.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// What was left out or changed although the flags keep it.
    fn take_notes(&mut self) -> Notes;

    /// Why reading failed; what `Read` told is only a shadow of it.
    fn take_failure(&mut self) -> Option<Error>;
}

impl<W: Walk> ArchiveReader<W> {
    /// Starts with the records of the root.
    pub(super) fn new(walk: W, records: Vec<u8>) -> Self {
        Self {
            walk,
            records,
            records_read: 0,
            failure: None,
        }
    }
}

impl<W: Walk> TreeSource for ArchiveReader<W> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let room = &mut buffer[filled..];
            if self.records_read < self.records.len() {
                let records = &self.records[self.records_read..];
                let len = records.len().min(room.len());
                room[..len].copy_from_slice(&records[..len]);
                self.records_read += len;
                filled += len;
            } else if let Some(read) = self.walk.read_file(room)? {
                filled += read;
            } else {
                self.records.clear();
                self.records_read = 0;
                if !self.walk.step(&mut self.records)? {
                    break;
                }
            }
        }
        Ok(filled)
    }

    fn take_notes(&mut self) -> Notes {
        self.walk.take_notes()
    }

    fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

impl<W: Walk> Read for ArchiveReader<W> {
    /// As [`TreeSource::fill`]; the error itself is kept for [`TreeSource::take_failure`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer).map_err(|error| {
            let words = error.to_string();
            self.failure.get_or_insert(error);
            io::Error::other(words)
        })
    }
}
