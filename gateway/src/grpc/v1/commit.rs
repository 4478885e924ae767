//! CommitManifest: an object of chunks that are there already, by their ids or by a chunk index.
//!
//! What a chunk index becomes at the index root (`crate::faces`) it becomes here: both make the body by `Objects::body_of_index`. What is
//! missing is an answer and no error, so that a sender can go on.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex};
use cairn_index::names::{ChunkerKind, Condition, ObjectKey};
use cairn_index::{Body, Error};
use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::commit_manifest_request::Manifest;
use cairn_proto::cairn::v1::put_object_request::Header;
use tonic::Status;

use super::chunk_store::{IDS_MAX, packed};
use super::objects::{OBJECT_LEN_MAX, check_described, condition_of, key_of, name, show};
use super::{InBucket, of_index};
use crate::grpc::Core;
use crate::grpc::error::Answer;

/// A request that can be done.
#[derive(Debug)]
pub(super) struct Commit {
    session: Bytes,
    keep_session: bool,
    key: ObjectKey,
    condition: Condition,
    header: Header,
    manifest: Chunks,
}

#[derive(Debug)]
enum Chunks {
    Index(ChunkIndex),
    List { ids: Vec<ChunkId>, lens: Option<Vec<u32>> },
}

impl Commit {
    /// Errors: `INVALID_ARGUMENT`.
    pub(super) fn read(request: proto::CommitManifestRequest) -> Result<Self, Status> {
        let header = request
            .header
            .ok_or_else(|| Status::invalid_argument("the header says where the object goes"))?;
        let manifest = match request.manifest {
            None => return Err(Status::invalid_argument("a commit has an index or a list of chunks")),
            Some(Manifest::Index(bytes)) => {
                let index = ChunkIndex::parse(bytes);
                Chunks::Index(index.map_err(|error| Status::invalid_argument(error.to_string()))?)
            }
            Some(Manifest::Chunks(list)) => {
                let (ids, rest) = list.ids.as_chunks::<32>();
                if !rest.is_empty() {
                    return Err(Status::invalid_argument("ids are 32 bytes each"));
                }
                Chunks::List {
                    ids: ids.iter().map(|id| ChunkId::from_bytes(*id)).collect(),
                    lens: Some(list.lengths).filter(|lens| !lens.is_empty()),
                }
            }
        };
        check_described(&header)?;
        Ok(Self {
            session: request.session,
            keep_session: request.keep_session,
            key: key_of(&header.key)?,
            condition: condition_of(&header)?,
            header,
            manifest,
        })
    }

    /// Makes the object, or says what it lacks. May block.
    ///
    /// Errors: `NOT_FOUND` for a session that has ended; `INVALID_ARGUMENT` for a list that is wrong; those of a put.
    pub(super) fn run(self, core: &Arc<Core>, admitted: &InBucket) -> Answer<proto::CommitManifestResponse> {
        core.sessions.renew_named(admitted, &self.session)?;
        let body = match self.body(core, admitted) {
            Ok(body) => body,
            Err(error) => return lacks(error),
        };
        if body.byte_len() > OBJECT_LEN_MAX {
            return Err(Status::invalid_argument("an object has 5 TiB at most").into());
        }
        let written = match name(body, &admitted.permit, &self.key, self.header, &self.condition)? {
            Ok(written) => written,
            Err(error) => return lacks(error),
        };
        if !(self.keep_session || self.session.is_empty()) {
            // It may have ended by itself a moment ago: the object is there.
            let _ = core.sessions.end(admitted, &self.session);
        }
        Ok(proto::CommitManifestResponse {
            object: Some(show(&admitted.bucket, self.key.as_str(), &written.version)),
            ..Default::default()
        })
    }

    fn body(&self, core: &Arc<Core>, admitted: &InBucket) -> cairn_index::Result<Body> {
        let (objects, bucket) = (&core.objects, &admitted.bucket);
        match &self.manifest {
            Chunks::Index(index) => objects.body_of_index(bucket, index, ChunkerKind::from(index.flags().dialect())),
            Chunks::List { ids, lens } => objects.body_of_chunks(bucket, ids, lens.as_deref()),
        }
    }
}

/// An error of a commit: chunks that are missing are an answer.
fn lacks(error: Error) -> Answer<proto::CommitManifestResponse> {
    match error {
        Error::ChunksMissing { ids } => Ok(proto::CommitManifestResponse {
            object: None,
            missing: packed(&ids[..ids.len().min(IDS_MAX)]),
            missing_count: ids.len() as u64,
        }),
        error @ (Error::ChunkLength { .. }
        | Error::Malformed {
            what: "chunk index" | "list of an object's chunks",
            ..
        }) => Err(Status::invalid_argument(error.to_string()).into()),
        error => Err(of_index(error)),
    }
}
