//! Metadata put on inodes: owner, mode, attributes, ACL, label, capabilities, bits, times, in the order in which none undoes
//! another. Locks (immutable, append only) are a step of their own, after everything.
//!
//! What is there already is compared first and left alone when it is right. What the system does not take is a note.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use bytes::Bytes;
use cairn_formats::{AclEntry, Content, FeatureFlags, Metadata, Node};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::metadata::{MetadataReader, Place};
use super::note::{Note, Notes};
use super::restore::RestoreOptions;
use super::system::{self, Owner, Owners, magic};
use super::{acl, features};

/// Applies what an archive keeps, as far as the options ask for it.
pub(super) struct Applier {
    options: RestoreOptions,
    flags: FeatureFlags,
    reader: MetadataReader,
    owners: Owners,
    root: bool,
    own: (u32, u32),
    umask: u32,
    owners_left: bool,
}

/// What stat(2) tells of an inode.
#[derive(Clone, Copy, Debug)]
struct Facts {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Nanoseconds since 1970; `None` for what was just made.
    mtime: Option<i128>,
}

impl Facts {
    fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Some(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)),
        }
    }
}

/// One inode to work on.
struct Work<'a> {
    node: &'a Node,
    /// How it is now, as the archive would keep it; `None` for a new one that has nothing yet.
    now: Option<Metadata>,
    path: &'a [u8],
    notes: &'a mut Notes,
}

impl Work<'_> {
    fn note(&mut self, what: &str, error: impl Into<io::Error>) {
        let error = error.into();
        self.notes.push(Note::new(
            self.path,
            format!("its {what} could not be restored: {error}"),
        ));
    }

    fn check<E: Into<io::Error>>(&mut self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.note(what, error);
        }
    }
}

impl Applier {
    pub(super) fn new(options: &RestoreOptions) -> Self {
        let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        let flags = FeatureFlags(0);
        Self {
            options: options.clone(),
            flags,
            reader: MetadataReader::new(flags),
            owners: Owners::default(),
            root: rustix::process::geteuid().is_root(),
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            umask: umask.bits(),
            owners_left: false,
        }
    }

    /// What the archive keeps.
    pub(super) fn start(&mut self, flags: FeatureFlags) {
        self.flags = flags;
        self.reader = MetadataReader::new(flags);
    }

    /// Notes that belong to no single entry.
    pub(super) fn add_general_notes(&mut self, notes: &mut Notes) {
        if std::mem::take(&mut self.owners_left) {
            let what = "owners were not restored: only the super-user can".to_owned();
            notes.push(Note::new(b"", what));
        }
    }

    /// Whether an inode's owner, mode and time are those wanted.
    pub(super) fn agrees(&mut self, stat: &Stat, node: &Node) -> bool {
        let (uid, gid) = self.owner(&node.metadata);
        uid.is_none_or(|uid| uid == stat.st_uid)
            && gid.is_none_or(|gid| gid == stat.st_gid)
            && self.mode(node, false).is_none_or(|mode| mode == stat.st_mode & 0o7777)
            && (self.flags.time_granularity().is_none() || self.has_time(&Facts::of(stat), node.metadata.mtime))
    }

    fn has_time(&self, facts: &Facts, wanted: i128) -> bool {
        let step = i128::from(self.flags.time_granularity().unwrap_or(1));
        facts.mtime.is_some_and(|time| time - time.rem_euclid(step) == wanted)
    }

    /// The owner and group wanted here; `None` where it is nobody's business.
    fn owner(&mut self, metadata: &Metadata) -> (Option<u32>, Option<u32>) {
        if !self.options.same_owner {
            return (None, None);
        }
        let numbers = self.flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT);
        let names = self.flags.has(FeatureFlags::USER_NAMES);
        let by_name = names && !(numbers && self.options.numeric_owner);
        let mut id = |owner: Owner, name: &Option<Bytes>, number: u32| match name {
            Some(name) if by_name => self.owners.id(owner, name).or(numbers.then_some(number)),
            // Without a name it is root's, or its number is all there is.
            _ => (numbers || names).then_some(number),
        };
        let uid = id(Owner::User, &metadata.user, metadata.uid);
        let gid = id(Owner::Group, &metadata.group, metadata.gid);
        (uid, gid)
    }

    /// The mode wanted here; `None` where the one that is there may stay.
    fn mode(&self, node: &Node, fresh: bool) -> Option<u32> {
        let mode = node.metadata.mode & 0o7777;
        if self.flags.has(FeatureFlags::PERMISSIONS | FeatureFlags::ACL) && self.options.same_permissions {
            return Some(mode);
        }
        fresh.then_some(mode & 0o777 & !self.umask)
    }

    /// How an inode is, as the archive would keep it.
    fn read(&mut self, place: Place<'_>, stat: &Stat, magic: u64, content: &Content) -> Option<Metadata> {
        let metadata = self.reader.read(place, stat, magic, None).ok()?;
        let content = content.clone();
        Some(Node { metadata, content }.reduced(self.flags).metadata)
    }

    /// An open file or folder, but for its locks.
    ///
    /// - `fresh`: it was just made and has nothing from elsewhere.
    pub(super) fn file(
        &mut self,
        fd: BorrowedFd<'_>,
        node: &Node,
        fresh: bool,
        magic: u64,
        path: &[u8],
        notes: &mut Notes,
    ) {
        let stat = match rustix::fs::fstat(fd) {
            Ok(stat) => stat,
            Err(error) => {
                notes.push(Note::new(path, format!("its metadata could not be restored: {error}")));
                return;
            }
        };
        let now = if fresh {
            None
        } else {
            self.read(Place::Open(fd), &stat, magic, &node.content)
        };
        self.open_inode(fd, &Facts::of(&stat), now, node, magic, path, notes);
    }

    /// The mode that a new file can be made with, so that it needs no change after: the system leaves it as it is.
    pub(super) fn plain_mode(&self, node: &Node) -> Option<u32> {
        self.mode(node, true).filter(|mode| mode & (0o7000 | self.umask) == 0)
    }

    /// [`Applier::file`] for a file that was just made with its [`Applier::plain_mode`], by whoever runs this: nothing has to be
    /// asked.
    pub(super) fn new_file(
        &mut self,
        fd: BorrowedFd<'_>,
        node: &Node,
        mode: u32,
        magic: u64,
        path: &[u8],
        notes: &mut Notes,
    ) {
        let facts = Facts {
            mode: 0o100_000 | mode,
            uid: self.own.0,
            gid: self.own.1,
            mtime: None,
        };
        self.open_inode(fd, &facts, None, node, magic, path, notes);
    }

    #[expect(clippy::too_many_arguments, reason = "the two forms above are what callers see")]
    fn open_inode(
        &mut self,
        fd: BorrowedFd<'_>,
        facts: &Facts,
        now: Option<Metadata>,
        node: &Node,
        magic: u64,
        path: &[u8],
        notes: &mut Notes,
    ) {
        let mut work = Work { node, now, path, notes };
        let chowned = self.set_owner(&mut work, facts, |uid, gid| rustix::fs::fchown(fd, uid, gid));
        if let Some(mode) = self.mode(node, work.now.is_none())
            && (chowned || mode != facts.mode & 0o7777)
        {
            work.check("mode", rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)));
        }
        if self.options.same_xattrs {
            self.set_xattrs(fd, &mut work);
            let set = |name: &str, value: Option<&[u8]>| match value {
                Some(value) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
                None => rustix::fs::fremovexattr(fd, name),
            };
            self.set_acl(&mut work, facts.mode & 0o170_000 == 0o040_000, set);
            self.set_label(&mut work, set);
            self.set_capabilities(&mut work, chowned, set);
        }
        self.set_bits(fd, &mut work, magic);
        self.set_time(&mut work, facts, |times| rustix::fs::futimens(fd, times));
    }

    /// A link, device, FIFO or socket.
    pub(super) fn special(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        node: &Node,
        fresh: bool,
        path: &[u8],
        notes: &mut Notes,
    ) {
        let failed = |error: Errno| Note::new(path, format!("its metadata could not be restored: {error}"));
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_mode & 0o170_000 == node.content.kind_bits() => stat,
            Ok(_) => return notes.push(failed(Errno::STALE)),
            Err(error) => return notes.push(failed(error)),
        };
        let now = if fresh {
            None
        } else {
            self.read(Place::Named(folder, name), &stat, 0, &node.content)
        };
        let facts = Facts::of(&stat);
        let mut work = Work { node, now, path, notes };
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let chowned = self.set_owner(&mut work, &facts, |uid, gid| {
            rustix::fs::chownat(folder, name, uid, gid, nofollow)
        });
        let link = matches!(node.content, Content::Symlink { .. });
        if !link {
            // The way to the inode itself, whatever its name means by now.
            let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(folder, name, how, Mode::empty()) {
                Ok(fd) => fd,
                Err(error) => return work.note("mode", error),
            };
            let itself = format!("/proc/self/fd/{}", fd.as_raw_fd());
            if let Some(mode) = self.mode(node, work.now.is_none())
                && (chowned || mode != stat.st_mode & 0o7777)
            {
                work.check("mode", rustix::fs::chmod(&itself, Mode::from_raw_mode(mode)));
            }
            if self.options.same_xattrs {
                let set = |name: &str, value: Option<&[u8]>| match value {
                    Some(value) => rustix::fs::setxattr(&itself, name, value, XattrFlags::empty()),
                    None => rustix::fs::removexattr(&itself, name),
                };
                for xattr in &node.metadata.xattrs {
                    let result = rustix::fs::setxattr(&itself, &xattr.name[..], &xattr.value, XattrFlags::empty());
                    work.check(&format!("attribute {}", xattr.name.escape_ascii()), result);
                }
                self.set_acl(&mut work, false, set);
                self.set_label(&mut work, set);
            }
        } else if self.options.same_xattrs {
            let mut itself = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
            itself.extend_from_slice(name.to_bytes());
            self.set_label(&mut work, |name, value| match value {
                Some(value) => rustix::fs::lsetxattr(&itself[..], name, value, XattrFlags::empty()),
                None => rustix::fs::lremovexattr(&itself[..], name),
            });
        }
        self.set_time(&mut work, &facts, |times| {
            rustix::fs::utimensat(folder, name, times, nofollow)
        });
    }

    /// Whether the owner was changed, which takes bits of the mode and capabilities away.
    fn set_owner(
        &mut self,
        work: &mut Work<'_>,
        facts: &Facts,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> bool {
        let (uid, gid) = self.owner(&work.node.metadata);
        let (uid, gid) = (uid.filter(|&uid| uid != facts.uid), gid.filter(|&gid| gid != facts.gid));
        if uid.is_none() && gid.is_none() {
            return false;
        }
        if !self.root {
            self.owners_left = true;
            return false;
        }
        match chown(uid.map(Uid::from_raw), gid.map(Gid::from_raw)) {
            Ok(()) => true,
            Err(error) => {
                work.note("owner", error);
                false
            }
        }
    }

    fn set_xattrs(&self, fd: BorrowedFd<'_>, work: &mut Work<'_>) {
        if !self.flags.has(FeatureFlags::XATTRS) {
            return;
        }
        let wanted = &work.node.metadata.xattrs;
        let there = work
            .now
            .as_mut()
            .map(|now| std::mem::take(&mut now.xattrs))
            .unwrap_or_default();
        let find = |list: &[cairn_formats::Xattr], name: &Bytes| {
            list.iter()
                .find(|xattr| xattr.name == *name)
                .map(|xattr| xattr.value.clone())
        };
        for xattr in &there {
            if find(wanted, &xattr.name).is_none() {
                let result = rustix::fs::fremovexattr(fd, &xattr.name[..]);
                work.check(&format!("lack of attribute {}", xattr.name.escape_ascii()), result);
            }
        }
        for xattr in wanted {
            if find(&there, &xattr.name).as_ref() != Some(&xattr.value) {
                let result = rustix::fs::fsetxattr(fd, &xattr.name[..], &xattr.value, XattrFlags::empty());
                work.check(&format!("attribute {}", xattr.name.escape_ascii()), result);
            }
        }
    }

    fn set_acl(&mut self, work: &mut Work<'_>, folder: bool, set: impl Fn(&str, Option<&[u8]>) -> Result<(), Errno>) {
        if !self.flags.has(FeatureFlags::ACL) || matches!(work.node.content, Content::Symlink { .. }) {
            return;
        }
        let wanted = &work.node.metadata.acl;
        let nothing = Default::default();
        let there = work.now.as_ref().map_or(&nothing, |now| &now.acl).clone();
        if *wanted == there {
            return;
        }
        let numeric = self.options.numeric_owner;
        let numbers = self.flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT);
        let mut id = |owner: Owner, entry: &AclEntry| match &entry.name {
            Some(name) if !(numbers && numeric) => self.owners.id(owner, name).unwrap_or(entry.id),
            _ => entry.id,
        };
        let mut user_ids =
            |entries: &[AclEntry], owner: Owner| -> Vec<u32> { entries.iter().map(|entry| id(owner, entry)).collect() };
        let ids = [
            user_ids(&wanted.users, Owner::User),
            user_ids(&wanted.groups, Owner::Group),
            user_ids(&wanted.default_users, Owner::User),
            user_ids(&wanted.default_groups, Owner::Group),
        ];
        let access = acl::access(wanted, work.node.metadata.mode, &ids[0], &ids[1]);
        if access.is_some() || there.group_obj.is_some() {
            work.check("ACL", set(acl::ACCESS, access.as_deref()));
        }
        if folder {
            let default = acl::default(wanted, &ids[2], &ids[3]);
            if default.is_some() || there.default.is_some() {
                work.check("default ACL", set(acl::DEFAULT, default.as_deref()));
            }
        }
    }

    fn set_label(&self, work: &mut Work<'_>, set: impl Fn(&str, Option<&[u8]>) -> Result<(), Errno>) {
        if !self.flags.has(FeatureFlags::SELINUX) {
            return;
        }
        let wanted = work.node.metadata.selinux.clone();
        let there = work.now.as_mut().and_then(|now| now.selinux.take());
        // A label that the system has given of itself stays where the archive has none.
        if let Some(label) = wanted
            && there.as_ref() != Some(&label)
        {
            let mut value = label.to_vec();
            value.push(0);
            work.check("label", set("security.selinux", Some(&value)));
        }
    }

    fn set_capabilities(
        &self,
        work: &mut Work<'_>,
        chowned: bool,
        set: impl Fn(&str, Option<&[u8]>) -> Result<(), Errno>,
    ) {
        if !self.flags.has(FeatureFlags::FCAPS) {
            return;
        }
        let wanted = work.node.metadata.fcaps.clone();
        // A change of the owner has taken them away.
        let there = work.now.as_mut().and_then(|now| now.fcaps.take()).filter(|_| !chowned);
        if wanted != there {
            work.check("capabilities", set("security.capability", wanted.as_deref()));
        }
    }

    /// Quota project, attribute bits, FAT bits, a subvolume's lock.
    fn set_bits(&self, fd: BorrowedFd<'_>, work: &mut Work<'_>, magic: u64) {
        let wanted = &work.node.metadata;
        let (attributes, project) = (wanted.attributes, wanted.quota_project);
        let now = work.now.as_ref();
        let (there, there_project) = (
            now.map_or(0, |now| now.attributes),
            now.and_then(|now| now.quota_project),
        );
        if self.flags.has(FeatureFlags::QUOTA_PROJECT_ID) && project != there_project {
            work.check("quota project", system::set_quota_project(fd, project.unwrap_or(0)));
        }
        let changed = (attributes ^ there) & self.flags.0;
        if changed & features::CHATTR_KEPT != 0 {
            let mask = features::to_chattr(changed) & !features::LOCKING;
            let bits = features::to_chattr(attributes);
            work.check("attribute bits", system::set_attributes(fd, bits, mask));
        }
        let fat = features::to_fat(attributes & self.flags.0);
        if !matches!(magic, magic::MSDOS | magic::FUSE) {
            if fat != 0 {
                work.note("FAT attributes", io::Error::other("this file system has none"));
            }
        } else if changed & features::FAT_KEPT != 0 {
            let result = system::set_fat_attributes(fd, fat, features::to_fat(changed));
            work.check("FAT attributes", result);
        }
    }

    fn set_time(&self, work: &mut Work<'_>, facts: &Facts, set: impl FnOnce(&Timestamps) -> Result<(), Errno>) {
        let wanted = work.node.metadata.mtime;
        // desync's way to say that there is none.
        let none = self.flags.is_desync_archive() && wanted == 0;
        if self.flags.time_granularity().is_none() || none || self.has_time(facts, wanted) {
            return;
        }
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT as _,
        };
        let time = Timespec {
            tv_sec: wanted.div_euclid(1_000_000_000) as i64,
            tv_nsec: wanted.rem_euclid(1_000_000_000) as _,
        };
        let times = Timestamps {
            last_access: omit,
            last_modification: time,
        };
        work.check("time", set(&times));
    }

    /// Immutable, append only, a subvolume's lock: after everything else, the rename too.
    pub(super) fn lock(&self, fd: BorrowedFd<'_>, node: &Node, path: &[u8], notes: &mut Notes) {
        let attributes = node.metadata.attributes;
        let mut failed = |error: io::Error| {
            let what = format!("its attribute bits could not be restored: {error}");
            notes.push(Note::new(path, what));
        };
        let locks = features::to_chattr(attributes) & features::LOCKING;
        if locks != 0
            && let Err(error) = system::set_attributes(fd, locks, locks)
        {
            failed(error);
        }
        if attributes & FeatureFlags::SUBVOLUME_READ_ONLY != 0 {
            let is_subvolume = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == 256)
                && system::magic_of(fd).is_ok_and(|kind| kind == magic::BTRFS);
            if is_subvolume && let Err(error) = system::set_subvolume_flags(fd, system::SUBVOLUME_READ_ONLY) {
                failed(error);
            }
        }
    }
}
