//! What lies in a flat store: every chunk file, a folder at a time.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use cairn_formats::{ChunkForm, ChunkId};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::FlatStore;
use super::path::{TEMPORARY, parse};
use crate::Result;

/// A chunk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// The chunk.
    pub id: ChunkId,
    /// The form that its name tells.
    pub form: ChunkForm,
}

impl FlatStore {
    /// Deletes temporary files that nobody has touched for `age`: what killed writers left, of this tool and of desync.
    ///
    /// Returns how many there were. Errors: a folder cannot be listed or changed.
    pub(super) fn remove_stale(&self, age: Duration) -> Result<u64> {
        let mut removed = 0;
        self.for_each_folder(&mut |folder| {
            let now = SystemTime::now();
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                if !entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
                    continue;
                }
                let stat = match statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    stat => stat?,
                };
                let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
                if now.duration_since(changed).is_ok_and(|since| since >= age) {
                    match unlinkat(&folder, entry.file_name(), AtFlags::empty()) {
                        Ok(()) => removed += 1,
                        Err(Errno::NOENT) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Calls `visit` for every chunk file, in no order but with a chunk's two forms one after the other, until it answers an
    /// error, which is returned. Files of other names, temporary ones too, are passed over. Memory: one folder's names.
    ///
    /// Errors: a folder cannot be listed.
    pub fn for_each_file(&self, visit: &mut dyn FnMut(StoredChunk) -> Result<()>) -> Result<()> {
        let mut chunks = Vec::new();
        let mut refused = None;
        let mut ended = false;
        self.for_each_folder(&mut |folder| {
            if ended {
                return Ok(());
            }
            chunks.clear();
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let is_file = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
                match parse(entry.file_name().to_bytes(), self.options.sealing.suffix()) {
                    Some((id, form)) if is_file => chunks.push(StoredChunk { id, form }),
                    _ => {}
                }
            }
            chunks.sort_unstable_by_key(|chunk| (chunk.id, chunk.form == ChunkForm::Plain));
            if let Err(error) = chunks.iter().try_for_each(|&chunk| visit(chunk)) {
                (refused, ended) = (Some(error), true);
            }
            Ok(())
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Calls `visit` for every prefix folder that can be opened.
    fn for_each_folder(&self, visit: &mut dyn FnMut(OwnedFd) -> rustix::io::Result<()>) -> Result<()> {
        let mut all = || {
            for entry in Dir::read_from(&self.root)? {
                let entry = entry?;
                let prefix = entry.file_name().to_bytes();
                if prefix.len() != 4 || !prefix.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
                    continue;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                match openat(&self.root, entry.file_name(), flags, Mode::empty()) {
                    Ok(folder) => visit(folder)?,
                    // Deleted meanwhile, or no folder at all.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        all().map_err(|error| self.unavailable("list its chunks", io::Error::from(error)))
    }
}
