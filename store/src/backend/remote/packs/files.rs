//! What packs need of named files behind a network beyond [`Files`]: parts of a file, new files that replace nothing, a
//! listing with lengths.

use bytes::Bytes;

use crate::backend::remote::patience::Patience;
use crate::backend::remote::{Fault, Files, Page, Try};

/// A folder of packs lies in one of these names below the store's place.
pub(crate) const FOLDER: &str = "packs";

/// Named files of which parts can be read, and to which new ones can be added without replacing any.
pub(crate) trait PackFiles: Files {
    /// Exactly the bytes `start..end` of a file, `None` where there is none. One that ends before is a passing fault: it is
    /// not what was listed.
    fn read_range(&self, name: &str, start: u64, end: u64) -> impl Future<Output = Try<Option<Bytes>>> + Send;

    /// Puts a new file: seen whole or not at all, durable when this returns, and never in place of another.
    ///
    /// - Returns whether it was put; `false`: a file of that name is there, perhaps from a try of ours whose answer was lost.
    fn create(&self, name: &str, body: Bytes) -> impl Future<Output = Try<bool>> + Send;

    /// The same for a body of which parts can be tried again; `part_len`: bytes of a part at most.
    fn create_in_parts(
        &self,
        name: &str,
        body: Bytes,
        _part_len: usize,
        patience: &Patience,
    ) -> impl Future<Output = Result<bool, Fault>> + Send {
        async move {
            let created = patience.insist(|| self.create(name, body.clone())).await;
            created.map_err(Fault::from)
        }
    }

    /// Files below [`FOLDER`], with their lengths, in order and behind `after`: some of them, or all. None where the folder
    /// is missing.
    fn list_packs(&self, after: Option<&str>) -> impl Future<Output = Try<Page>> + Send;

    /// Something that is there, anywhere below the store's place; `None` where nothing is, and where the place itself is not.
    fn any_name(&self) -> impl Future<Output = Try<Option<String>>> + Send;

    /// Whether a refusal may only mean that the file is not there, as S3 servers answer those who may not list.
    fn may_be_missing(&self, _fault: &Fault) -> bool {
        false
    }
}
