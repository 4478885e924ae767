//! Random trees on disk, with everything that archives keep, and their comparison.
//!
//! They need root (devices, owners, `trusted.*`) and a file system with attributes of all kinds (ext4, XFS, btrfs).

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags};

/// A folder for trees, emptied at the end whatever attributes they have.
pub struct Ground(tempfile::TempDir);

impl Ground {
    /// A new folder.
    #[allow(clippy::new_without_default)] // it makes a folder on disk, which no default should
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "trees with devices and owners need root: run the tests as root"
        );
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Where an entry of this name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Removes a tree, immutable files too.
    pub fn clear(&self, name: &str) {
        let path = self.path(name);
        unlock(&path);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        unlock(self.0.path());
    }
}

/// Takes the attributes away that keep an entry from being removed.
fn unlock(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if (meta.is_file() || meta.is_dir())
        && let Ok(file) = fs::File::open(path)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        && flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags - (IFlags::IMMUTABLE | IFlags::APPEND));
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            unlock(&entry.path());
        }
    }
}

/// For which reader a tree has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// casync: everything, but no name over 237 bytes where it is to be extracted.
    Casync,
    /// casync makes archives of names of any length, and cannot extract them.
    CasyncMakes,
    /// desync: no FIFOs, sockets, backslashes, attribute bits.
    Desync,
    /// What a tar holds too: as for desync, and no labels.
    Plain,
}

impl For {
    fn is_plain(self) -> bool {
        matches!(self, Self::Desync | Self::Plain)
    }
}

/// Makes a random tree. Same seed, same tree (but for the times of links' targets and the like).
pub fn make(root: &Path, seed: u64, reader: For) {
    let mut random = fastrand::Rng::with_seed(seed);
    fs::create_dir(root).expect("a folder");
    let mut folders = vec![(root.to_owned(), 1)];
    let mut made: Vec<PathBuf> = Vec::new();
    let count = random.usize(20..60);
    for number in 0..count {
        let (parent, depth) = folders[random.usize(..folders.len())].clone();
        let path = parent.join(name(&mut random, reader));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        // One of each kind first.
        let kind = if number < 7 { number } else { random.usize(..7) };
        match kind {
            1 => {
                fs::create_dir(&path).expect("a folder");
                if depth < 40 {
                    folders.push((path.clone(), depth + 1));
                }
            }
            2 => {
                let target: Vec<u8> = match random.u8(..3) {
                    0 => b"../..".to_vec(),
                    1 => b"/etc/passwd".to_vec(),
                    _ => std::iter::repeat_with(|| random.u8(1..)).take(20).collect(),
                };
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &path).expect("a link");
            }
            3 if !reader.is_plain() => node(&path, FileType::Fifo, 0, 0),
            4 if !reader.is_plain() => node(&path, FileType::Socket, 0, 0),
            5 => node(
                &path,
                FileType::CharacterDevice,
                random.u32(1..500),
                random.u32(..70_000),
            ),
            6 => node(&path, FileType::BlockDevice, random.u32(1..4095), random.u32(..255)),
            _ => fs::write(&path, content(&mut random)).expect("a file"),
        }
        made.push(path);
    }
    if !reader.is_plain() {
        let mut deep = root.join("deep");
        for level in 0..48 {
            deep = deep.join(format!("d{level}"));
        }
        fs::create_dir_all(&deep).expect("folders");
        fs::write(deep.join("bottom"), b"!").expect("a file");
    }
    made.push(root.to_owned());
    // Times of folders change as they are filled: deepest first.
    made.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in &made {
        decorate(path, &mut random, reader);
    }
}

/// A FIFO or socket.
pub fn special(path: &Path, kind: FileType) {
    node(path, kind, 0, 0);
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, path, kind, mode, rustix::fs::makedev(major, minor)).expect("an inode: is this root?");
}

fn name(random: &mut fastrand::Rng, reader: For) -> OsString {
    let longest = if reader == For::Casync { 237 } else { 255 };
    let len = match random.u8(..10) {
        0 => longest,
        1 => random.usize(30..longest),
        _ => random.usize(1..12),
    };
    let any = random.u8(..4) == 0;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            loop {
                let byte = if any {
                    random.u8(1..)
                } else {
                    random.alphanumeric() as u8
                };
                let refused = byte == b'/' || byte == b'.' || byte == b'\\' && reader.is_plain();
                if !refused {
                    return byte;
                }
            }
        })
        .collect();
    OsString::from_vec(bytes)
}

fn content(random: &mut fastrand::Rng) -> Vec<u8> {
    let len = match random.u8(..6) {
        0 => 0,
        1 => random.usize(1..10),
        2 => random.usize(60_000..300_000),
        _ => random.usize(1..20_000),
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    if random.bool() && len > 20_000 {
        bytes[8_000..len - 3_000].fill(0);
    }
    bytes
}

/// Owner, mode, attributes, ACLs, time.
fn decorate(path: &Path, random: &mut fastrand::Rng, reader: For) {
    let meta = fs::symlink_metadata(path).expect("an inode");
    let kind = meta.file_type();
    let (uid, gid) = match random.u8(..4) {
        0 => (0, 0),
        1 => (1, 2),
        2 => (random.u32(100_000..200_000), 65_534),
        _ => (random.u32(1..70), random.u32(1..70)),
    };
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("an owner: is this root?");
    if !kind.is_symlink() {
        let mut mode = random.u32(..0o1000);
        if random.u8(..5) == 0 {
            mode |= [0o4000, 0o2000, 0o1000, 0o6000][random.usize(..4)];
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    if kind.is_file() || kind.is_dir() {
        for _ in 0..random.usize(..3) {
            let prefix = ["user.", "trusted."][random.usize(..2)];
            let attribute = format!("{prefix}{}", random.alphabetic());
            let len = random.usize(..40);
            let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            set(path, &attribute, &value);
        }
        if random.u8(..3) == 0 {
            set(path, "system.posix_acl_access", &acl(random));
        }
        if kind.is_dir() && random.u8(..3) == 0 {
            set(path, "system.posix_acl_default", &acl(random));
        }
        if random.u8(..6) == 0 && reader != For::Plain {
            set(path, "security.selinux", b"system_u:object_r:etc_t:s0\0");
        }
    }
    if kind.is_file() && random.u8(..3) == 0 {
        // cap_net_raw+ep, version 2.
        set(
            path,
            "security.capability",
            &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    let time = Timespec {
        tv_sec: random.i64(0..4_000_000_000),
        tv_nsec: random.i64(0..1_000_000_000),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
    if !reader.is_plain() && (kind.is_file() || kind.is_dir()) && random.u8(..8) == 0 {
        let flags = [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::NOATIME, IFlags::SYNC][random.usize(..4)];
        // A locked folder could not be filled by casync's extraction either.
        if kind.is_file() || !flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            let file = fs::File::open(path).expect("a file");
            let old = rustix::fs::ioctl_getflags(&file).expect("attribute bits");
            rustix::fs::ioctl_setflags(&file, old | flags).expect("attribute bits");
        }
    }
}

/// Gives an entry an extended attribute.
pub fn set(path: &Path, attribute: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{attribute} of {}: {error}", path.display()));
}

/// The kernel's form of an ACL with named entries.
fn acl(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    let mut push = |tag: u16, permissions: u8, id: u32| {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(u16::from(permissions).to_le_bytes());
        bytes.extend(id.to_le_bytes());
    };
    push(1, random.u8(..8), u32::MAX);
    let user = random.u32(1..40);
    push(2, random.u8(..8), user);
    push(2, random.u8(..8), user + 100_000);
    push(4, random.u8(..8), u32::MAX);
    if random.bool() {
        push(8, random.u8(..8), random.u32(..40));
    }
    push(16, random.u8(..8), u32::MAX);
    push(32, random.u8(..8), u32::MAX);
    bytes
}

/// What is compared of an inode; absent things are empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Inode {
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    device: u64,
    target: Vec<u8>,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    flags: u64,
}

/// What a comparison leaves out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Without {
    /// Times of links.
    pub link_times: bool,
}

/// Every inode of a tree by its path.
pub fn inodes(root: &Path, without: Without) -> BTreeMap<Vec<u8>, Inode> {
    let mut inodes = BTreeMap::new();
    gather(root, &mut Vec::new(), without, &mut inodes);
    inodes
}

fn gather(path: &Path, below: &mut Vec<u8>, without: Without, inodes: &mut BTreeMap<Vec<u8>, Inode>) {
    let meta = fs::symlink_metadata(path).expect("an inode");
    let kind = meta.file_type();
    let mut attributes = BTreeMap::new();
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let name = CString::new(name).expect("no NUL");
        let len = rustix::fs::lgetxattr(path, &name, &mut value[..]).expect("an attribute");
        value.truncate(len);
        attributes.insert(name.into_bytes(), value);
    }
    let flags = if kind.is_file() || kind.is_dir() {
        let kept = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME | IFlags::SYNC | IFlags::DIRSYNC;
        let file = fs::File::open(path).expect("a file");
        (rustix::fs::ioctl_getflags(&file).expect("attribute bits") & kept).bits() as u64
    } else {
        0
    };
    let special = kind.is_block_device() || kind.is_char_device();
    inodes.insert(
        below.clone(),
        Inode {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            time: if kind.is_symlink() && without.link_times {
                (0, 0)
            } else {
                (meta.mtime(), meta.mtime_nsec())
            },
            device: if special { meta.rdev() } else { 0 },
            target: if kind.is_symlink() {
                fs::read_link(path).expect("a link").into_os_string().into_vec()
            } else {
                Vec::new()
            },
            content: if kind.is_file() {
                fs::read(path).expect("a file")
            } else {
                Vec::new()
            },
            attributes,
            flags,
        },
    );
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            let len = below.len();
            below.push(b'/');
            below.extend(entry.file_name().as_bytes());
            gather(&entry.path(), below, without, inodes);
            below.truncate(len);
        }
    }
}

/// Asserts that two trees are equal in all that archives keep.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path, without: Without, what: &str) {
    let (mine, theirs) = (inodes(a, without), inodes(b, without));
    for (path, inode) in &mine {
        let shown = path.escape_ascii();
        match theirs.get(path) {
            None => panic!("{what}: {shown} is missing"),
            Some(other) if other != inode => panic!("{what}: {shown}\n{}\n{}", brief(inode), brief(other)),
            Some(_) => {}
        }
    }
    let extra: Vec<_> = theirs.keys().filter(|path| !mine.contains_key(*path)).collect();
    assert!(extra.is_empty(), "{what}: {extra:?} are too many");
}

fn brief(inode: &Inode) -> String {
    let mut text = format!("{inode:?}");
    if let Some(at) = text.find("content: ") {
        let end = text[at..].find(']').map_or(text.len(), |end| at + end);
        text.replace_range(at..end, &format!("content: [{} bytes", inode.content.len()));
    }
    text
}
