//! Entries removed with all that is below them, by handles: no link is followed, no depth is too deep for the stack.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

const LISTING_LEN: usize = 32 << 10;

/// Removes an entry of a folder. Errors: the system's; what was removed until then is gone.
pub(super) fn remove_all(folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let mut open = vec![(name.to_owned(), open_folder(folder, name)?, None::<Vec<CString>>)];
    while let Some((_, fd, names)) = open.last_mut() {
        let names = match names {
            Some(names) => names,
            None => names.insert(names_of(fd)?),
        };
        match names.pop() {
            Some(name) => match rustix::fs::unlinkat(&*fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = open_folder(fd, &name)?;
                    open.push((name, below, None));
                }
                Err(error) => return Err(error),
            },
            None => {
                let Some((name, _, _)) = open.pop() else { break };
                let parent = open.last().map_or(folder, |(_, fd, _)| fd);
                rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

fn open_folder(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, how, Mode::empty()) {
        // It could not be unlinked, and it is no folder: the reason was another one.
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Errno::PERM),
        result => result,
    }
}

/// The names in a folder.
pub(super) fn names_of(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    rustix::fs::seek(folder, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); LISTING_LEN];
    let mut listing = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
