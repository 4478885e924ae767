//! What is in an archive as text: the lines of mtree(5), in casync's form.
//!
//! A line is `path keyword=value …`. It is casync's byte for byte but for one thing: of inodes that are neither files nor
//! directories casync says that every attribute is set (it prints bits that it does not have); here they have no `flags`.
//! desync's lines keep less: neither names nor devices nor setuid, `target` for `link`, and a space in a name as it is, so that
//! the line cannot be read back.

use std::fmt;

use super::metadata::{Content, Node};
use crate::{DigestAlgorithm, FeatureFlags};

/// One line of mtree(5) text about one entry; `Display` writes it, without the end of the line.
#[derive(Clone, Copy, Debug)]
pub struct MtreeLine<'a> {
    /// Names from the root down with `/` between them; empty for the root, which is shown as `.`.
    pub path: &'a [u8],
    /// The entry.
    pub node: &'a Node,
    /// The archive's flags: what it does not keep is left out.
    pub flags: FeatureFlags,
    /// Digest of a file's bytes, and which one it is.
    pub digest: Option<(DigestAlgorithm, [u8; 32])>,
}

impl fmt::Display for MtreeLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = &self.node.metadata;
        let has = |bits| self.flags.has(bits);
        let path = if self.path.is_empty() { b"." } else { self.path };
        let kind = match self.node.content {
            Content::Directory => "dir",
            Content::File { .. } => "file",
            Content::Symlink { .. } => "link",
            Content::CharacterDevice(_) => "char",
            Content::BlockDevice(_) => "block",
            Content::Fifo => "fifo",
            Content::Socket => "socket",
        };
        write!(f, "{} type={kind} mode={:04o}", Escaped(path), meta.mode & 0o7777)?;
        match &self.node.content {
            Content::File { len } => write!(f, " size={len}")?,
            Content::Symlink { target } => write!(f, " link={}", Escaped(target))?,
            Content::CharacterDevice(device) | Content::BlockDevice(device) => {
                write!(f, " device=linux,{},{}", device.major, device.minor)?;
            }
            Content::Directory | Content::Fifo | Content::Socket => {}
        }
        let numbers = has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT);
        if numbers {
            write!(f, " uid={} gid={}", meta.uid, meta.gid)?;
        }
        if has(FeatureFlags::USER_NAMES) {
            for (key, id, name) in [("uname", meta.uid, &meta.user), ("gname", meta.gid, &meta.group)] {
                match name {
                    Some(name) => write!(f, " {key}={}", Escaped(name))?,
                    // The one name that archives do not have.
                    None if numbers && id == 0 => write!(f, " {key}=root")?,
                    None => {}
                }
            }
        }
        if matches!(self.node.content, Content::Directory | Content::File { .. }) {
            self.attributes(f)?;
        }
        if self.flags.time_granularity().is_some() {
            const SECOND: i128 = 1_000_000_000;
            let (seconds, nanoseconds) = (meta.mtime.div_euclid(SECOND), meta.mtime.rem_euclid(SECOND));
            write!(f, " time={seconds}.{nanoseconds:09}")?;
        }
        if let Some((algorithm, digest)) = self.digest {
            f.write_str(match algorithm {
                DigestAlgorithm::Sha512_256 => " sha512256digest=",
                DigestAlgorithm::Sha256 => " sha256digest=",
            })?;
            digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl MtreeLine<'_> {
    /// Attributes that mtree(5) has names for, each of those kept, with `no` before it where it is not set.
    fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u64, &str); 6] = [
            (FeatureFlags::FLAG_HIDDEN, "hidden"),
            (FeatureFlags::FLAG_SYSTEM, "system"),
            (FeatureFlags::FLAG_ARCHIVE, "archive"),
            (FeatureFlags::FLAG_APPEND, "sappend"),
            (FeatureFlags::FLAG_NODUMP, "nodump"),
            (FeatureFlags::FLAG_IMMUTABLE, "simmutable"),
        ];
        let mut before = " flags=";
        for (flag, name) in NAMES {
            if self.flags.has(flag) {
                let no = if self.node.metadata.attributes & flag == 0 {
                    "no"
                } else {
                    ""
                };
                write!(f, "{before}{no}{name}")?;
                before = ",";
            }
        }
        Ok(())
    }
}

/// Bytes with all but the printable characters of ASCII, and with `\` and `#`, as a backslash and three octal digits.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b'\\' | b'#' => write!(f, "\\{byte:03o}"),
            b'!'..=b'~' => write!(f, "{}", char::from(byte)),
            _ => write!(f, "\\{byte:03o}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{ArchiveDecoder, ArchiveLimits, DigestStream, Step};

    fn lines(archive: &'static [u8], algorithm: DigestAlgorithm) -> String {
        let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
        decoder.push(Bytes::from_static(archive));
        decoder.finish();
        let (mut path, mut lines) = (Vec::<Bytes>::new(), Vec::new());
        loop {
            let (name, node) = match decoder.next().unwrap() {
                Step::Enter { name, node, .. } => (name, node),
                Step::Leave => {
                    path.pop();
                    continue;
                }
                Step::End => return lines.concat(),
                step => panic!("{step:?}: payload is taken below"),
            };
            path.extend(name);
            let mut stream = DigestStream::new(algorithm);
            let Content::File { len: mut left } = node.content else {
                lines.push(line(&path, &node, decoder.flags().unwrap(), None));
                if node.content != Content::Directory {
                    path.pop();
                }
                continue;
            };
            while left > 0 {
                let Step::Payload(bytes) = decoder.next().unwrap() else {
                    panic!("a file's bytes follow it");
                };
                left -= bytes.len() as u64;
                stream.update(&bytes);
            }
            let digest = Some((algorithm, stream.finish()));
            lines.push(line(&path, &node, decoder.flags().unwrap(), digest));
            path.pop();
        }
    }

    fn line(path: &[Bytes], node: &Node, flags: FeatureFlags, digest: Option<(DigestAlgorithm, [u8; 32])>) -> String {
        let path = path.join(&b'/');
        let path = &path;
        format!(
            "{}\n",
            MtreeLine {
                path,
                node,
                flags,
                digest
            }
        )
    }

    const KINDS: &[u8] = include_bytes!("../../testdata/kinds.catar");

    #[test]
    fn lines_are_casyncs_but_for_flags_of_what_has_none() {
        let expected = include_str!("../../testdata/kinds.mtree");
        let expected = expected.replace(" flags=hidden,system,archive,sappend,simmutable", "");
        assert_eq!(lines(KINDS, DigestAlgorithm::Sha512_256), expected);
    }

    /// casync with `--digest=sha256` writes SHA-512/256 under this name, at least of an archive's files.
    #[test]
    fn the_digest_is_the_one_that_its_name_says() {
        let lines = lines(KINDS, DigestAlgorithm::Sha256);
        let empty = lines.lines().find(|line| line.starts_with("empty ")).unwrap();
        let of_nothing = " sha256digest=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(empty.ends_with(of_nothing), "{empty}");
    }

    #[test]
    fn what_is_not_kept_is_left_out() {
        let node = |content: Content, mtime| Node {
            metadata: crate::Metadata {
                mode: content.kind_bits() | 0o755,
                mtime,
                ..crate::Metadata::default()
            },
            content,
        };
        let check = |flags, mtime, expected: &str| {
            let node = node(Content::Directory, mtime);
            assert_eq!(line(&[], &node, FeatureFlags(flags), None), expected);
        };
        check(0, 0, ". type=dir mode=0755\n");
        check(
            FeatureFlags::USER_NAMES | FeatureFlags::FLAG_NODUMP,
            0,
            ". type=dir mode=0755 flags=nonodump\n",
        );
        let before_1970 = ". type=dir mode=0755 uid=0 gid=0 time=-2.500000000\n";
        check(FeatureFlags::desync_archive().0, -1_500_000_000, before_1970);
    }
}
