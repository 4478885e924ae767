//! Archives (`.catar`): a directory tree as one stream of records.
//!
//! An [`ArchiveEncoder`] takes nodes in order and appends records; an [`ArchiveDecoder`] takes bytes as they come and gives
//! nodes, payloads and ends of directories back; an [`ArchiveLookup`] finds one entry in an archive that can be read anywhere.
//! None recurses. Payload bytes pass untouched and uncopied.
//! Byte tables: `formats/FORMATS.md`, "Archives".

mod decoder;
mod encoder;
mod error;
mod goodbye;
mod lookup;
mod metadata;
mod mtree;
mod mtree_reader;
mod node;
mod record;
#[cfg(test)]
mod tests;

pub use decoder::{ArchiveDecoder, ArchiveLimits, Step};
pub use encoder::{ArchiveEncoder, ArchiveForm};
pub use error::ArchiveError;
pub use lookup::{ArchiveBytes, ArchiveLookup, EntryPlace, LookupError, Placed};
pub use metadata::{Acl, AclDefault, AclEntry, Content, Device, Metadata, Node, Xattr};
pub use mtree::MtreeLine;
pub use mtree_reader::{MtreeEntry, MtreeError, MtreePaths, MtreeReader};
pub use node::is_owner_name;
pub(crate) use record::ENTRY_TYPE;
