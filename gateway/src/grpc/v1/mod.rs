//! Our own services, `cairn.v1`: chunks and objects for those whom a bucket's owner lets in, the admin API for those who run the server.
//!
//! They are other faces of what is there: chunks are those of a chunk root, objects those of S3, the admin services hand each call to the
//! admin API ([`crate::admin::Admin::call`]), events are those of the outbox. Invariants: a call does its work in jobs of the door's pool, behind one decision
//! ([`InBucket`]) or the admin token; what streams is read and stored piece by piece. Not here: rules of buckets and objects.

mod admin;
mod chunk_store;
mod commit;
mod events;
mod objects;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::names::{Bucket, BucketName};
use cairn_index::{Error, Tenant};
use http::header::AUTHORIZATION;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Core;
use super::error::{Answer, Failed, busy};
use crate::faces::caller::Need;

pub(super) use admin::AdminServices;
pub(super) use chunk_store::ChunkStore;
pub(super) use events::Events;
pub(super) use objects::Objects;
pub use sessions::SessionOptions;
pub(super) use sessions::Sessions;

/// What a call is about, before anything is looked up.
#[derive(Clone, Debug)]
struct Asked {
    given: Option<Vec<u8>>,
    bucket: String,
    /// Of an object; none: it is about the bucket.
    key: Option<String>,
    action: Action,
    need: Need,
}

/// A call that may.
#[derive(Debug)]
struct InBucket {
    bucket: Bucket,
    permit: Permit,
}

impl Asked {
    fn of_bucket(metadata: &MetadataMap, bucket: &str, action: Action, need: Need) -> Self {
        Self {
            given: metadata
                .as_ref()
                .get(AUTHORIZATION)
                .map(|value| value.as_bytes().to_vec()),
            bucket: bucket.to_owned(),
            key: None,
            action,
            need,
        }
    }

    fn of_object(metadata: &MetadataMap, bucket: &str, key: &str, action: Action, need: Need) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..Self::of_bucket(metadata, bucket, action, need)
        }
    }

    /// The same caller about something else.
    fn and_object(&self, bucket: &str, key: &str, action: Action, need: Need) -> Self {
        Self {
            given: self.given.clone(),
            bucket: bucket.to_owned(),
            key: Some(key.to_owned()),
            action,
            need,
        }
    }
}

/// Does the work of a call in one job, if its caller may.
async fn in_bucket<T: Send + 'static>(
    core: &Arc<Core>,
    asked: Asked,
    work: impl FnOnce(&Arc<Core>, InBucket) -> Answer<T> + Send + 'static,
) -> Result<T, Status> {
    Ok(core.pool.run(job_of(Arc::clone(core), asked, work)).await?)
}

/// [`in_bucket`] of what may take long: others do not wait behind it.
async fn in_bucket_slowly<T: Send + 'static>(
    core: &Arc<Core>,
    asked: Asked,
    work: impl FnOnce(&Arc<Core>, InBucket) -> Answer<T> + Send + 'static,
) -> Result<T, Status> {
    Ok(core.slow_pool.run(job_of(Arc::clone(core), asked, work)).await?)
}

fn job_of<T>(
    core: Arc<Core>,
    asked: Asked,
    work: impl FnOnce(&Arc<Core>, InBucket) -> Answer<T>,
) -> impl FnOnce() -> Answer<T> {
    move || {
        let admitted = admit(&core, &asked)?;
        work(&core, admitted)
    }
}

/// Finds out who asks, reads the bucket, decides. May block.
fn admit(core: &Core, asked: &Asked) -> Answer<InBucket> {
    let caller = core.caller(asked.given.as_deref())?;
    let none = || Status::not_found("there is no such bucket");
    let name = BucketName::new(&asked.bucket).map_err(|_| none())?;
    // Of the caller's tenant: another's bucket is not there.
    let tenant = Tenant::new(&caller.user().tenant)?;
    let bucket = core.objects.names().buckets(&tenant).get(&name).map_err(of_index)?;
    let denied = |words: &str| Failed(Status::new(Code::PermissionDenied, words));
    caller.check_need(name.as_str(), asked.need).map_err(denied)?;
    let (tenant, owner) = (bucket.tenant().as_str(), bucket.record.owner.as_str());
    let resource = match &asked.key {
        Some(key) => Resource::Object {
            tenant,
            owner,
            bucket: name.as_str(),
            key,
        },
        None => Resource::Bucket {
            tenant,
            owner,
            bucket: name.as_str(),
        },
    };
    let principal = Principal::User(Arc::clone(caller.user()));
    let permit = authorize(&principal, asked.action, resource).map_err(|_| denied("access denied"))?;
    Ok(InBucket { bucket, permit })
}

/// Errors of the index as calls about buckets and objects are told them; the rest as everywhere.
fn of_index(error: Error) -> Failed {
    let status = match &error {
        Error::NoBucket { .. } => Status::not_found("there is no such bucket"),
        Error::NoObject { .. } | Error::NoVersion { .. } => Status::not_found("there is no such object"),
        Error::Precondition { .. } => Status::failed_precondition("the object is not the one that was meant"),
        Error::BadPlace { .. } => Status::invalid_argument("the page token is none that was given out for this"),
        Error::ChunksMissing { .. } => busy("what was sent has been collected meanwhile: send it again"),
        _ => return error.into(),
    };
    Failed(status)
}
