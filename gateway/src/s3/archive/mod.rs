//! Files inside archives: an object `x.catar`, or `x.caidx` with its chunks in the bucket's domain, is browsed like a folder.
//!
//! Read-only, where the bucket's settings say so, and never in the place of a real object. Nothing is unpacked: a path costs the
//! tables on the way to it ([`cairn_formats::ArchiveLookup`]), a file its own bytes. Archives come from outside, so all that they can
//! make the server do has a bound here, and what breaks a rule is `InvalidRequest` with the reason. Regular files are objects and
//! directories are common prefixes; other kinds, and names that no key can have, are not seen.

mod walk;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cairn_formats::{
    ArchiveLimits, ArchiveLookup, Content as NodeContent, DigestAlgorithm, EntryPlace, LookupError, Placed,
};
use cairn_index::names::{
    Bucket, BucketId, Content, Current, Etag, List, ListPage, ListedObject, ObjectKey, ObjectRecord, ObjectVersion,
    Switch, VersionId, VersionKind, VersionOrder,
};
use cairn_index::{ArchiveObject, Error, LookedAt, ObjectReader, Objects};

use crate::s3::error::{Code, S3Error, S3Result};

/// Endings of keys that may be archives: of an archive's bytes, and of its index.
const ENDINGS: [&str; 2] = [".catar", ".caidx"];
/// Places in a key where an archive may end that are looked at.
const CANDIDATES_MAX: usize = 8;
/// Bytes of an index that is read, and held while the archive is open: 50 GiB of chunks of the default size.
const INDEX_LEN_MAX: usize = 32 << 20;
/// Archives that stay open.
const OPEN_MAX: usize = 16;
/// Bytes that open archives hold together, unless one alone holds more.
const OPEN_LEN_MAX: usize = 64 << 20;
/// Directories of an open archive whose entries are kept in order, and entries of them together.
const DIRECTORIES_KEPT: usize = 256;
const ENTRIES_KEPT: usize = 100_000;
/// What archives may have: more is refused.
const LIMITS: ArchiveLimits = ArchiveLimits {
    depth_max: 256,
    directory_entries_max: 100_000,
    metadata_len_max: 1 << 20,
};
/// Bytes of an inode's records that an open archive is taken to hold beside its index.
const OPEN_LEN_LEAST: usize = 2 << 20;

/// Archives of all buckets that were looked into lately, the last one behind.
#[derive(Debug, Default)]
pub(crate) struct Archives(Mutex<VecDeque<(ArchiveKey, Arc<Archive>)>>);

/// Another version is another archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ArchiveKey {
    bucket: BucketId,
    key: ObjectKey,
    order: VersionOrder,
}

/// An archive that is open.
#[derive(Debug)]
pub(crate) struct Archive {
    lookup: ArchiveLookup<ArchiveObject>,
    /// The archive's own, whose owner and date its files have.
    version: ObjectVersion,
    /// By the offset of the directory, the one used last behind.
    directories: Mutex<VecDeque<(u64, Arc<[Entry]>)>>,
    held_len: usize,
}

/// An entry of a directory that can be seen.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// With `/` behind that of a directory, so that entries sort as keys do.
    name: String,
    seen: Seen,
}

#[derive(Clone, Debug)]
enum Seen {
    Directory(Directory),
    File(File),
}

/// Where a directory is.
#[derive(Clone, Copy, Debug)]
struct Directory {
    /// Offset of its record; no other has it.
    at: u64,
    /// `None`: the root.
    place: Option<EntryPlace>,
}

/// A regular file.
#[derive(Clone, Debug)]
struct File {
    /// Its bytes in the archive.
    content: Range<u64>,
    mode: u32,
    /// Nanoseconds since 1970.
    mtime: i128,
}

/// A file inside an archive that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    archive: Arc<Archive>,
    content: Range<u64>,
}

impl Inside {
    /// Bytes of the file, in order.
    pub(crate) fn reader(&self, range: Range<u64>) -> S3Result<FileReader> {
        let start = self.content.start;
        let reader = self
            .archive
            .lookup
            .bytes()
            .reader(start + range.start..start + range.end);
        let reader = reader.map_err(|error| unreadable(&self.archive.name(), error))?;
        Ok(FileReader { reader, chunks: 0 })
    }
}

/// Reads a file inside an archive, and counts what that takes.
#[derive(Debug)]
pub(crate) struct FileReader {
    reader: ObjectReader,
    /// Of those that it has read, the counted ones.
    chunks: u64,
}

impl Iterator for FileReader {
    type Item = cairn_index::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.reader.next();
        let bytes = piece.iter().flatten().map(|piece| piece.len() as u64).sum();
        let read = self.reader.chunks_read();
        let before = std::mem::replace(&mut self.chunks, read);
        let chunks = read - before;
        count("files", LookedAt { bytes, chunks });
        piece
    }
}

/// - `of`: `files` or `lookups`.
fn count(of: &'static str, read: LookedAt) {
    metrics::counter!("s3_archive_bytes_total", "of" => of).increment(read.bytes);
    metrics::counter!("s3_archive_chunks_total", "of" => of).increment(read.chunks);
}

/// The ends of all archives' keys that `text` may lead into: offsets of the `/` behind them.
fn candidates(text: &str) -> impl Iterator<Item = usize> {
    let slashes = text.match_indices('/').map(|(at, _)| at);
    slashes
        .filter(|&at| ENDINGS.iter().any(|ending| text[..at].ends_with(ending)))
        .take(CANDIDATES_MAX)
}

/// Whether a key, or the prefix of a listing, may lead into an archive of this bucket.
pub(crate) fn may_lead_inside(bucket: &Bucket, text: &str) -> bool {
    bucket.record.settings.browse_archives == Switch::On && candidates(text).next().is_some()
}

impl Archives {
    /// The file at a key that no object has; `None`: there is no such archive, or no such file in it.
    ///
    /// Returns it as the version that it would be if it were an object.
    pub(crate) fn find(
        &self,
        objects: &Arc<Objects>,
        bucket: &Bucket,
        key: &str,
    ) -> S3Result<Option<(ObjectVersion, Inside)>> {
        let Some((archive, at)) = self.on_the_way(objects, bucket, key)? else {
            return Ok(None);
        };
        let Some(file) = archive.counted(|archive| archive.file(&key[at + 1..]))? else {
            return Ok(None);
        };
        let version = archive.version_of(&file)?;
        let content = file.content;
        Ok(Some((version, Inside { archive, content })))
    }

    /// A page of the keys inside an archive that a prefix leads into; `None`: it leads into none, or there are objects below the
    /// archive's key, which are listed then.
    pub(crate) fn list(
        &self,
        objects: &Arc<Objects>,
        bucket: &Bucket,
        list: &List<'_>,
    ) -> S3Result<Option<ListPage<ListedObject>>> {
        let Some((archive, at)) = self.on_the_way(objects, bucket, list.prefix)? else {
            return Ok(None);
        };
        let below = List {
            prefix: &list.prefix[..=at],
            limit: 1,
            ..List::default()
        };
        if !objects.names().objects(bucket).list(&below)?.entries.is_empty() {
            return Ok(None);
        }
        archive.counted(|archive| walk::list(archive, at + 1, list)).map(Some)
    }

    /// The archive that a key or a prefix leads into, and where the `/` behind its key is.
    fn on_the_way(
        &self,
        objects: &Arc<Objects>,
        bucket: &Bucket,
        text: &str,
    ) -> S3Result<Option<(Arc<Archive>, usize)>> {
        let rows = objects.names().objects(bucket);
        for at in candidates(text) {
            let name = &text[..at];
            let Ok(key) = ObjectKey::new(name) else { continue };
            if let Current::Object(version) = rows.get(&key)? {
                return Ok(Some((self.open(objects, bucket, key, *version)?, at)));
            }
            // The index of an archive that is there.
            if let Some(stem) = name.strip_suffix(".caidx")
                && let Ok(key) = ObjectKey::new(format!("{stem}.catar"))
                && let Current::Object(version) = rows.get(&key)?
            {
                return Ok(Some((self.open(objects, bucket, key, *version)?, at)));
            }
        }
        Ok(None)
    }

    fn open(
        &self,
        objects: &Arc<Objects>,
        bucket: &Bucket,
        key: ObjectKey,
        version: ObjectVersion,
    ) -> S3Result<Arc<Archive>> {
        let key = ArchiveKey {
            bucket: bucket.id(),
            key,
            order: version.order,
        };
        let open = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut open = open();
            if let Some(at) = open.iter().position(|(own, _)| *own == key)
                && let Some(found) = open.remove(at)
            {
                let archive = Arc::clone(&found.1);
                open.push_back(found);
                return Ok(archive);
            }
        }
        let archive = Arc::new(Archive::open(objects, bucket, key.key.as_str(), version)?);
        let mut open = open();
        open.push_back((key, Arc::clone(&archive)));
        let held = |open: &VecDeque<(ArchiveKey, Arc<Archive>)>| -> usize {
            open.iter().map(|(_, archive)| archive.held_len).sum()
        };
        while open.len() > OPEN_MAX || (open.len() > 1 && held(&open) > OPEN_LEN_MAX) {
            open.pop_front();
        }
        Ok(archive)
    }
}

impl Archive {
    fn open(objects: &Arc<Objects>, bucket: &Bucket, key: &str, version: ObjectVersion) -> S3Result<Self> {
        let record = version.object().ok_or(Code::NoSuchKey)?;
        let is_index = key.ends_with(".caidx");
        let bytes = match is_index {
            false => objects.archive(bucket, record),
            true => {
                let opened = objects.indexed_archive(bucket, record, INDEX_LEN_MAX);
                opened.map_err(|error| unreadable(key, error))?
            }
        };
        let held_len = OPEN_LEN_LEAST
            + if is_index {
                usize::try_from(record.size).unwrap_or(usize::MAX)
            } else {
                0
            };
        let lookup = ArchiveLookup::open(bytes, LIMITS).map_err(|error| broken(key, error))?;
        count("lookups", lookup.bytes().take_looked_at());
        metrics::counter!("s3_archives_opened_total").increment(1);
        Ok(Self {
            lookup,
            version,
            directories: Mutex::default(),
            held_len,
        })
    }

    /// For logs and errors; an archive's key is in the request.
    fn name(&self) -> String {
        self.version
            .object()
            .map_or(String::new(), |record| record.etag.to_string())
    }

    fn broken(&self, error: LookupError<Error>) -> S3Error {
        broken(&self.name(), error)
    }

    /// Counts what a look into it has read.
    fn counted<T>(self: &Arc<Self>, look: impl FnOnce(&Arc<Self>) -> S3Result<T>) -> S3Result<T> {
        let found = look(self);
        count("lookups", self.lookup.bytes().take_looked_at());
        found
    }

    /// The file at a path of names with `/` between.
    fn file(&self, path: &str) -> S3Result<Option<File>> {
        let (path, name) = path.rsplit_once('/').map_or(("", path), |(path, name)| (path, name));
        let Some(directory) = self.directory(path)? else {
            return Ok(None);
        };
        Ok(match self.child(directory, name)? {
            Some(Seen::File(file)) => Some(file),
            _ => None,
        })
    }

    /// The directory at a path of names with `/` between, and perhaps behind; empty is the root.
    fn directory(&self, path: &str) -> S3Result<Option<Directory>> {
        let mut directory = Directory {
            at: self.lookup.root().at,
            place: None,
        };
        for name in path.split_terminator('/') {
            match self.child(directory, name)? {
                Some(Seen::Directory(child)) => directory = child,
                _ => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// An entry of a directory: from what is kept of it, else by its table.
    fn child(&self, directory: Directory, name: &str) -> S3Result<Option<Seen>> {
        if let Some(entries) = self.kept_entries(directory.at) {
            let find = |name: &str| {
                let at = entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
                Some(entries[at].seen.clone())
            };
            return Ok(find(name).or_else(|| find(&format!("{name}/"))));
        }
        let Some(placed) = self.placed(directory)? else {
            return Ok(None);
        };
        let child = self.lookup.child(&placed, name.as_bytes());
        let child = child.map_err(|error| self.broken(error))?;
        Ok(child.as_ref().and_then(Entry::of).map(|entry| entry.seen))
    }

    fn placed(&self, directory: Directory) -> S3Result<Option<Placed>> {
        match directory.place {
            None => Ok(Some(self.lookup.root().clone())),
            Some(place) => self.lookup.entry(place).map_err(|error| self.broken(error)),
        }
    }

    fn kept_entries(&self, at: u64) -> Option<Arc<[Entry]>> {
        let mut kept = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(own, _)| *own == at)?;
        let found = kept.remove(found)?;
        let entries = Arc::clone(&found.1);
        kept.push_back(found);
        Some(entries)
    }

    /// What can be seen of a directory, in the order of keys.
    fn entries(&self, directory: Directory) -> S3Result<Arc<[Entry]>> {
        if let Some(entries) = self.kept_entries(directory.at) {
            return Ok(entries);
        }
        let mut entries = Vec::new();
        if let Some(placed) = self.placed(directory)? {
            let children = self.lookup.children(&placed).map_err(|error| self.broken(error))?;
            for child in children {
                let child = child.map_err(|error| self.broken(error))?;
                entries.extend(Entry::of(&child));
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let entries: Arc<[Entry]> = entries.into();
        let mut kept = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((directory.at, Arc::clone(&entries)));
        let held =
            |kept: &VecDeque<(u64, Arc<[Entry]>)>| -> usize { kept.iter().map(|(_, entries)| entries.len()).sum() };
        while kept.len() > DIRECTORIES_KEPT || (kept.len() > 1 && held(&kept) > ENTRIES_KEPT) {
            kept.pop_front();
        }
        Ok(entries)
    }

    /// A file as the version that it would be if it were an object: the archive's owner and date, a tag of its own.
    fn version_of(&self, file: &File) -> S3Result<ObjectVersion> {
        let of = self.version.object().ok_or(Code::NoSuchKey)?;
        let text = format!("{}\n{}\n{}", of.etag, file.content.start, file.content.end);
        let digest = DigestAlgorithm::Sha256.id(text.as_bytes()).to_string();
        // No MD5 looks like it.
        let etag = Etag::opaque(&format!("{}-a", &digest[..32]))?;
        // What it is made of is asked of the archive, by `Inside`.
        let content = Content::Chunks {
            domain: of.content.domain(),
            chunks: Vec::new(),
        };
        let mut record = ObjectRecord::new(content, etag);
        record.size = file.content.end - file.content.start;
        let seconds = file.mtime.div_euclid(1_000_000_000);
        let nanoseconds = file.mtime.rem_euclid(1_000_000_000);
        // As rclone writes and reads them.
        record.metadata = vec![
            ("mode".to_owned(), format!("{:o}", file.mode)),
            ("mtime".to_owned(), format!("{seconds}.{nanoseconds:09}")),
        ];
        Ok(ObjectVersion {
            id: VersionId::NULL,
            kind: VersionKind::Object(Box::new(record)),
            ..self.version.clone()
        })
    }
}

impl Entry {
    fn of(placed: &Placed) -> Option<Self> {
        let name = std::str::from_utf8(placed.name.as_deref()?).ok()?;
        if let Some(file) = File::of(placed) {
            let (name, seen) = (name.to_owned(), Seen::File(file));
            return Some(Self { name, seen });
        }
        if placed.node.content != NodeContent::Directory {
            return None;
        }
        Some(Self {
            name: format!("{name}/"),
            seen: Seen::Directory(Directory {
                at: placed.at,
                place: Some(placed.place()?),
            }),
        })
    }
}

impl File {
    fn of(placed: &Placed) -> Option<Self> {
        if !matches!(placed.node.content, NodeContent::File { .. }) {
            return None;
        }
        Some(Self {
            content: placed.content.clone(),
            mode: placed.node.metadata.mode,
            mtime: placed.node.metadata.mtime,
        })
    }
}

/// An archive that breaks a rule, or could not be read.
fn broken(name: &str, error: LookupError<Error>) -> S3Error {
    match error {
        LookupError::Archive(error) => Code::ArchiveUnreadable.with("Reason", error.to_string()),
        LookupError::Read(error) => unreadable(name, error),
    }
}

/// What is the archive's fault is told; what is ours is logged, as anywhere.
fn unreadable(name: &str, error: Error) -> S3Error {
    use cairn_store::Error as E;
    match error {
        error @ (Error::Malformed { .. } | Error::TooLarge { .. }) => {
            Code::ArchiveUnreadable.with("Reason", error.to_string())
        }
        Error::Store(E::Missing { id, .. }) => {
            let reason = format!("chunk {id} of it is not in the bucket's domain");
            Code::ArchiveUnreadable.with("Reason", reason)
        }
        Error::Store(error @ E::Corrupt { .. }) => {
            // An index that lies about a length, or a chunk that is damaged.
            tracing::warn!(
                archive = name,
                error = cairn_store::error_chain(&error),
                "an archive cannot be read"
            );
            Code::ArchiveUnreadable.with("Reason", "a chunk of it is not what its index says")
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_lead_into_what_ends_as_an_archive() {
        let ends = |text: &str| candidates(text).map(|at| text[..at].to_owned()).collect::<Vec<_>>();
        assert_eq!(ends("a/t.caidx/x/y"), ["a/t.caidx"]);
        assert_eq!(ends("t.catar/"), ["t.catar"]);
        assert_eq!(ends("t.catar/u.caidx/v"), ["t.catar", "t.catar/u.caidx"]);
        assert_eq!(ends(".caidx//x"), [".caidx"]);
        for text in ["t.caidx", "t.caibx/x", "t.catarx/x", "", "/", "t.CATAR/x"] {
            assert!(ends(text).is_empty(), "{text}");
        }
        assert_eq!(ends(&"t.catar/".repeat(100)).len(), CANDIDATES_MAX);
    }
}
