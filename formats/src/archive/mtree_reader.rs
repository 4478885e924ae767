//! Lines of mtree(5) read back: what casync, desync, bsdtar and the BSDs write about a tree.
//!
//! Pushed line by line, without I/O; `/set`, `/unset`, `..`, lines that go on, octal and `vis` escapes. Keywords that no archive
//! has are passed over. Paths never leave the tree: their names obey the rules that an archive's do.

use bytes::Bytes;

use super::metadata::{Content, Device, Metadata, Node};
use super::record::broken_name_rule;
use crate::{DigestAlgorithm, FeatureFlags};

/// Bytes of a line, its continuations included.
const LINE_LEN_MAX: usize = 1 << 20;
/// Names in a path.
const DEPTH_MAX: usize = 2048;
/// Attributes by their names in mtree(5), and what else they are called.
const ATTRIBUTES: [(&str, u64); 8] = [
    ("hidden", FeatureFlags::FLAG_HIDDEN),
    ("system", FeatureFlags::FLAG_SYSTEM),
    ("archive", FeatureFlags::FLAG_ARCHIVE),
    ("sappend", FeatureFlags::FLAG_APPEND),
    ("sappnd", FeatureFlags::FLAG_APPEND),
    ("nodump", FeatureFlags::FLAG_NODUMP),
    ("simmutable", FeatureFlags::FLAG_IMMUTABLE),
    ("schg", FeatureFlags::FLAG_IMMUTABLE),
];

/// How paths are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtreePaths {
    /// Each line has the whole path, as casync and desync write them, also where it is one name.
    Whole,
    /// As mtree(5) says: one name is an entry of the directory that is open, and opens it if it is one; `..` leaves it. A path
    /// with a `/` is a whole one.
    Nested,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad mtree text at line {line}: {rule}")]
pub struct MtreeError {
    /// Its number, from 1.
    pub line: u64,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// What a line says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtreeEntry {
    /// Names from the root down with `/` between them; empty for the root.
    pub path: Bytes,
    /// What it is.
    pub node: Node,
    /// Digest of a file's bytes.
    pub digest: Option<(DigestAlgorithm, [u8; 32])>,
    /// Where a file's bytes are, if the line says so (`contents=`).
    pub contents: Option<Bytes>,
}

/// Reads mtree(5) text, line by line.
#[derive(Debug)]
pub struct MtreeReader {
    paths: MtreePaths,
    line: u64,
    /// The line so far, while lines end in a backslash.
    unfinished: Vec<u8>,
    /// Keywords and values of `/set`.
    defaults: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directory that is open, as names.
    open: Vec<Vec<u8>>,
    /// The root was entered, and not left yet.
    in_root: bool,
}

impl MtreeReader {
    /// A reader before the first line.
    pub fn new(paths: MtreePaths) -> Self {
        Self {
            paths,
            line: 0,
            unfinished: Vec::new(),
            defaults: Vec::new(),
            open: Vec::new(),
            in_root: false,
        }
    }

    /// Takes a line, without its newline; gives the entry that it is about, if it is about one.
    ///
    /// Errors: words that mean nothing, an entry that lacks what its kind needs (a file's size, a link's target, a device's
    /// numbers), a path out of the tree, a line above 1 MiB.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<MtreeEntry>, MtreeError> {
        self.line += 1;
        self.try_line(line).map_err(|rule| MtreeError { line: self.line, rule })
    }

    fn try_line(&mut self, line: &[u8]) -> Result<Option<MtreeEntry>, &'static str> {
        if self.unfinished.len() + line.len() > LINE_LEN_MAX {
            return Err("a line is longer than 1 MiB");
        }
        let mut whole = std::mem::take(&mut self.unfinished);
        // An odd number of backslashes: the last one is no escaped one.
        let escapes = line.iter().rev().take_while(|&&byte| byte == b'\\').count();
        if escapes % 2 == 1 {
            whole.extend_from_slice(&line[..line.len() - 1]);
            whole.push(b' ');
            self.unfinished = whole;
            return Ok(None);
        }
        whole.extend_from_slice(line);
        let mut words = whole
            .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
            .filter(|word| !word.is_empty());
        let Some(first) = words.next() else {
            return Ok(None);
        };
        match first {
            [b'#', ..] => Ok(None),
            b"/set" => {
                for word in words {
                    let (key, value) = keyword(word);
                    self.unset(key);
                    self.defaults.push((key.to_vec(), value.to_vec()));
                }
                Ok(None)
            }
            b"/unset" => {
                for word in words {
                    match word {
                        b"all" => self.defaults.clear(),
                        key => self.unset(key),
                    }
                }
                Ok(None)
            }
            [b'/', ..] => Err("a path is absolute, or a command is unknown"),
            b".." if self.paths == MtreePaths::Nested => {
                let left = self.open.pop().is_some() || std::mem::take(&mut self.in_root);
                left.then_some(None)
                    .ok_or("more directories are left than were entered")
            }
            path => self.entry(path, words).map(Some),
        }
    }

    fn unset(&mut self, key: &[u8]) {
        self.defaults.retain(|(other, _)| other != key);
    }

    fn entry<'a>(&mut self, path: &[u8], words: impl Iterator<Item = &'a [u8]>) -> Result<MtreeEntry, &'static str> {
        let mut said = Said::default();
        for (key, value) in &self.defaults {
            said.take(key, value)?;
        }
        for word in words {
            let (key, value) = keyword(word);
            said.take(key, value)?;
        }
        let nested = self.paths == MtreePaths::Nested && !path.contains(&b'/');
        let mut names = if nested { self.open.clone() } else { Vec::new() };
        for name in path.split(|&byte| byte == b'/').filter(|&name| name != b".") {
            let name = unescaped(name)?;
            if let Some(rule) = broken_name_rule(&name) {
                return Err(rule);
            }
            names.push(name);
        }
        if names.len() > DEPTH_MAX {
            return Err("a path has more names than the limit");
        }
        let path = names.join(&b'/').into();
        let entry = said.entry(path)?;
        if nested && entry.node.content == Content::Directory {
            self.in_root |= names.is_empty();
            self.open = names;
        }
        Ok(entry)
    }
}

fn keyword(word: &[u8]) -> (&[u8], &[u8]) {
    match word.iter().position(|&byte| byte == b'=') {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, b""),
    }
}

/// What keywords say, before it is known of what kind of entry.
#[derive(Debug, Default)]
struct Said {
    kind: Option<Vec<u8>>,
    mode: Option<u32>,
    size: Option<u64>,
    link: Option<Bytes>,
    device: Option<Device>,
    metadata: Metadata,
    digest: Option<(DigestAlgorithm, [u8; 32])>,
    contents: Option<Bytes>,
}

impl Said {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"type" => self.kind = Some(value.to_vec()),
            b"mode" => {
                let mode = text(value).and_then(|mode| u32::from_str_radix(mode, 8).ok());
                self.mode = Some(
                    mode.filter(|mode| mode & !0o7777 == 0)
                        .ok_or("a mode is not octal, up to 7777")?,
                );
            }
            b"size" => self.size = Some(number(value).ok_or("a size is no number")?),
            b"link" | b"target" => self.link = Some(unescaped(value)?.into()),
            b"contents" | b"content" => self.contents = Some(unescaped(value)?.into()),
            b"device" => self.device = Some(device(value).ok_or("a device is not format,major,minor")?),
            b"uid" => self.metadata.uid = number(value).ok_or("a user id is no number")?,
            b"gid" => self.metadata.gid = number(value).ok_or("a group id is no number")?,
            b"uname" => self.metadata.user = owner(value)?,
            b"gname" => self.metadata.group = owner(value)?,
            b"time" => self.metadata.mtime = time(value).ok_or("a time is not seconds.nanoseconds")?,
            b"flags" => self.metadata.attributes = attributes(value),
            b"sha512256digest" | b"sha512256" => self.digest = Some((DigestAlgorithm::Sha512_256, digest(value)?)),
            b"sha256digest" | b"sha256" => self.digest = Some((DigestAlgorithm::Sha256, digest(value)?)),
            // mtree(5) has many more, and tools their own.
            _ => {}
        }
        Ok(())
    }

    fn entry(self, path: Bytes) -> Result<MtreeEntry, &'static str> {
        let device = self.device.ok_or("a device has no numbers");
        let content = match self.kind.as_deref().unwrap_or(b"file") {
            b"dir" => Content::Directory,
            b"file" => Content::File {
                len: self.size.ok_or("a file has no size")?,
            },
            b"link" => Content::Symlink {
                target: self.link.ok_or("a link has no target")?,
            },
            b"char" => Content::CharacterDevice(device?),
            b"block" => Content::BlockDevice(device?),
            b"fifo" => Content::Fifo,
            b"socket" => Content::Socket,
            _ => return Err("a type is none of dir, file, link, char, block, fifo and socket"),
        };
        if path.is_empty() && content != Content::Directory {
            return Err("the root is not a directory");
        }
        let usual = match content {
            Content::Directory => 0o755,
            Content::Symlink { .. } => 0o777,
            _ => 0o644,
        };
        let is_file = matches!(content, Content::File { .. });
        let mut metadata = self.metadata;
        metadata.mode = content.kind_bits() | self.mode.unwrap_or(usual);
        if !is_file && content != Content::Directory {
            metadata.attributes = 0;
        }
        Ok(MtreeEntry {
            path,
            node: Node { metadata, content },
            digest: self.digest.filter(|_| is_file),
            contents: self.contents.filter(|_| is_file),
        })
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    text(value).and_then(|number| number.parse().ok())
}

/// Archives have no name for root.
fn owner(value: &[u8]) -> Result<Option<Bytes>, &'static str> {
    let name = unescaped(value)?;
    Ok((!matches!(name.as_slice(), b"" | b"root")).then(|| name.into()))
}

fn device(value: &[u8]) -> Option<Device> {
    let mut parts = text(value)?.split(',').skip(1);
    let device = Device {
        major: parts.next()?.parse().ok()?,
        minor: parts.next()?.parse().ok()?,
    };
    (parts.next().is_none() && device.is_good()).then_some(device)
}

/// `seconds.nanoseconds`: behind the dot is a count, not a fraction, and most writers fill it up to nine digits.
fn time(value: &[u8]) -> Option<i128> {
    let (seconds, nanoseconds) = text(value)?.split_once('.').unwrap_or((text(value)?, "0"));
    let (seconds, nanoseconds): (i64, u32) = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    (nanoseconds < 1_000_000_000).then(|| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds))
}

fn attributes(value: &[u8]) -> u64 {
    let set = value.split(|&byte| byte == b',');
    let bits = set.filter_map(|word| ATTRIBUTES.into_iter().find(|(name, _)| name.as_bytes() == word));
    bits.fold(0, |bits, (_, bit)| bits | bit)
}

fn digest(value: &[u8]) -> Result<[u8; 32], &'static str> {
    const RULE: &str = "a digest is not 64 hex digits";
    let lower = text(value).ok_or(RULE)?.to_ascii_lowercase();
    let id: crate::ChunkId = lower.parse().map_err(|_| RULE)?;
    Ok(*id.as_bytes())
}

/// Bytes without their escapes: three octal digits, or one of the letters that `vis` writes.
fn unescaped(escaped: &[u8]) -> Result<Vec<u8>, &'static str> {
    const RULE: &str = "an escape is neither three octal digits nor one that vis(3) writes";
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, after) = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            [b's', after @ ..] => (b' ', after),
            [b't', after @ ..] => (b'\t', after),
            [b'n', after @ ..] => (b'\n', after),
            [b'r', after @ ..] => (b'\r', after),
            [byte @ (b'\\' | b'#'), after @ ..] => (*byte, after),
            _ => return Err(RULE),
        };
        bytes.push(byte);
        rest = after;
    }
    if bytes.contains(&0) {
        return Err("a name or a target holds a NUL");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::mtree::MtreeLine;
    use super::*;

    fn read(paths: MtreePaths, text: &str) -> Result<Vec<MtreeEntry>, MtreeError> {
        let mut reader = MtreeReader::new(paths);
        text.lines()
            .filter_map(|line| reader.line(line.as_bytes()).transpose())
            .collect()
    }

    /// Goal: what casync says of its archive is read, and written again the same.
    #[test]
    fn casyncs_lines_come_back() {
        let text =
            include_str!("../../testdata/kinds.mtree").replace(" flags=hidden,system,archive,sappend,simmutable", "");
        let flags = FeatureFlags::archive(DigestAlgorithm::Sha512_256);
        let entries = read(MtreePaths::Whole, &text).unwrap();
        let again: String = entries
            .iter()
            .map(|MtreeEntry { path, node, digest, .. }| {
                let digest = *digest;
                format!(
                    "{}\n",
                    MtreeLine {
                        path,
                        node,
                        flags,
                        digest
                    }
                )
            })
            .collect();
        assert_eq!(again, text);
    }

    fn check(text: &str, expected: Expect) {
        let lines = match read(MtreePaths::Nested, text) {
            Ok(entries) => entries
                .iter()
                .map(
                    |MtreeEntry {
                         path,
                         node,
                         digest,
                         contents,
                     }| {
                        let flags = FeatureFlags::archive(DigestAlgorithm::Sha512_256);
                        let digest = *digest;
                        let contents = contents.as_deref().unwrap_or_default().escape_ascii();
                        format!(
                            "{} contents={contents}\n",
                            MtreeLine {
                                path,
                                node,
                                flags,
                                digest
                            }
                        )
                    },
                )
                .collect(),
            Err(error) => format!("{error}\n"),
        };
        expected.assert_eq(&lines);
    }

    #[test]
    fn nested_lines_with_defaults_are_read() {
        check(
            "#mtree v2.0\n\
             /set type=file uid=5 gid=6 mode=0600 flags=none\n\
             .    type=dir nlink=3 mode=755\n\
             \x20   dir type=dir \\\n\
             \x20       uname=user time=5.7\n\
             \x20       a\\sb size=3 contents=/else\\040where md5=00\n\
             \x20   ..\n\
             /unset uid all\n\
             \x20   link type=link link=dir/a\\040b time=-1.500000000\n\
             ./dir/whole size=0 uname=root\n\
             \x20   null type=char device=linux,1,3 flags=schg\n",
            expect![[r#"
                . type=dir mode=0755 uid=5 gid=6 flags=nohidden,nosystem,noarchive,nosappend,nosimmutable time=0.000000000 contents=
                dir type=dir mode=0600 uid=5 gid=6 uname=user flags=nohidden,nosystem,noarchive,nosappend,nosimmutable time=5.000000007 contents=
                dir/a\040b type=file mode=0600 size=3 uid=5 gid=6 flags=nohidden,nosystem,noarchive,nosappend,nosimmutable time=0.000000000 contents=/else where
                link type=link mode=0777 link=dir/a\040b uid=0 gid=0 uname=root gname=root time=-1.500000000 contents=
                dir/whole type=file mode=0644 size=0 uid=0 gid=0 uname=root gname=root flags=nohidden,nosystem,noarchive,nosappend,nosimmutable time=0.000000000 contents=
                null type=char mode=0644 device=linux,1,3 uid=0 gid=0 uname=root gname=root time=0.000000000 contents=
            "#]],
        );
    }

    #[test]
    fn lines_that_mean_nothing_are_refused() {
        let mut report = String::new();
        for line in [
            "..",
            "/etc/passwd size=0",
            "../up size=0",
            "a/../../up size=0",
            "a//b size=0",
            "a\\057b size=0",
            "a\\000 size=0",
            "a\\9 size=0",
            ". size=0",
            "a",
            "a type=door",
            "a type=link",
            "a type=block",
            "a type=block device=native,4096,0",
            "a size=-1",
            "a size=0 mode=8",
            "a size=0 mode=100644",
            "a size=0 uid=4294967296",
            "a size=0 time=1.1000000000",
            "a size=0 time=1.",
            "a size=0 sha256=00",
        ] {
            let error = read(MtreePaths::Nested, line).expect_err(line);
            report += &format!("{line}: {}\n", error.rule);
        }
        expect![[r#"
            ..: more directories are left than were entered
            /etc/passwd size=0: a path is absolute, or a command is unknown
            ../up size=0: a name is . or ..
            a/../../up size=0: a name is . or ..
            a//b size=0: a name is empty
            a\057b size=0: a name holds a /
            a\000 size=0: a name or a target holds a NUL
            a\9 size=0: an escape is neither three octal digits nor one that vis(3) writes
            . size=0: the root is not a directory
            a: a file has no size
            a type=door: a type is none of dir, file, link, char, block, fifo and socket
            a type=link: a link has no target
            a type=block: a device has no numbers
            a type=block device=native,4096,0: a device is not format,major,minor
            a size=-1: a size is no number
            a size=0 mode=8: a mode is not octal, up to 7777
            a size=0 mode=100644: a mode is not octal, up to 7777
            a size=0 uid=4294967296: a user id is no number
            a size=0 time=1.1000000000: a time is not seconds.nanoseconds
            a size=0 time=1.: a time is not seconds.nanoseconds
            a size=0 sha256=00: a digest is not 64 hex digits
        "#]]
        .assert_eq(&report);
        let long = "x".repeat(LINE_LEN_MAX + 1);
        let error = read(MtreePaths::Whole, &format!("# one\n{long}")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad mtree text at line 2: a line is longer than 1 MiB"
        );
    }

    #[test]
    fn directories_inside_each_other_are_bounded() {
        let error = read(MtreePaths::Nested, &"d type=dir\n".repeat(DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(
            (error.line, error.rule),
            (DEPTH_MAX as u64 + 1, "a path has more names than the limit")
        );
    }
}
