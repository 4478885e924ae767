//! Equal files as links to one: the archive has no record for it, so content and metadata tell.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use cairn_formats::{Metadata, Node};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Longest path that the system takes in one call.
const PATH_LEN_MAX: usize = 4000;

/// What tells equal contents, gathered as they come.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkKey(Sha256);

impl LinkKey {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// Files that others may become links to.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<[u8; 32], Vec<First>>);

#[derive(Debug)]
struct First {
    metadata: Metadata,
    device: u64,
    inode: u64,
    /// Below the root.
    path: Vec<u8>,
}

impl Links {
    /// Makes a finished file a link to an earlier equal one; remembers it if it is the first. Whether it became one.
    ///
    /// - `fd`: the file, `name` its name in `parent`, `path` its path below `root`.
    /// - Errors: the system's; the file is as it was.
    #[expect(
        clippy::too_many_arguments,
        reason = "called once; each is a part of where the file is"
    )]
    pub(super) fn link(
        &mut self,
        key: LinkKey,
        node: &Node,
        fd: BorrowedFd<'_>,
        root: &OwnedFd,
        parent: &OwnedFd,
        name: &CStr,
        path: &[u8],
    ) -> Result<bool, Errno> {
        let equal = self.0.entry(key.0.finalize().into()).or_default();
        let own = rustix::fs::fstat(fd)?;
        for first in equal.iter().filter(|first| first.metadata == node.metadata) {
            if (first.device, first.inode) == (own.st_dev, own.st_ino) {
                return Ok(true);
            }
            let temporary = super::restore::temporary_name();
            match rustix::fs::linkat(root, &first.path[..], parent, &temporary, AtFlags::empty()) {
                Ok(()) => {}
                // Full, or moved away by somebody: the next one, else the file stays its own.
                Err(Errno::MLINK | Errno::NOENT | Errno::XDEV | Errno::PERM) => continue,
                Err(error) => return Err(error),
            }
            let made = rustix::fs::statat(parent, &temporary, AtFlags::SYMLINK_NOFOLLOW);
            let is_first = made.is_ok_and(|made| (made.st_dev, made.st_ino) == (first.device, first.inode));
            let renamed = if is_first {
                rustix::fs::renameat(parent, &temporary, parent, name)
            } else {
                Err(Errno::STALE)
            };
            if renamed.is_err() {
                let _ = rustix::fs::unlinkat(parent, &temporary, AtFlags::empty());
            }
            return renamed.map(|()| true);
        }
        if path.len() <= PATH_LEN_MAX {
            equal.push(First {
                metadata: node.metadata.clone(),
                device: own.st_dev,
                inode: own.st_ino,
                path: path.to_owned(),
            });
        }
        Ok(false)
    }
}
