//! Files of indexes: mapped for reading, without a name until they are whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

/// Maps a regular file for reading.
pub(crate) fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private to us and read-only, so nothing in this process writes through it. Another process that
    // cuts the file short in place would make reads fault (SIGBUS), not return bad memory; bytes that it changes are data
    // from outside like any other and are checked where they are parsed. Our own writers replace files, never rewrite them.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

/// A new file in `folder` that vanishes when it is closed, for reading and writing.
pub(crate) fn nameless_file(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(folder, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok(file.into()),
        // The file system cannot do it: take the name away by hand.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = temporary_name(folder);
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            fs::remove_file(path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a file in place of `path`, or where nothing was: whole and durable when this returns, else not at all. A reader sees
/// the old file or the new one, and a process that is killed meanwhile leaves nothing behind where the file system can keep
/// a file without a name.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = temporary_name(folder);
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let nameless = open(folder, flags, Mode::from_raw_mode(0o666)).map(File::from);
    let written = (|| {
        let mut file = match &nameless {
            Ok(file) => file,
            Err(_) => &File::create_new(&temporary)?,
        };
        file.write_all(bytes)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.sync_all()?;
        if let Ok(file) = &nameless {
            let open_file = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, open_file, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
        }
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Not there if it got no name or was renamed already; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn temporary_name(folder: &Path) -> PathBuf {
    folder.join(format!(".tmp-index{:016x}", fastrand::u64(..)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn a_nameless_file_is_written_read_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = nameless_file(folder.path()).unwrap();
        file.write_all(b"bytes").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(&map_file(&file).unwrap()[..], b"bytes");
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
    }
}
