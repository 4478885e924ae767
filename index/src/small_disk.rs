//! A disk that is soon full, for tests: a file system in memory. Mounting one takes root, which the tests have.

use std::io;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system, gone with this.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn new(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
        let mounted = mount.arg(folder.path()).status().unwrap();
        assert!(mounted.success(), "a tmpfs is needed: run the tests as root");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a file of all the room there is.
    pub(crate) fn fill(&self, name: &str) {
        let mut file = std::fs::File::create(self.path().join(name)).unwrap();
        let filled = io::copy(&mut io::repeat(7), &mut file).unwrap_err();
        assert_eq!(filled.kind(), io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is open in it goes on working; the folder's own removal tells if this failed.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
