//! An inode as an archive has it.

use bytes::Bytes;

use super::node::is_owner_name;
use crate::FeatureFlags;

const KIND_MASK: u32 = 0o170_000;
const PERMISSIONS: u32 = 0o7777;

/// One inode: what is kept about it, and what kind of thing it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Owner, times and the like.
    pub metadata: Metadata,
    /// The kind. Agrees with the mode.
    pub content: Content,
}

/// What is kept about an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Kind (`0o170000`) and permissions (`0o7777`), as in `stat`.
    pub mode: u32,
    /// Attribute bits (chattr, FAT, subvolume) that are set, by the bits of [`FeatureFlags`]; regular files and directories only.
    pub attributes: u64,
    /// Numeric owner; 0 when it is not kept.
    pub uid: u32,
    /// Numeric group; 0 when it is not kept.
    pub gid: u32,
    /// Time of last modification, nanoseconds since 1970; 0 when it is not kept. casync has no times before 1970.
    pub mtime: i128,
    /// Name of the owner, absent for root.
    pub user: Option<Bytes>,
    /// Name of the group, absent for root.
    pub group: Option<Bytes>,
    /// Extended attributes, by rising name.
    pub xattrs: Vec<Xattr>,
    /// Access and default ACL, but for what the mode says.
    pub acl: Acl,
    /// SELinux label, without its NUL.
    pub selinux: Option<Bytes>,
    /// Value of `security.capability`.
    pub fcaps: Option<Bytes>,
    /// Quota project; never 0.
    pub quota_project: Option<u32>,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Name, like `user.origin`; 1 to 255 bytes, no NUL.
    pub name: Bytes,
    /// Value, up to 64 KiB.
    pub value: Bytes,
}

/// The ACL entries of an inode that its mode does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// Named users.
    pub users: Vec<AclEntry>,
    /// Named groups.
    pub groups: Vec<AclEntry>,
    /// Permissions of the owning group when a mask is there (which then is the mode's group part).
    pub group_obj: Option<u8>,
    /// Base entries of a directory's default ACL.
    pub default: Option<AclDefault>,
    /// Named users of the default ACL.
    pub default_users: Vec<AclEntry>,
    /// Named groups of the default ACL.
    pub default_groups: Vec<AclEntry>,
}

/// A named user or group of an ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Numeric id; 0 when numeric ids are not kept.
    pub id: u32,
    /// Name; absent for root and for ids without a name.
    pub name: Option<Bytes>,
    /// 4 read, 2 write, 1 execute.
    pub permissions: u8,
}

/// The base entries of a default ACL; permissions as in [`AclEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclDefault {
    /// Of the owner.
    pub user_obj: u8,
    /// Of the owning group.
    pub group_obj: u8,
    /// Of everyone else.
    pub other: u8,
    /// Mask, if there is one.
    pub mask: Option<u8>,
}

/// What kind of inode it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory; its entries follow.
    Directory,
    /// A regular file; its bytes follow.
    File {
        /// How many bytes.
        len: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, any 1 to 4095 bytes without NUL.
        target: Bytes,
    },
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A FIFO.
    Fifo,
    /// An AF_UNIX socket.
    Socket,
}

/// Numbers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Major number, below 4096.
    pub major: u32,
    /// Minor number, below 1048576.
    pub minor: u32,
}

impl Device {
    /// Whether the numbers are such as the format takes.
    pub(super) fn is_good(self) -> bool {
        self.major < 4096 && self.minor < 1 << 20
    }
}

impl Content {
    /// The kind's bits of a mode.
    pub fn kind_bits(&self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::File { .. } => 0o100_000,
            Self::Symlink { .. } => 0o120_000,
            Self::CharacterDevice(_) => 0o020_000,
            Self::BlockDevice(_) => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    /// Whether archives with these flags have such inodes.
    pub fn is_kept_by(&self, flags: FeatureFlags) -> bool {
        match self {
            Self::Directory | Self::File { .. } => true,
            Self::Symlink { .. } => flags.has(FeatureFlags::SYMLINKS),
            Self::CharacterDevice(_) | Self::BlockDevice(_) => flags.has(FeatureFlags::DEVICE_NODES),
            Self::Fifo => flags.has(FeatureFlags::FIFOS),
            Self::Socket => flags.has(FeatureFlags::SOCKETS),
        }
    }
}

impl Acl {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Node {
    /// The same inode with only what these flags keep, in the form in which casync keeps it: the rest is zero or absent.
    ///
    /// - Names of users and attributes that the format does not take are left out too (casync's `root`, attributes outside
    ///   `user.` and `trusted.`, except in desync's form, which takes all).
    pub fn reduced(mut self, flags: FeatureFlags) -> Self {
        let has = |bits| flags.has(bits);
        let desync = flags.is_desync_archive();
        let meta = &mut self.metadata;
        let kind = self.content.kind_bits();
        let (is_file, is_directory) = (kind == 0o100_000, kind == 0o040_000);
        let is_symlink = kind == 0o120_000;

        meta.mode = kind
            | if is_symlink && !desync {
                0o777
            } else if has(FeatureFlags::PERMISSIONS | FeatureFlags::ACL) {
                meta.mode & PERMISSIONS
            } else {
                let executable = if is_directory { 0o111 } else { 0 };
                let writable = !has(FeatureFlags::READ_ONLY) || meta.mode & 0o222 != 0;
                executable | if writable { 0o666 } else { 0o444 }
            };
        meta.attributes &= if is_file || is_directory {
            flags.0 & FeatureFlags::ATTRIBUTES
        } else {
            0
        };
        if !has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT) {
            (meta.uid, meta.gid) = (0, 0);
        }
        meta.mtime = match flags.time_granularity() {
            Some(granularity) => meta.mtime - meta.mtime.rem_euclid(i128::from(granularity)),
            None => 0,
        };
        for name in [&mut meta.user, &mut meta.group] {
            *name = name
                .take()
                .filter(|name| has(FeatureFlags::USER_NAMES) && is_owner_name(name));
        }
        if !has(FeatureFlags::XATTRS) || is_symlink && !desync {
            meta.xattrs.clear();
        }
        if !desync {
            meta.xattrs
                .retain(|xattr| xattr.name.starts_with(b"user.") || xattr.name.starts_with(b"trusted."));
        }
        meta.xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        if !has(FeatureFlags::ACL) || is_symlink {
            meta.acl = Acl::default();
        }
        if !is_directory {
            meta.acl.default = None;
            meta.acl.default_users.clear();
            meta.acl.default_groups.clear();
        }
        if !has(FeatureFlags::SELINUX) {
            meta.selinux = None;
        }
        if !has(FeatureFlags::FCAPS) || !is_file {
            meta.fcaps = None;
        }
        if !has(FeatureFlags::QUOTA_PROJECT_ID) || !(is_file || is_directory) {
            meta.quota_project = None;
        }
        self
    }
}

/// The kind's bits of a mode.
pub(super) fn kind_of(mode: u32) -> u32 {
    mode & KIND_MASK
}
