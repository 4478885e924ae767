//! What the system is asked beside rustix: attribute bits, quota project ids, btrfs subvolumes, names of owners.
//!
//! File systems that have no such thing answer as casync takes it: no bits, project 0, no subvolume.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use bytes::Bytes;
use cairn_formats::is_owner_name;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

/// `statfs` magics of the file systems that matter here (linux/magic.h).
pub(super) mod magic {
    pub(crate) const EXT: u64 = 0xef53;
    pub(crate) const XFS: u64 = 0x5846_5342;
    pub(crate) const BTRFS: u64 = 0x9123_683e;
    pub(crate) const FUSE: u64 = 0x6573_5546;
    pub(crate) const MSDOS: u64 = 0x4d44;
    /// File systems that show the kernel's state: their folders are kept, their content is not.
    pub(crate) const VIRTUAL: [u64; 19] = [
        0x4249_4e4d, // binfmt_misc
        0x6367_7270, // cgroup2
        0x0027_e0eb, // cgroup
        0x6265_6570, // configfs
        0x6462_6720, // debugfs
        0x1cd1,      // devpts
        0xde5e_81e4, // efivarfs
        0x6573_5543, // fusectl
        0x9584_58f6, // hugetlbfs
        0x1980_0202, // mqueue
        0x6e66_7364, // nfsd
        0x9fa0,      // proc
        0x6165_676c, // pstore
        0x6759_6969, // rpc_pipefs
        0x7363_6673, // securityfs
        0xf97c_ff8c, // selinuxfs
        0x4341_5d53, // smackfs
        0x6265_6572, // sysfs
        0x7472_6163, // tracefs, which came after casync's list: its content is no less virtual
    ];
}

/// The kind of a file system.
pub(super) fn magic_of(fd: impl AsFd) -> io::Result<u64> {
    // The type is signed on some machines; a magic has 32 bits.
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 & 0xffff_ffff)
}

/// Answers of file systems that do not have what was asked for.
fn unsupported(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOTTY | Errno::NXIO | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS
    )
}

fn or_zero<T: Default>(result: Result<T, Errno>) -> io::Result<T> {
    match result {
        Err(error) if unsupported(error) => Ok(T::default()),
        result => Ok(result?),
    }
}

/// `struct fsxattr` of linux/fs.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

#[allow(unsafe_code)]
fn get<const OPCODE: Opcode, T>(fd: impl AsFd) -> Result<T, Errno> {
    // SAFETY: every opcode that this file passes reads one value of the type that it was made from, and writes nothing else.
    unsafe { ioctl(fd, Getter::<OPCODE, T>::new()) }
}

#[allow(unsafe_code)]
fn set<const OPCODE: Opcode, T>(fd: impl AsFd, value: T) -> Result<(), Errno> {
    // SAFETY: every opcode that this file passes takes one value of the type that it was made from.
    unsafe { ioctl(fd, Setter::<OPCODE, T>::new(value)) }
}

/// Attribute bits (chattr), as `FS_*_FL` of linux/fs.h.
pub(super) fn attributes(fd: impl AsFd) -> io::Result<u32> {
    or_zero(rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits()))
}

/// Sets those of the bits that `mask` has.
pub(super) fn set_attributes(fd: impl AsFd, bits: u32, mask: u32) -> io::Result<()> {
    let old = attributes(&fd)?;
    let new = old & !mask | bits & mask;
    if new == old {
        return Ok(());
    }
    Ok(rustix::fs::ioctl_setflags(
        fd,
        rustix::fs::IFlags::from_bits_retain(new),
    )?)
}

/// FAT attribute bits.
pub(super) fn fat_attributes(fd: impl AsFd) -> io::Result<u32> {
    or_zero(get::<{ opcode::read::<u32>(b'r', 0x10) }, u32>(fd))
}

/// Sets the FAT attribute bits that `mask` has.
pub(super) fn set_fat_attributes(fd: impl AsFd, bits: u32, mask: u32) -> io::Result<()> {
    let old = fat_attributes(&fd)?;
    let new = old & !mask | bits & mask;
    if new == old {
        return Ok(());
    }
    Ok(set::<{ opcode::write::<u32>(b'r', 0x11) }, u32>(fd, new)?)
}

/// The quota project.
pub(super) fn quota_project(fd: impl AsFd) -> io::Result<u32> {
    or_zero(get::<{ opcode::read::<FsXattr>(b'X', 31) }, FsXattr>(fd)).map(|attributes| attributes.projid)
}

/// Sets the quota project.
pub(super) fn set_quota_project(fd: impl AsFd, project: u32) -> io::Result<()> {
    let old = match get::<{ opcode::read::<FsXattr>(b'X', 31) }, FsXattr>(&fd) {
        Err(error) if project == 0 && unsupported(error) => return Ok(()),
        old => old?,
    };
    if old.projid == project {
        return Ok(());
    }
    let new = FsXattr { projid: project, ..old };
    Ok(set::<{ opcode::write::<FsXattr>(b'X', 32) }, FsXattr>(fd, new)?)
}

/// Bit of [`subvolume_flags`]: read only.
pub(super) const SUBVOLUME_READ_ONLY: u64 = 1 << 1;

/// A btrfs subvolume's flags.
pub(super) fn subvolume_flags(fd: impl AsFd) -> io::Result<u64> {
    Ok(get::<{ opcode::read::<u64>(0x94, 25) }, u64>(fd)?)
}

/// Sets them.
pub(super) fn set_subvolume_flags(fd: impl AsFd, flags: u64) -> io::Result<()> {
    Ok(set::<{ opcode::write::<u64>(0x94, 26) }, u64>(fd, flags)?)
}

/// `struct btrfs_ioctl_vol_args` of linux/btrfs.h.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4088],
}

/// Makes a btrfs subvolume in a folder. Errors: the system's; unsupported ones mean that an ordinary folder has to do.
pub(super) fn make_subvolume(folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    let mut arguments = VolumeArguments { fd: 0, name: [0; 4088] };
    arguments.name[..name.len()].copy_from_slice(name);
    Ok(set::<{ opcode::write::<VolumeArguments>(0x94, 14) }, VolumeArguments>(
        folder, arguments,
    )?)
}

/// Which of the system's two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    User,
    Group,
}

/// Names of owners, asked once each. The super-user has none: archives tell it by its number.
#[derive(Debug, Default)]
pub(super) struct Owners {
    names: HashMap<(Owner, u32), Option<Bytes>>,
    ids: HashMap<(Owner, Bytes), Option<u32>>,
}

impl Owners {
    /// The name of a number, if it has one that archives can hold.
    pub(super) fn name(&mut self, owner: Owner, id: u32) -> Option<Bytes> {
        if id == 0 {
            return None;
        }
        self.names
            .entry((owner, id))
            .or_insert_with(|| look_up_name(owner, id).filter(|name| is_owner_name(name)))
            .clone()
    }

    /// The number of a name on this system.
    pub(super) fn id(&mut self, owner: Owner, name: &Bytes) -> Option<u32> {
        *self
            .ids
            .entry((owner, name.clone()))
            .or_insert_with(|| look_up_id(owner, name))
    }
}

/// Room for one answer of the system; it says when it wants more.
const ANSWER_LEN_MIN: usize = 4096;
/// Room that no answer needs.
const ANSWER_LEN_MAX: usize = 16 << 20;

/// Calls `ask` with ever more room until it does not answer `ERANGE`.
fn with_room<T>(mut ask: impl FnMut(&mut [libc::c_char]) -> (libc::c_int, Option<T>)) -> Option<T> {
    let mut room = vec![0; ANSWER_LEN_MIN];
    loop {
        match ask(&mut room) {
            (libc::ERANGE, _) if room.len() < ANSWER_LEN_MAX => room.resize(2 * room.len(), 0),
            (_, answer) => return answer,
        }
    }
}

/// What the system says of an owner: `ask` has a `get…_r` function fill the record, `take` gets what is wanted out of it.
#[allow(unsafe_code)]
fn look_up<R, T>(
    ask: impl Fn(*mut R, *mut libc::c_char, libc::size_t, *mut *mut R) -> libc::c_int,
    take: impl Fn(&R) -> T,
) -> Option<T> {
    with_room(|room| {
        let mut record = MaybeUninit::<R>::zeroed();
        let mut result = std::ptr::null_mut();
        let code = ask(record.as_mut_ptr(), room.as_mut_ptr(), room.len(), &mut result);
        // SAFETY: the result, when not null, points to the record, which the system has filled. Record and room, which its
        // strings are in, are there until `take` has returned.
        let found = unsafe { result.as_ref() };
        (code, found.map(&take))
    })
}

// SAFETY, of the four calls below: `look_up` passes a record, a room of the length that it says and a place for the result, all
// of which outlive the call, and calls `copied` with a record that the system has filled. Names to look for are C strings.

#[allow(unsafe_code)]
fn look_up_name(owner: Owner, id: u32) -> Option<Bytes> {
    match owner {
        Owner::User => look_up(
            |record, room, len, result| unsafe { libc::getpwuid_r(id, record, room, len, result) },
            |user: &libc::passwd| unsafe { copied(user.pw_name) },
        ),
        Owner::Group => look_up(
            |record, room, len, result| unsafe { libc::getgrgid_r(id, record, room, len, result) },
            |group: &libc::group| unsafe { copied(group.gr_name) },
        ),
    }
}

#[allow(unsafe_code)]
fn look_up_id(owner: Owner, name: &[u8]) -> Option<u32> {
    let text = CString::new(name).ok()?;
    let name = text.as_ptr();
    match owner {
        Owner::User => look_up(
            |record, room, len, result| unsafe { libc::getpwnam_r(name, record, room, len, result) },
            |user: &libc::passwd| user.pw_uid,
        ),
        Owner::Group => look_up(
            |record, room, len, result| unsafe { libc::getgrnam_r(name, record, room, len, result) },
            |group: &libc::group| group.gr_gid,
        ),
    }
}

/// # Safety
///
/// `name` is a C string.
#[allow(unsafe_code)]
unsafe fn copied(name: *const libc::c_char) -> Bytes {
    // SAFETY: as the caller promises.
    Bytes::copy_from_slice(unsafe { CStr::from_ptr(name) }.to_bytes())
}
