//! Attribute bits of the system (`FS_*_FL`, FAT's `ATTR_*`) and those that archives keep.

use cairn_formats::FeatureFlags;

/// Bits of ENTRY with those of linux/fs.h.
const CHATTR: [(u64, u32); 10] = [
    (FeatureFlags::FLAG_APPEND, 0x20),
    (FeatureFlags::FLAG_NOATIME, 0x80),
    (FeatureFlags::FLAG_COMPR, 0x04),
    (FeatureFlags::FLAG_NOCOW, 0x0080_0000),
    (FeatureFlags::FLAG_NODUMP, NODUMP),
    (FeatureFlags::FLAG_DIRSYNC, 0x0001_0000),
    (FeatureFlags::FLAG_IMMUTABLE, 0x10),
    (FeatureFlags::FLAG_SYNC, 0x08),
    (FeatureFlags::FLAG_NOCOMP, 0x0400),
    (FeatureFlags::FLAG_PROJINHERIT, PROJECT_INHERITED),
];
/// Bits of ENTRY with those of linux/msdos_fs.h.
const FAT: [(u64, u32); 3] = [
    (FeatureFlags::FLAG_HIDDEN, 2),
    (FeatureFlags::FLAG_SYSTEM, 4),
    (FeatureFlags::FLAG_ARCHIVE, 32),
];

/// `FS_NODUMP_FL`.
pub(super) const NODUMP: u32 = 0x40;
/// `FS_IMMUTABLE_FL` and `FS_APPEND_FL`: an inode that has one takes no more changes.
pub(super) const LOCKING: u32 = 0x30;
/// Bits that what is made in a folder takes from it, on some file system (ext4's list, and btrfs's).
pub(super) const INHERITED: u32 = 0x2081_04cd;
/// `FS_PROJINHERIT_FL`.
pub(super) const PROJECT_INHERITED: u32 = 0x2000_0000;
/// All chattr bits that archives may keep.
pub(super) const CHATTR_KEPT: u64 = all(&CHATTR);
/// All FAT bits that archives may keep.
pub(super) const FAT_KEPT: u64 = all(&FAT);

const fn all(table: &[(u64, u32)]) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < table.len() {
        bits |= table[at].0;
        at += 1;
    }
    bits
}

/// ENTRY's bits for attribute bits.
pub(super) fn from_chattr(attributes: u32) -> u64 {
    kept(&CHATTR, attributes)
}

/// Attribute bits for ENTRY's.
pub(super) fn to_chattr(bits: u64) -> u32 {
    put(&CHATTR, bits)
}

/// ENTRY's bits for FAT attributes.
pub(super) fn from_fat(attributes: u32) -> u64 {
    kept(&FAT, attributes)
}

/// FAT attributes for ENTRY's bits.
pub(super) fn to_fat(bits: u64) -> u32 {
    put(&FAT, bits)
}

fn kept(table: &[(u64, u32)], attributes: u32) -> u64 {
    let set = table.iter().filter(|(_, attribute)| attributes & attribute != 0);
    set.fold(0, |bits, (bit, _)| bits | bit)
}

fn put(table: &[(u64, u32)], bits: u64) -> u32 {
    let set = table.iter().filter(|(bit, _)| bits & bit != 0);
    set.fold(0, |attributes, (_, attribute)| attributes | attribute)
}
