//! What an archive keeps of one inode, read from the disk.
//!
//! Hot path: a file without extended attributes costs one call for them, one for the attribute bits and one for the quota
//! project, each only if the feature flags keep it. Keep out: allocations for what is not there, paths.
//!
//! casync's choice of what is kept: `user.*` and `trusted.*` attributes of files and folders, ACLs and labels in records of
//! their own, capabilities of files, attribute bits and quota projects of files and folders.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use bytes::Bytes;
use cairn_formats::{FeatureFlags, Metadata, Xattr};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::acl::{self, List};
use super::features;
use super::system::{self, Owner, Owners, magic};

/// Longest list of attribute names and longest value that Linux has (linux/limits.h).
pub(super) const XATTR_LEN_MAX: usize = 65536;

/// What failed, for `Error::File`.
pub(super) type Step<T> = Result<T, (&'static str, io::Error)>;

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> (&'static str, io::Error) {
    move |error| (action, error.into())
}

/// How an inode is reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A folder or file, open.
    Open(BorrowedFd<'a>),
    /// Anything else, which opening could wake: by its folder and name.
    Named(BorrowedFd<'a>, &'a CStr),
}

/// Reads metadata for archives of one set of features.
pub(super) struct MetadataReader {
    flags: FeatureFlags,
    owners: Owners,
    names: Box<[u8]>,
    value: Box<[u8]>,
}

impl MetadataReader {
    pub(super) fn new(flags: FeatureFlags) -> Self {
        Self {
            flags,
            owners: Owners::default(),
            names: vec![0; XATTR_LEN_MAX].into(),
            value: vec![0; XATTR_LEN_MAX].into(),
        }
    }

    /// Everything that the features keep of an inode.
    ///
    /// - `magic`: the kind of its file system.
    /// - `attributes`: its attribute bits, if they are known.
    pub(super) fn read(
        &mut self,
        place: Place<'_>,
        stat: &Stat,
        magic: u64,
        attributes: Option<u32>,
    ) -> Step<Metadata> {
        let mut metadata = self.plain(stat)?;
        if let Place::Open(fd) = place {
            metadata.attributes = self.attributes(fd, stat, magic, attributes)?;
            self.extended(fd, stat, &mut metadata)?;
            if self.flags.has(FeatureFlags::QUOTA_PROJECT_ID) && matches!(magic, magic::EXT | magic::XFS | magic::FUSE)
            {
                let project = system::quota_project(fd).map_err(failed("read the quota project of"))?;
                metadata.quota_project = (project != 0).then_some(project);
            }
        } else if let Place::Named(folder, name) = place {
            self.special(folder, name, stat, &mut metadata)?;
        }
        Ok(metadata)
    }

    /// What stat(2) tells.
    fn plain(&mut self, stat: &Stat) -> Step<Metadata> {
        let flags = self.flags;
        let mtime = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        let mut metadata = Metadata {
            mode: stat.st_mode,
            // The time before which only desync's archives hold any.
            mtime: if flags.is_desync_archive() { mtime } else { mtime.max(0) },
            ..Metadata::default()
        };
        if flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT) {
            (metadata.uid, metadata.gid) = (stat.st_uid, stat.st_gid);
        }
        if flags.has(FeatureFlags::USER_NAMES) {
            metadata.user = self.owners.name(Owner::User, stat.st_uid);
            metadata.group = self.owners.name(Owner::Group, stat.st_gid);
        }
        Ok(metadata)
    }

    /// ENTRY's attribute bits of a file or folder.
    fn attributes(&self, fd: BorrowedFd<'_>, stat: &Stat, magic: u64, known: Option<u32>) -> Step<u64> {
        let flags = self.flags;
        let mut bits = 0;
        if flags.has(features::CHATTR_KEPT) {
            let attributes = match known {
                Some(attributes) => attributes,
                None => system::attributes(fd).map_err(failed("read the attribute bits of"))?,
            };
            bits |= features::from_chattr(attributes);
        }
        if flags.has(features::FAT_KEPT) && matches!(magic, magic::MSDOS | magic::FUSE) {
            bits |= features::from_fat(system::fat_attributes(fd).map_err(failed("read the FAT attributes of"))?);
        }
        // A subvolume's root has inode 256 (btrfs on-disk format).
        if flags.has(FeatureFlags::SUBVOLUME) && magic == magic::BTRFS && stat.st_ino == 256 && is_folder(stat) {
            let flags = system::subvolume_flags(fd).map_err(failed("read the subvolume flags of"))?;
            bits |= FeatureFlags::SUBVOLUME;
            if flags & system::SUBVOLUME_READ_ONLY != 0 {
                bits |= FeatureFlags::SUBVOLUME_READ_ONLY;
            }
        }
        Ok(bits & flags.0)
    }

    /// Extended attributes of all kinds.
    fn extended(&mut self, fd: BorrowedFd<'_>, stat: &Stat, metadata: &mut Metadata) -> Step<()> {
        let flags = self.flags;
        let any = FeatureFlags::XATTRS | FeatureFlags::FCAPS | FeatureFlags::ACL | FeatureFlags::SELINUX;
        if !flags.has(any) {
            return Ok(());
        }
        let len = match rustix::fs::flistxattr(fd, &mut self.names[..]) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(failed("list the extended attributes of")(error)),
        };
        if len == 0 {
            return Ok(());
        }
        let mut names = std::mem::take(&mut self.names);
        let result = names[..len]
            .split_inclusive(|&byte| byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .try_for_each(|name| self.keep(fd, name, stat, metadata));
        self.names = std::mem::take(&mut names);
        metadata.xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        result
    }

    fn keep(&mut self, fd: BorrowedFd<'_>, name: &CStr, stat: &Stat, metadata: &mut Metadata) -> Step<()> {
        let flags = self.flags;
        let text = name.to_bytes();
        let wanted = match text {
            _ if flags.is_desync_archive() => true,
            b"security.capability" => flags.has(FeatureFlags::FCAPS) && is_file(stat),
            b"security.selinux" => flags.has(FeatureFlags::SELINUX),
            b"system.posix_acl_access" => flags.has(FeatureFlags::ACL),
            b"system.posix_acl_default" => flags.has(FeatureFlags::ACL) && is_folder(stat),
            _ => flags.has(FeatureFlags::XATTRS) && (text.starts_with(b"user.") || text.starts_with(b"trusted.")),
        };
        if !wanted {
            return Ok(());
        }
        let value = match rustix::fs::fgetxattr(fd, name, &mut self.value[..]) {
            Ok(len) => Bytes::copy_from_slice(&self.value[..len]),
            // Gone since it was listed.
            Err(Errno::NODATA) => return Ok(()),
            Err(error) => return Err(failed("read an extended attribute of")(error)),
        };
        match text {
            _ if flags.is_desync_archive() => metadata.xattrs.push(Xattr {
                name: Bytes::copy_from_slice(text),
                value,
            }),
            b"security.capability" => metadata.fcaps = Some(value),
            b"security.selinux" => metadata.selinux = Some(label(value)),
            b"system.posix_acl_access" | b"system.posix_acl_default" => self.keep_acl(text, &value, metadata)?,
            _ => metadata.xattrs.push(Xattr {
                name: Bytes::copy_from_slice(text),
                value,
            }),
        }
        Ok(())
    }

    fn keep_acl(&mut self, attribute: &[u8], value: &[u8], metadata: &mut Metadata) -> Step<()> {
        let Some(list) = List::parse(value) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "the system's ACL has an unknown form");
            return Err(("read the ACL of", error));
        };
        let flags = self.flags;
        let (numbers, names) = (
            flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT),
            flags.has(FeatureFlags::USER_NAMES),
        );
        // Two closures look names up in one table, one after the other.
        let owners = std::cell::RefCell::new(&mut self.owners);
        let keep = |owner: Owner| {
            let owners = &owners;
            move |id: u32| {
                let name = names.then(|| owners.borrow_mut().name(owner, id)).flatten();
                (if numbers { id } else { 0 }, name)
            }
        };
        if attribute == acl::DEFAULT.as_bytes() {
            list.keep_default(&mut metadata.acl, keep(Owner::User), keep(Owner::Group));
        } else {
            list.keep_access(&mut metadata.acl, keep(Owner::User), keep(Owner::Group));
        }
        Ok(())
    }

    /// Symbolic links, devices, FIFOs, sockets: label and ACL, as casync keeps them. Their other attributes cannot be put back
    /// by casync, which fails on them.
    fn special(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &Stat, metadata: &mut Metadata) -> Step<()> {
        let flags = self.flags;
        let acl = flags.has(FeatureFlags::ACL) && !is_link(stat);
        if !acl && !flags.has(FeatureFlags::SELINUX) {
            return Ok(());
        }
        // There is no getxattrat before Linux 6.13; the last component is not followed.
        let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        let mut get = |attribute: &str| match rustix::fs::lgetxattr(&path[..], attribute, &mut self.value[..]) {
            Ok(len) => Ok(Some(Bytes::copy_from_slice(&self.value[..len]))),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(failed("read an extended attribute of")(error)),
        };
        if flags.has(FeatureFlags::SELINUX) {
            metadata.selinux = get("security.selinux")?.map(label);
        }
        if acl && let Some(value) = get(acl::ACCESS)? {
            self.keep_acl(acl::ACCESS.as_bytes(), &value, metadata)?;
        }
        Ok(())
    }
}

/// A label without the NUL that the kernel counts in.
fn label(value: Bytes) -> Bytes {
    match value.last() {
        Some(0) => value.slice(..value.len() - 1),
        _ => value,
    }
}

fn kind(stat: &Stat) -> u32 {
    stat.st_mode & 0o170_000
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    kind(stat) == 0o040_000
}

pub(super) fn is_file(stat: &Stat) -> bool {
    kind(stat) == 0o100_000
}

pub(super) fn is_link(stat: &Stat) -> bool {
    kind(stat) == 0o120_000
}
