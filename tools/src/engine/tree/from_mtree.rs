//! The archive of a tree that lines of mtree(5) describe, its files' bytes taken from beside them.
//!
//! The lines become a tree in memory (a path that comes again replaces what came before), which is pulled as an archive with
//! its folders in byte order. A file's bytes are those of the path that its line names (`contents=`), else of its own path, below
//! the folder that the lines are in; they have to be as many as the line says, and of its digest if it has one.
//!
//! What links a path goes through is not asked: the lines are as trusted as the command line. Memory: the lines, a node each.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::{
    ArchiveEncoder, ArchiveForm, Content, DigestAlgorithm, DigestStream, Metadata, MtreeEntry, MtreePaths,
    MtreeReader as Lines, Node,
};
use rustix::io::Errno;

use super::archive_reader::{ArchiveReader, Walk};
use super::note::Notes;
use super::owner_shift::OwnerShift;
use super::walk::WalkOptions;
use crate::engine::error::file;
use crate::engine::{Error, Result};

/// Bytes of all lines.
const TEXT_LEN_MAX: u64 = 1 << 30;
/// Mode of folders that lines imply but do not hold, the root among them.
const IMPLIED_MODE: u32 = 0o755;

/// The archive of what lines of mtree(5) describe, to be read.
pub(crate) type MtreeTree = ArchiveReader<MtreeWalk>;

/// Goes through the tree of the lines.
pub(crate) struct MtreeWalk {
    source: PathBuf,
    /// Where files are looked for.
    base: PathBuf,
    encoder: ArchiveEncoder,
    shift: Option<OwnerShift>,
    folders: Vec<std::collections::btree_map::IntoIter<Bytes, Branch>>,
    file: Option<OpenFile>,
}

/// An entry and, for a folder, what is in it.
struct Branch {
    node: Node,
    digest: Option<(DigestAlgorithm, [u8; 32])>,
    /// Where its bytes are, below the base.
    place: Bytes,
    children: BTreeMap<Bytes, Branch>,
}

struct OpenFile {
    file: File,
    path: PathBuf,
    left: u64,
    digest: Option<(DigestStream, [u8; 32])>,
}

impl MtreeTree {
    /// Reads lines of mtree(5); `-` is standard input, whose files are in the working folder.
    ///
    /// Errors: they cannot be read, or one of them makes no sense; it is named.
    pub(crate) fn open(source: &Path, options: &WalkOptions) -> Result<Self> {
        let input: Box<dyn io::Read> = if source == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(source).map_err(file(source, "open"))?)
        };
        let mut text = Vec::new();
        let read = input.take(TEXT_LEN_MAX + 1).read_to_end(&mut text);
        read.map_err(file(source, "read"))?;
        if text.len() as u64 > TEXT_LEN_MAX {
            let words = format!("it is longer than {TEXT_LEN_MAX} bytes");
            return Err(file(source, "read")(io::Error::other(words)));
        }
        let bad = |error: io::Error| file(source, "use")(error);
        let root = tree(&text).map_err(bad)?;
        let parent = source.parent().filter(|_| source != Path::new("-"));
        let mut walk = MtreeWalk {
            source: source.to_owned(),
            base: parent.map(Path::to_owned).unwrap_or_default(),
            encoder: ArchiveEncoder::new(options.flags, ArchiveForm::Sorted)?,
            shift: options.shift,
            folders: Vec::new(),
            file: None,
        };
        let mut records = Vec::with_capacity(4096);
        let node = walk.kept(root.node)?;
        walk.encoder.root(&node, &mut records)?;
        walk.folders.push(root.children.into_iter());
        Ok(Self::new(walk, records))
    }
}

impl MtreeWalk {
    /// What the archive keeps of a node.
    fn kept(&self, mut node: Node) -> Result<Node> {
        if let Some(shift) = self.shift {
            let shifted = shift.to_archive(&mut node.metadata);
            shifted.map_err(file(&self.source, "keep an owner of"))?;
        }
        Ok(node.reduced(self.encoder.flags()))
    }

    /// Opens the file that has an entry's bytes, which has to have as many as the entry.
    fn open_file(&self, place: &Bytes, len: u64, digest: Option<(DigestAlgorithm, [u8; 32])>) -> Result<OpenFile> {
        let path = self.base.join(OsStr::from_bytes(place));
        let opened = File::open(&path).map_err(file(&path, "open"))?;
        let there = opened.metadata().map_err(file(&path, "look at"))?;
        if !there.is_file() || there.len() != len {
            let words = format!("{} says that it is a file of {len} bytes", self.source.display());
            return Err(file(&path, "archive")(io::Error::other(words)));
        }
        Ok(OpenFile {
            file: opened,
            path,
            left: len,
            digest: digest.map(|(algorithm, digest)| (DigestStream::new(algorithm), digest)),
        })
    }
}

impl OpenFile {
    /// All bytes were read. Errors: they are not those that the line says.
    fn finish(self, source: &Path) -> Result<()> {
        let Some((digest, expected)) = self.digest else {
            return Ok(());
        };
        if digest.finish() == expected {
            return Ok(());
        }
        let words = format!("{} says another digest", source.display());
        Err(file(&self.path, "archive")(io::Error::other(words)))
    }
}

impl Walk for MtreeWalk {
    fn read_file(&mut self, room: &mut [u8]) -> Result<Option<usize>> {
        let Some(open) = &mut self.file else { return Ok(None) };
        let len = open.left.min(room.len() as u64) as usize;
        let read = match rustix::io::read(&open.file, &mut room[..len]) {
            Err(Errno::INTR) => return Ok(Some(0)),
            read => read.map_err(|error| file(&open.path, "read")(error.into()))?,
        };
        if read == 0 {
            return Err(Error::Shrunk {
                path: open.path.clone(),
                missing: open.left,
            });
        }
        if let Some((digest, _)) = &mut open.digest {
            digest.update(&room[..read]);
        }
        self.encoder.payload(read as u64)?;
        open.left -= read as u64;
        if open.left == 0
            && let Some(open) = self.file.take()
        {
            open.finish(&self.source)?;
        }
        Ok(Some(read))
    }

    fn step(&mut self, records: &mut Vec<u8>) -> Result<bool> {
        let Some(folder) = self.folders.last_mut() else {
            return Ok(false);
        };
        let Some((name, branch)) = folder.next() else {
            self.folders.pop();
            self.encoder.leave(records)?;
            return Ok(true);
        };
        if !branch.node.content.is_kept_by(self.encoder.flags()) {
            return Ok(true);
        }
        let node = self.kept(branch.node)?;
        if let Content::File { len } = node.content {
            let open = self.open_file(&branch.place, len, branch.digest)?;
            self.encoder.child(&name, &node, records)?;
            match len {
                0 => open.finish(&self.source)?,
                _ => self.file = Some(open),
            }
            return Ok(true);
        }
        self.encoder.child(&name, &node, records)?;
        if node.content == Content::Directory {
            self.folders.push(branch.children.into_iter());
        }
        Ok(true)
    }

    fn take_notes(&mut self) -> Notes {
        Notes::default()
    }
}

/// The tree that lines describe.
fn tree(text: &[u8]) -> io::Result<Branch> {
    let lines = || text.split(|&byte| byte == b'\n');
    // Who leaves folders writes names; who writes paths does not leave.
    let leaves = |line: &[u8]| line.trim_ascii() == b"..";
    let paths = if lines().any(leaves) {
        MtreePaths::Nested
    } else {
        MtreePaths::Whole
    };
    let mut reader = Lines::new(paths);
    let mut root = implied();
    for line in lines() {
        if let Some(entry) = reader.line(line).map_err(io::Error::other)? {
            put(&mut root, entry)?;
        }
    }
    Ok(root)
}

fn put(root: &mut Branch, entry: MtreeEntry) -> io::Result<()> {
    let mut branch = root;
    for name in entry.path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        if branch.node.content != Content::Directory {
            let words = format!("{}: what is above it is no folder", entry.path.escape_ascii());
            return Err(io::Error::other(words));
        }
        branch = branch
            .children
            .entry(Bytes::copy_from_slice(name))
            .or_insert_with(implied);
    }
    if entry.node.content != Content::Directory {
        branch.children.clear();
    }
    branch.place = entry.contents.unwrap_or(entry.path);
    (branch.node, branch.digest) = (entry.node, entry.digest);
    Ok(())
}

fn implied() -> Branch {
    Branch {
        node: Node {
            metadata: Metadata {
                mode: IMPLIED_MODE | Content::Directory.kind_bits(),
                ..Metadata::default()
            },
            content: Content::Directory,
        },
        digest: None,
        place: Bytes::new(),
        children: BTreeMap::new(),
    }
}
