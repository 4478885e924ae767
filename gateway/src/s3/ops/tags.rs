//! Tags of an object's version: read, set, taken away.

use bytes::Bytes;
use cairn_identity::Permit;
use cairn_roots::Body;
use http::{Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::Incoming;
use crate::s3::error::S3Result;
use crate::s3::ops::find::{find, show_version};
use crate::s3::request::{Ask, empty, xml};
use crate::s3::service::Core;
use crate::s3::tagging::{self, Tags};

/// GetObjectTagging.
pub(in crate::s3) async fn get(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let found = find(core, &ask).await?;
    let mut response = xml(tagging::document(&found.record()?.tags));
    show_version(response.headers_mut(), &ask, &found.version)?;
    Ok(response)
}

/// PutObjectTagging.
pub(in crate::s3) async fn put<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let tags = tagging::of_document(&ask.document(body).await?)?;
    change(core, &permit, &ask, tags, StatusCode::OK).await
}

/// DeleteObjectTagging.
pub(in crate::s3) async fn delete(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    change(core, &permit, &ask, Tags::new(), StatusCode::NO_CONTENT).await
}

async fn change(core: &Core, permit: &Permit, ask: &Ask, tags: Tags, status: StatusCode) -> S3Result<Response<Body>> {
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, ask.version_id()?);
    // Also for what to answer of a marker.
    find(core, ask).await?;
    let cause = ask.cause(permit.user());
    let version = core
        .run(move || {
            let objects = names.objects(&bucket);
            Ok(objects.update(&key, id, &cause, |record| record.tags.clone_from(&tags))?)
        })
        .await?;
    let mut response = empty(status);
    show_version(response.headers_mut(), ask, &version)?;
    Ok(response)
}
