//! Bytes to values and back: digests, the chunker, chunk indexes, chunk frames and archives of the casync family.
//!
//! Sans-IO: nothing here opens a file, a socket or a clock; randomness and time are arguments. Every count and length
//! from outside is bounded before memory is taken for it, and every error names the offset and the rule that was broken.
//! The byte tables are in `formats/FORMATS.md`.

mod archive;
mod checksum;
mod chunk;
mod chunker;
mod cipher;
mod digest;
mod flags;
mod frame;
mod id;
mod index;
mod input;
mod md5;
mod pack;
mod protocol;
mod pull;
mod words;

pub use archive::{
    Acl, AclDefault, AclEntry, ArchiveBytes, ArchiveDecoder, ArchiveEncoder, ArchiveError, ArchiveForm, ArchiveLimits,
    ArchiveLookup, Content, Device, EntryPlace, LookupError, Metadata, MtreeEntry, MtreeError, MtreeLine, MtreePaths,
    MtreeReader, Node, Placed, Step, Xattr, is_owner_name,
};
pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumStream};
pub use chunk::{Chunk, ChunkError, ChunkForm, EncodedChunk, StorableChunk};
pub use chunker::{
    CHUNK_LEN_MAX, Candidates, ChunkSizes, ChunkSizesError, Chunker, CutRule, Dialect, JoinStep, Kernel, PartCuts,
    PartCutter, PartJoin, Sweep,
};
pub use cipher::{ChunkCipher, CipherAlgorithm, CipherError, CipherKey, KeyId, NONCE_LEN, ParseCipherError};
pub use digest::{DigestAlgorithm, DigestKernel, DigestStream};
pub use flags::{FeatureFlags, ParseFlagError};
pub use frame::{FrameError, Level, compress_frame, decompress_frame, decompress_frame_into, raw_frame, raw_pieces};
pub use id::{ChunkId, ParseChunkIdError};
pub use index::{ChunkIndex, ChunkSpan, IndexEncoder, IndexError, NullChunk};
pub use md5::{Md5Kernel, Md5Stream};
pub use pack::{
    DomainId, GONE_LEN_MAX, GONE_MAX, GoneChunk, PACK_HAS_SNAPSHOTS, PACK_HEADER_LEN, PACK_LEN_MAX, PACK_TAIL_LEN,
    PackEntry, PackError, PackFooter, PackHeader, PackTail, PackUuid, RECORD_HEAD_LEN, RECORD_LEN_MAX,
    RECORD_PREFIX_LEN_MAX, RecordHead, RecordKind, RecordSpan, Removal, SNAPSHOT_HEAD_LEN, SnapshotEnd, SnapshotHead,
    SnapshotUuid, find_record, payload_crc, skippable_head,
};
pub use protocol::{
    ABORT_REASON_LEN_MAX, Frame, FrameDecoder, HelloFlags, PROTOCOL_FRAME_LEN_MAX, ProtocolError, push_chunk_head,
};
pub use pull::{
    PULL_CONTENT_TYPE, PULL_HEADER, PULL_IDS_MAX, PULL_INDEX_LEN_MAX, PULL_PATH, PULL_REQUEST_LEN_MAX, PullAnswer,
    PullError, PullIndexAnswer, PullIndexStep, PullStep, index_frames, lacking, parse_pull_request, pull_request,
};
