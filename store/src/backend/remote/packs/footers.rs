//! Footers of remote packs, kept in a folder of this machine, so that opening a store again costs a listing alone.
//!
//! A file is named as its pack and holds the pack's footer as it stands there; its own check sum and the digest in the name
//! tell whether it is whole. What cannot be kept or read is passed by.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cairn_formats::{PACK_TAIL_LEN, PackFooter, PackTail, PackUuid};

/// A folder of footers of one store.
#[derive(Debug)]
pub(super) struct Footers {
    folder: PathBuf,
}

impl Footers {
    /// - `cache`: a folder for all stores; made when the first footer comes.
    pub(super) fn new(cache: &Path, store: PackUuid) -> Self {
        Self {
            folder: cache.join(store.to_string()).join("footers"),
        }
    }

    fn path(&self, pack: &str) -> PathBuf {
        let name = pack.rsplit('/').next().unwrap_or(pack);
        self.folder.join(name).with_extension("footer")
    }

    /// The footer of a pack of so many bytes, if it is here and whole.
    pub(super) fn get(&self, pack: &str, len: u64, root: &[u8; 32]) -> Option<PackFooter> {
        let bytes = fs::read(self.path(pack)).ok()?;
        decode_footer(&bytes, len, root).ok()
    }

    /// Keeps a footer.
    pub(super) fn put(&self, pack: &str, bytes: &[u8]) {
        // A cache that cannot be filled costs a request, next time.
        let _ = keep_file(&self.path(pack), &[bytes]);
    }

    /// Removes those of packs that are not there any more.
    pub(super) fn keep(&self, listed: &HashSet<&str>) {
        let kept: HashSet<PathBuf> = listed.iter().map(|pack| self.path(pack)).collect();
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "footer") && !kept.contains(&path) {
                // As above.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Puts a file of a cache in place, its folder too. Nothing is synced: after a power cut it may be torn, which its digest tells.
pub(super) fn keep_file(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".tmp-{:016x}", fastrand::u64(..)));
    let written = (|| {
        let mut file = fs::File::create_new(&temporary)?;
        pieces
            .iter()
            .try_for_each(|piece| io::Write::write_all(&mut file, piece))?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Perhaps not there at all; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads the end of a pack.
///
/// - `bytes`: from somewhere before the footer's beginning to the end of the pack.
/// - `len`: bytes of the pack; `root`: the digest in its name.
/// - Errors: a word on what is wrong; [`Short`](FooterFault::Short): the footer begins before `bytes`.
pub(super) fn decode_footer(bytes: &[u8], len: u64, root: &[u8; 32]) -> Result<PackFooter, FooterFault> {
    let bad = |words: &str| FooterFault::Bad(words.to_owned());
    let tail = bytes.len().checked_sub(PACK_TAIL_LEN).map(|at| &bytes[at..]);
    let Some(tail) = tail.and_then(|tail| PackTail::decode(len, tail)) else {
        return Err(bad("it does not end as a sealed pack does"));
    };
    if tail.root != *root {
        return Err(bad("its footer has another digest than its name"));
    }
    let footer_len = usize::try_from(len - tail.start).map_err(|_| bad("its footer is too long"))?;
    let Some(at) = bytes.len().checked_sub(footer_len) else {
        return Err(FooterFault::Short { start: tail.start });
    };
    PackFooter::decode(&tail, &bytes[at..]).map_err(|error| FooterFault::Bad(error.to_string()))
}

/// Why the end of a pack gives no footer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FooterFault {
    /// It begins here, before the bytes given.
    Short {
        /// Offset in the pack.
        start: u64,
    },
    /// In words.
    Bad(String),
}
