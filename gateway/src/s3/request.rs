//! A request that was allowed, as handlers see it, and the pieces of answers that they share.

use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::User;
use cairn_index::Tenant;
use cairn_index::names::{Bucket, Cause, ObjectKey, Owner, VersionId};
use cairn_roots::Body;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::{self, Incoming, Promise};
use crate::s3::error::{Code, S3Error, S3Result};
use crate::s3::operation::Operation;
use crate::s3::signature::{ChunkSigner, Payload};
use crate::s3::uri::{Query, Target};

/// A request that was allowed. Its body has not been touched.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// As it came, for errors.
    pub(crate) resource: String,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) target: Target,
    pub(crate) operation: Operation,
    pub(crate) payload: Payload,
    pub(crate) signer: Option<ChunkSigner>,
    /// That of the target; not of CreateBucket.
    pub(crate) bucket: Option<Arc<Bucket>>,
    pub(crate) request_id: String,
}

impl Ask {
    /// The bucket of the target. Errors: `NoSuchBucket`; of an operation on a bucket it is there.
    pub(crate) fn bucket(&self) -> S3Result<Arc<Bucket>> {
        self.bucket.clone().ok_or_else(|| Code::NoSuchBucket.into())
    }

    /// The key of the target. Errors: `KeyTooLongError`.
    pub(crate) fn key(&self) -> S3Result<ObjectKey> {
        let key = self.target.key().unwrap_or("");
        crate::s3::uri::check_key(key)?;
        ObjectKey::new(key).map_err(S3Error::from)
    }

    /// `versionId`. Errors: `InvalidArgument`.
    pub(crate) fn version_id(&self) -> S3Result<Option<VersionId>> {
        self.query.get("versionId").map(version_id).transpose()
    }

    /// A header as text; what is not ASCII counts as not sent.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Who and what caused a change.
    pub(crate) fn cause(&self, user: &User) -> Cause {
        Cause {
            source: "api".to_owned(),
            actor: Some(user.id.clone()),
            trace_id: Some(self.request_id.clone()),
        }
    }

    /// What the headers promise of the body.
    pub(crate) fn promise(&mut self) -> S3Result<Promise> {
        Promise::read(&self.headers, self.payload, self.signer.take())
    }

    /// The whole body, which is a document; empty where there is none.
    pub(crate) async fn document<B>(&mut self, incoming: Incoming<B>) -> S3Result<Bytes>
    where
        B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let promise = match self.promise() {
            // A request of HTTP/1.1 that says nothing of a body has none.
            Err(error) if error.code == Code::MissingContentLength => return Ok(Bytes::new()),
            promise => promise?,
        };
        body::document(promise, incoming).await
    }

    /// [`Ask::document`] of an operation that asks for a digest of it.
    pub(crate) async fn digested_document<B>(&mut self, incoming: Incoming<B>) -> S3Result<Bytes>
    where
        B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let promise = self.promise()?;
        if !promise.has_digest() {
            return Err(Code::ContentMd5Missing.into());
        }
        body::document(promise, incoming).await
    }
}

/// Reads a version's id. Errors: `InvalidArgument`.
pub(crate) fn version_id(text: &str) -> S3Result<VersionId> {
    if text.is_empty() {
        return Err(Code::VersionIdEmpty.argument("versionId", text));
    }
    VersionId::parse(text).map_err(|_| Code::VersionIdInvalid.argument("versionId", text))
}

/// The tenant of a user. Errors: `InternalError` for a name that we should not have given.
pub(crate) fn tenant_of(user: &User) -> S3Result<Tenant> {
    Ok(Tenant::new(&user.tenant)?)
}

/// A user as the owner of what they make. Errors: as [`tenant_of`].
pub(crate) fn owner_of(user: &User) -> S3Result<Owner> {
    Ok(Owner::new(&user.id)?)
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer that is a document.
pub(crate) fn xml(document: String) -> Response<Body> {
    let mut response = Response::new(Body::from(document));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// Sets a header to a word of ours or of the object's writer; what cannot be a header is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
