//! `list` and `mtree`: what is in an archive.

use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::{Content, DigestAlgorithm, DigestStream, FeatureFlags, MtreeLine, Node, Placed};

use super::untar::Input;
use crate::bar::Unit;
use crate::cli::{List, Mtree, Sources};
use crate::context::Context;
use crate::engine::tree::{
    ArchiveSource, Lookup, TreeReader, TreeSink, TreeSource as _, Unpacker, WalkOptions, find, lookup,
    raise_handle_limit,
};
use crate::engine::{self, BlobOptions, IndexedBlob};
use crate::failure::{Failure, Outcome};

/// Bytes of a folder's archive taken at a time.
const BLOCK_LEN: usize = 512 << 10;

/// Lists an archive, or what is below one path of it, reading no more of it than that takes.
pub(crate) fn list(context: &Context, arguments: &List) -> Outcome<()> {
    let archive = open(context, &arguments.input, arguments.index, &arguments.sources)?;
    let path = arguments
        .path
        .as_ref()
        .map_or(&b""[..], |path| path.as_os_str().as_bytes());
    let entry = entry(&archive, path, &arguments.input)?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut shown = path.to_vec();
    while shown.last() == Some(&b'/') {
        shown.pop();
    }
    let listed = below(&archive, &entry, &mut shown, arguments, &mut output).and_then(|()| flush(&mut output));
    match listed {
        // `| head` has seen enough.
        Err(engine::Error::File { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        listed => Ok(listed?),
    }
}

fn flush(output: &mut dyn Write) -> engine::Result<()> {
    output
        .flush()
        .map_err(engine::file(Path::new("standard output"), "write to"))
}

/// Opens an archive for lookups.
pub(super) fn open(context: &Context, name: &str, index: bool, sources: &Sources) -> Outcome<Lookup> {
    let source = if index {
        let index = context.index(name, &sources.access)?;
        ArchiveSource::Chunks(IndexedBlob::new(
            index,
            context.sources(sources)?,
            BlobOptions::lookup(),
        ))
    } else {
        ArchiveSource::open(PathBuf::from(name))?
    };
    Ok(lookup(source)?)
}

/// The entry at a path of an archive, which has to be there.
pub(super) fn entry(archive: &Lookup, path: &[u8], name: &str) -> Outcome<Placed> {
    find(archive, path)?.ok_or_else(|| {
        let path = path.escape_ascii();
        Failure::new(format!("{name}: there is no {path} in it")).try_this("list it without a path")
    })
}

/// One line an entry; folders first, then what is in them. As deep as the decoder lets archives be.
fn below(
    archive: &Lookup,
    entry: &Placed,
    path: &mut Vec<u8>,
    arguments: &List,
    output: &mut dyn Write,
) -> engine::Result<()> {
    // Folders that are open: the rest of their entries, and where their path ends.
    let mut open = Vec::new();
    line(&entry.node, path, arguments, output)?;
    open.push((archive.children(entry)?, path.len()));
    while let Some((children, len)) = open.last_mut() {
        path.truncate(*len);
        let Some(child) = children.next() else {
            open.pop();
            continue;
        };
        let child = child?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(child.name.as_deref().unwrap_or_default());
        line(&child.node, path, arguments, output)?;
        if child.node.content == Content::Directory && arguments.recursive && !arguments.flat {
            open.push((archive.children(&child)?, path.len()));
        }
    }
    Ok(())
}

fn line(node: &Node, path: &[u8], arguments: &List, output: &mut dyn Write) -> engine::Result<()> {
    let path = if path.is_empty() { b"." } else { path };
    let written = if arguments.null {
        output.write_all(path).and_then(|()| output.write_all(b"\0"))
    } else {
        writeln!(output, "{} {}", mode(node.metadata.mode), path.escape_ascii())
    };
    written.map_err(engine::file(Path::new("standard output"), "write to"))
}

/// A mode as ls(1) shows it.
fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let class = mode >> shift & 7;
        text.push(if class & 4 != 0 { 'r' } else { '-' });
        text.push(if class & 2 != 0 { 'w' } else { '-' });
        text.push(match (class & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Prints an archive, or a folder, as lines of mtree(5).
pub(crate) fn mtree(context: &Context, arguments: &Mtree) -> Outcome<()> {
    raise_handle_limit();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut lines = Lines {
        output: &mut output,
        flags: FeatureFlags(0),
        path: Vec::new(),
        ends: Vec::new(),
        file: None,
    };
    let folder = !arguments.index && std::fs::metadata(&arguments.input).is_ok_and(|meta| meta.is_dir());
    let bar = context.bar("reading", Unit::Bytes);
    let result = if folder {
        let options = WalkOptions {
            flags: FeatureFlags::archive(context.digest),
            shift: None,
        };
        let mut reader = TreeReader::open(Path::new(&arguments.input), &options)?;
        let mut unpacker = Unpacker::new(&mut lines);
        loop {
            context.progress.check().map_err(engine::Error::from)?;
            let mut block = vec![0; BLOCK_LEN];
            let len = reader.fill(&mut block)?;
            if len == 0 {
                break unpacker.finish().map_err(Failure::from);
            }
            unpacker.push(Bytes::from(block).slice(..len))?;
        }
    } else {
        let input = Input::open(context, &arguments.input, arguments.index, &arguments.sources)?;
        input.unpack(&arguments.effort, &context.progress, &mut lines)
    };
    drop(bar);
    result?;
    Ok(flush(&mut output)?)
}

/// Writes a line as soon as all of it is known.
struct Lines<'a> {
    output: &'a mut dyn Write,
    flags: FeatureFlags,
    path: Vec<u8>,
    /// Length of the path of each folder that is open.
    ends: Vec<usize>,
    /// A file whose bytes are still coming, how many, and their digest so far.
    file: Option<(Box<Node>, u64, DigestStream)>,
}

impl Lines<'_> {
    fn algorithm(&self) -> DigestAlgorithm {
        self.flags.digest_algorithm()
    }

    fn write(&mut self, node: &Node, digest: Option<[u8; 32]>) -> engine::Result<()> {
        let line = MtreeLine {
            path: &self.path,
            node,
            flags: self.flags,
            digest: digest.map(|digest| (self.algorithm(), digest)),
        };
        writeln!(self.output, "{line}").map_err(engine::file(Path::new("standard output"), "write to"))
    }

    fn end_file(&mut self) -> engine::Result<()> {
        match self.file.take() {
            Some((node, _, digest)) => self.write(&node, Some(digest.finish())),
            None => Ok(()),
        }
    }
}

impl TreeSink for Lines<'_> {
    fn start(&mut self, flags: FeatureFlags) -> engine::Result<()> {
        self.flags = flags;
        Ok(())
    }

    fn enter(&mut self, name: Option<Bytes>, node: Box<Node>) -> engine::Result<()> {
        self.path.truncate(self.ends.last().copied().unwrap_or(0));
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_deref().unwrap_or_default());
        match node.content {
            Content::File { len } => {
                self.file = Some((node, len, DigestStream::new(self.algorithm())));
                if len == 0 { self.end_file() } else { Ok(()) }
            }
            Content::Directory => {
                self.ends.push(self.path.len());
                self.write(&node, None)
            }
            _ => self.write(&node, None),
        }
    }

    fn payload(&mut self, bytes: Bytes) -> engine::Result<()> {
        let Some((_, left, digest)) = &mut self.file else {
            return Ok(());
        };
        digest.update(&bytes);
        *left -= bytes.len() as u64;
        if *left == 0 { self.end_file() } else { Ok(()) }
    }

    fn orphan(&mut self, _: Bytes) -> engine::Result<()> {
        Ok(())
    }

    fn leave(&mut self) -> engine::Result<()> {
        self.ends.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        for (bits, expected) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_640, "-rw-r-S---"),
            (0o041_777, "drwxrwxrwt"),
            (0o140_000, "s---------"),
        ] {
            assert_eq!(mode(bits), expected);
        }
    }
}
