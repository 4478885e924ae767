//! Sharing blocks between files where the file system can (btrfs, XFS, bcachefs).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    len: u64,
    target_offset: u64,
}

/// Unit in which ranges are shared; every file system that can share uses blocks of this size or a divisor of it.
pub(super) const BLOCK_LEN: u64 = 4096;

/// Makes `target[target_offset..][..len]` share the blocks of `source[source_offset..][..len]`.
///
/// Offsets and length are multiples of [`BLOCK_LEN`]. Errors: the system's; `EOPNOTSUPP`, `EXDEV`, `EINVAL` and `ENOTTY` mean
/// that these two files cannot share.
#[allow(unsafe_code)]
pub(super) fn clone_range(
    source: &File,
    source_offset: u64,
    target: &File,
    target_offset: u64,
    len: u64,
) -> Result<(), Errno> {
    const FICLONERANGE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<CloneRange>(0x94, 13);
    let range = CloneRange {
        source: i64::from(source.as_raw_fd()),
        source_offset,
        len,
        target_offset,
    };
    // SAFETY: FICLONERANGE reads one `file_clone_range`, which `range` is; both descriptors are open for the call.
    unsafe {
        let call = rustix::ioctl::Setter::<FICLONERANGE, CloneRange>::new(range);
        rustix::ioctl::ioctl(target.as_fd(), call)
    }
}
