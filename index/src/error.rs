//! What can go wrong in the index: one variant for each thing a caller does differently.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_formats::ChunkId;

/// Any error, as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Result of an index operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the index could not do it. A check of a commit that does not hold is no error: see [`crate::Commit`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for more than a named limit allows. Nothing was done.
    #[error("{what} of {len} bytes, the limit is {max}")]
    TooLarge {
        /// What is too large: a key, a value, a batch.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A batch names one key in two writes. Nothing was done.
    #[error("a batch writes row {key} twice")]
    WrittenTwice {
        /// The key, as [`crate::show_key`] prints it.
        key: String,
    },
    /// A batch adds to a row that is no counter. Nothing was done.
    #[error("row {key} holds {len} bytes and is no counter to add to")]
    NotACounter {
        /// The key, as [`crate::show_key`] prints it.
        key: String,
        /// Bytes of the row's value.
        len: usize,
    },
    /// A counter would leave the range of an `i64`. Nothing was done.
    #[error("counter {key} would overflow")]
    Overflow {
        /// The key, as [`crate::show_key`] prints it.
        key: String,
    },
    /// A key, a value or a commit record is not what our encoding says. It was written by something else, or damaged.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name is not one that the index takes.
    #[error("{name:?} is no name of a {what}: {rule}")]
    BadName {
        /// What should have been named.
        what: &'static str,
        /// What was given.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Another process has the folder open, or this one has it open twice.
    #[error("the index in {} is open elsewhere: stop the other server first", place.display())]
    Locked {
        /// The folder.
        place: PathBuf,
    },
    /// The folder holds what only a later release, or another program, can have written. Nothing was changed.
    #[error("the index in {} holds {what}, which this release does not know: use the release that wrote it", place.display())]
    Unknown {
        /// The folder.
        place: PathBuf,
        /// What is there.
        what: String,
    },
    /// The rows were written by a later release. Nothing was changed.
    #[error(
        "the index in {place} has schema {found} and this release knows schemas up to {known}: use the newer release"
    )]
    NewerSchema {
        /// What holds the index.
        place: String,
        /// The schema found.
        found: u32,
        /// The newest schema this release knows.
        known: u32,
    },
    /// The schema has rows that an older one has no place for. Nothing was changed.
    #[error("the index cannot go back to schema {to}: {because}")]
    CannotGoBack {
        /// The schema that was asked for.
        to: u32,
        /// Why not, and what to do.
        because: &'static str,
    },
    /// Events behind the place asked for have left the outbox: they are where its sink put them.
    #[error("events of shard {shard} up to {sealed} have left the outbox")]
    EventsGone {
        /// The shard.
        shard: u8,
        /// Position of the last one that has left.
        sealed: u64,
    },
    /// The engine's own files are damaged or of something else. The index can be rebuilt from the packs.
    #[error("the index in {} is damaged: move the folder away and have it rebuilt from the packs", place.display())]
    Damaged {
        /// The folder.
        place: PathBuf,
        /// What the engine said.
        source: BoxError,
    },
    /// The engine or its disk did not answer. Reads may be tried again; after a failed commit see [`Error::Broken`].
    #[error("the index in {place} failed while trying to {action}")]
    Unavailable {
        /// What holds the index.
        place: String,
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        source: BoxError,
    },
    /// The log had no room on its disk. As with [`Error::Unavailable`] the commit may happen later; others can be tried as soon
    /// as there is room.
    #[error("there is no room for the index: make some on the disk")]
    Full(#[source] Arc<Error>),
    /// The pack store failed.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// Chunks of this store may be named by indexes that are not here. Nothing was done.
    #[error(
        "the store is not declared rooted: indexes that lie elsewhere may name its chunks, so nothing is collected"
    )]
    Unrooted,
    /// One collection at a time.
    #[error("the store is being collected already")]
    Collecting,
    /// It was asked to stop.
    #[error("the collection was stopped: run it again to go on")]
    Stopped,
    /// There is no such bucket of this tenant.
    #[error("there is no bucket {name}")]
    NoBucket {
        /// Its name.
        name: String,
    },
    /// The tenant has a bucket of this name already; its row tells whose.
    #[error("bucket {name} is there already")]
    BucketExists {
        /// Its name.
        name: String,
    },
    /// Another tenant has a bucket of this name: they are one for the whole server.
    #[error("the name {name} is taken")]
    BucketTaken {
        /// The name.
        name: String,
    },
    /// A bucket with versions or delete markers in it is not deleted.
    #[error("bucket {name} is not empty")]
    BucketNotEmpty {
        /// Its name.
        name: String,
    },
    /// The key has no current version that is an object.
    #[error("there is no object {key:?} in {bucket}")]
    NoObject {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The key has no version of this id.
    #[error("there is no version {version} of {key:?} in {bucket}")]
    NoVersion {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The version's id.
        version: String,
    },
    /// A list says of a chunk that it has more or fewer bytes than it has.
    #[error("chunk {id} has {len} bytes, and not {claimed}")]
    ChunkLength {
        /// The chunk.
        id: ChunkId,
        /// What was said.
        claimed: u32,
        /// What it has.
        len: u32,
    },
    /// There is no such upload, or no more.
    #[error("there is no upload {upload} of {key:?} in {bucket}")]
    NoUpload {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The upload's id.
        upload: String,
    },
    /// The upload was completed or given up meanwhile.
    #[error("the upload has ended")]
    UploadEnded,
    /// What the caller asked to be true of the current version is not. Nothing was done.
    #[error("the condition on {key:?} does not hold")]
    Precondition {
        /// The key.
        key: String,
    },
    /// Chunks have been condemned or swept since the fence: take a new one, look all chunks up again, and commit again.
    #[error("chunks have been collected meanwhile: look them up again")]
    FenceMoved,
    /// Others changed the same rows each time it was tried. Nothing was done; it may be tried later.
    #[error("too many others change {what} at this moment")]
    Contended {
        /// What they change.
        what: &'static str,
    },
    /// Chunks are not in the store, or were collected: send them, or the whole, again.
    #[error("{} chunks are not there, the first is {}", ids.len(), ids[0])]
    ChunksMissing {
        /// Which, each once; at least one.
        ids: Vec<ChunkId>,
    },
    /// As many as a named limit allows are at work. It may be tried later.
    #[error("too many {what} at a time")]
    Busy {
        /// What there are too many of.
        what: &'static str,
    },
    /// Bytes are not those that the digest they came with is of.
    #[error("the bytes are not those of {digest}")]
    WrongDigest {
        /// The digest, as [`crate::names::BlobDigest`] shows it.
        digest: String,
    },
    /// Parts of an upload are not listed in ascending order, or none is.
    #[error("the parts of an upload have to be listed in ascending order")]
    PartOrder,
    /// An upload has no part of this number, tag and check sum.
    #[error("there is no such part {number}")]
    NoPart {
        /// Its number.
        number: u16,
    },
    /// A part that is not the last is too small.
    #[error("part {number} has {size} bytes, and only the last may have less than {least}")]
    PartTooSmall {
        /// Its number.
        number: u16,
        /// Its bytes.
        size: u64,
        /// Bytes of a part, at least.
        least: u64,
    },
    /// It would take the bucket over its quota. Nothing was done.
    #[error("bucket {name} is at its quota of {quota} {what}")]
    OverQuota {
        /// The bucket.
        name: String,
        /// What is counted: bytes, objects.
        what: &'static str,
        /// How many of them.
        quota: u64,
    },
    /// A place in a listing or a search that was not given out for it.
    #[error("the place to go on from is not one of this {what}")]
    BadPlace {
        /// What should be gone on with.
        what: &'static str,
    },
    /// An earlier commit failed half-way, so it is not known what is durable. Commits are refused until the index is opened
    /// again, which replays the log; reads go on.
    #[error("the index takes no commits since one failed half-way: restart the server")]
    Broken,
}

impl Error {
    /// Whether it failed for want of room on the disk.
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let is_full =
                |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if error.downcast_ref::<io::Error>().is_some_and(is_full)
                || error
                    .downcast_ref::<cairn_store::Error>()
                    .is_some_and(cairn_store::Error::is_full)
            {
                return true;
            }
            cause = error.source();
        }
        // Transparent: its source is that of what is within.
        matches!(self, Self::Store(error) if error.is_full())
    }
}
