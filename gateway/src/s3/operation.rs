//! The table of operations: which method, on what, with which sub-resource and which parameters is which operation.
//!
//! Invariant: a request is an operation only where a row allows every parameter that it has. What no row allows is `501` and does
//! nothing: `DELETE /bucket?notification` is not DeleteBucket. Parameters that begin with `x-` (clients note the operation's
//! name in `x-id`) and those of signatures are no sub-resources; a reader's parameter with a value that no row knows is
//! passed over, as Amazon's service does: presigned links carry such notes.

use http::{HeaderMap, Method};

use cairn_identity::Action;

use crate::s3::error::{Code, S3Result};
use crate::s3::uri::{Query, Target};

/// What the S3 door does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketAcl,
    GetBucketRequestPayment,
    GetBucketAccelerate,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    DeleteObjects,
    PutObject,
    CopyObject,
    GetObject,
    HeadObject,
    DeleteObject,
    GetObjectAttributes,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    GetObjectAcl,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Service,
    Bucket,
    Object,
}

/// Whether the header `x-amz-copy-source` has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    None,
    Copy,
}

struct Row {
    operation: Operation,
    action: Action,
    method: Method,
    level: Level,
    source: Source,
    /// Parameters that make it this operation.
    needs: &'static [&'static str],
    /// Parameters that it may have beside them.
    takes: &'static [&'static str],
}

const fn row(
    operation: Operation,
    action: Action,
    method: Method,
    level: Level,
    needs: &'static [&'static str],
    takes: &'static [&'static str],
) -> Row {
    Row {
        operation,
        action,
        method,
        level,
        source: Source::None,
        needs,
        takes,
    }
}

impl Row {
    const fn copying(mut self) -> Self {
        self.source = Source::Copy;
        self
    }
}

const LIST: &[&str] = &["prefix", "delimiter", "max-keys", "encoding-type", "marker"];
const LIST_V2: &[&str] = &[
    "prefix",
    "delimiter",
    "max-keys",
    "encoding-type",
    "start-after",
    "continuation-token",
    "fetch-owner",
];
const LIST_VERSIONS: &[&str] = &[
    "prefix",
    "delimiter",
    "max-keys",
    "encoding-type",
    "key-marker",
    "version-id-marker",
];
const LIST_UPLOADS: &[&str] = &[
    "prefix",
    "delimiter",
    "max-uploads",
    "encoding-type",
    "key-marker",
    "upload-id-marker",
];
const READ: &[&str] = &[
    "versionId",
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
];

/// All rows; of those that fit, the first counts.
const ROWS: &[Row] = {
    use Level::{Bucket, Object, Service};
    use Operation as O;
    &[
        row(
            O::ListBuckets,
            Action::ListAllMyBuckets,
            Method::GET,
            Service,
            &[],
            &["prefix", "max-buckets", "continuation-token", "bucket-region"],
        ),
        row(O::CreateBucket, Action::CreateBucket, Method::PUT, Bucket, &[], &[]),
        row(O::HeadBucket, Action::ListBucket, Method::HEAD, Bucket, &[], &[]),
        row(O::DeleteBucket, Action::DeleteBucket, Method::DELETE, Bucket, &[], &[]),
        row(
            O::GetBucketLocation,
            Action::GetBucketLocation,
            Method::GET,
            Bucket,
            &["location"],
            &[],
        ),
        row(
            O::GetBucketVersioning,
            Action::GetBucketVersioning,
            Method::GET,
            Bucket,
            &["versioning"],
            &[],
        ),
        row(
            O::PutBucketVersioning,
            Action::PutBucketVersioning,
            Method::PUT,
            Bucket,
            &["versioning"],
            &[],
        ),
        row(
            O::GetBucketAcl,
            Action::GetBucketAcl,
            Method::GET,
            Bucket,
            &["acl"],
            &[],
        ),
        row(
            O::GetBucketRequestPayment,
            Action::GetBucketAcl,
            Method::GET,
            Bucket,
            &["requestPayment"],
            &[],
        ),
        row(
            O::GetBucketAccelerate,
            Action::GetBucketAcl,
            Method::GET,
            Bucket,
            &["accelerate"],
            &[],
        ),
        row(
            O::ListObjectVersions,
            Action::ListBucketVersions,
            Method::GET,
            Bucket,
            &["versions"],
            LIST_VERSIONS,
        ),
        row(
            O::ListMultipartUploads,
            Action::ListBucketMultipartUploads,
            Method::GET,
            Bucket,
            &["uploads"],
            LIST_UPLOADS,
        ),
        row(
            O::ListObjectsV2,
            Action::ListBucket,
            Method::GET,
            Bucket,
            &["list-type"],
            LIST_V2,
        ),
        row(O::ListObjects, Action::ListBucket, Method::GET, Bucket, &[], LIST),
        row(
            O::DeleteObjects,
            Action::DeleteObject,
            Method::POST,
            Bucket,
            &["delete"],
            &[],
        ),
        row(
            O::UploadPart,
            Action::PutObject,
            Method::PUT,
            Object,
            &["partNumber", "uploadId"],
            &[],
        ),
        row(
            O::UploadPartCopy,
            Action::PutObject,
            Method::PUT,
            Object,
            &["partNumber", "uploadId"],
            &[],
        )
        .copying(),
        row(
            O::PutObjectTagging,
            Action::PutObjectTagging,
            Method::PUT,
            Object,
            &["tagging"],
            &["versionId"],
        ),
        row(O::PutObject, Action::PutObject, Method::PUT, Object, &[], &[]),
        row(O::CopyObject, Action::PutObject, Method::PUT, Object, &[], &[]).copying(),
        row(
            O::GetObjectAttributes,
            Action::GetObjectAttributes,
            Method::GET,
            Object,
            &["attributes"],
            &["versionId", "max-parts", "part-number-marker"],
        ),
        row(
            O::GetObjectTagging,
            Action::GetObjectTagging,
            Method::GET,
            Object,
            &["tagging"],
            &["versionId"],
        ),
        row(
            O::GetObjectAcl,
            Action::GetObjectAcl,
            Method::GET,
            Object,
            &["acl"],
            &["versionId"],
        ),
        row(
            O::ListParts,
            Action::ListMultipartUploadParts,
            Method::GET,
            Object,
            &["uploadId"],
            &["max-parts", "part-number-marker", "encoding-type"],
        ),
        row(O::GetObject, Action::GetObject, Method::GET, Object, &[], READ),
        row(O::HeadObject, Action::GetObject, Method::HEAD, Object, &[], READ),
        row(
            O::AbortMultipartUpload,
            Action::AbortMultipartUpload,
            Method::DELETE,
            Object,
            &["uploadId"],
            &[],
        ),
        row(
            O::DeleteObjectTagging,
            Action::DeleteObjectTagging,
            Method::DELETE,
            Object,
            &["tagging"],
            &["versionId"],
        ),
        row(
            O::DeleteObject,
            Action::DeleteObject,
            Method::DELETE,
            Object,
            &[],
            &["versionId"],
        ),
        row(
            O::CreateMultipartUpload,
            Action::PutObject,
            Method::POST,
            Object,
            &["uploads"],
            &[],
        ),
        row(
            O::CompleteMultipartUpload,
            Action::PutObject,
            Method::POST,
            Object,
            &["uploadId"],
            &[],
        ),
    ]
};

/// Headers that ask for what is not served: whoever sends one must not believe that it was heeded.
const UNSERVED_HEADERS: &[&str] = &[
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-write-offset-bytes",
    "x-amz-rename-source",
];

impl Operation {
    /// For counters and logs.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether its handler waits for nothing but its own jobs: neither for a body nor for a clock.
    pub(crate) fn is_only_jobs(self) -> bool {
        matches!(
            self,
            Self::GetObject
                | Self::HeadObject
                | Self::DeleteObject
                | Self::HeadBucket
                | Self::ListBuckets
                | Self::ListObjects
                | Self::ListObjectsV2
                | Self::ListObjectVersions
                | Self::GetObjectTagging
        )
    }

    /// What a request is.
    ///
    /// Errors: `NotImplemented` for what no row allows, and for headers that ask for what is not served.
    pub(crate) fn of(method: &Method, target: &Target, query: &Query, headers: &HeaderMap) -> S3Result<(Self, Action)> {
        let level = match target {
            Target::Service => Level::Service,
            Target::Bucket(_) => Level::Bucket,
            Target::Object { .. } => Level::Object,
        };
        if let Some(header) = UNSERVED_HEADERS.iter().find(|header| headers.contains_key(**header)) {
            return Err(Code::NotImplemented.with("Header", *header));
        }
        let source = if level == Level::Object && headers.contains_key("x-amz-copy-source") {
            Source::Copy
        } else {
            Source::None
        };
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let row = ROWS.iter().find(|row| {
            row.method == *method
                && row.level == level
                && (row.source == source || *method != Method::PUT)
                && row.needs.iter().all(|name| query.has(name))
                && query.names().all(|(name, filled)| {
                    row.needs.contains(&name) || row.takes.contains(&name) || is_note(name) || (is_read && filled)
                })
        });
        let Some(row) = row else {
            return Err(Code::NotImplemented.into());
        };
        if row.operation == Self::ListObjectsV2 && query.get("list-type") != Some("2") {
            return Err(Code::InvalidArgument.argument("list-type", query.get("list-type").unwrap_or("")));
        }
        let by_version = query.has("versionId");
        let action = match row.action {
            Action::GetObject if by_version => Action::GetObjectVersion,
            Action::DeleteObject if by_version => Action::DeleteObjectVersion,
            action => action,
        };
        Ok((row.operation, action))
    }
}

/// Notes of clients, and the signature.
fn is_note(name: &str) -> bool {
    name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &str, path: &str) -> Result<Operation, Code> {
        with_headers(method, path, &[])
    }

    fn with_headers(method: &str, path: &str, names: &[&'static str]) -> Result<Operation, Code> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let target = Target::parse(None, path, &[], "us-east-1").unwrap();
        let headers = names
            .iter()
            .map(|name| (http::HeaderName::from_static(name), http::HeaderValue::from_static("x")));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Operation::of(
            &method,
            &target,
            &Query::parse(Some(query)).unwrap(),
            &headers.collect(),
        )
        .map(|(operation, _)| operation)
        .map_err(|error| error.code)
    }

    #[test]
    fn every_operation_has_a_request() {
        for (method, path, expected) in [
            ("GET", "/", Operation::ListBuckets),
            ("PUT", "/abc", Operation::CreateBucket),
            ("HEAD", "/abc/", Operation::HeadBucket),
            ("DELETE", "/abc?x-id=DeleteBucket", Operation::DeleteBucket),
            ("GET", "/abc?location", Operation::GetBucketLocation),
            ("GET", "/abc?versioning=", Operation::GetBucketVersioning),
            ("PUT", "/abc?versioning", Operation::PutBucketVersioning),
            ("GET", "/abc?acl", Operation::GetBucketAcl),
            ("GET", "/abc?requestPayment", Operation::GetBucketRequestPayment),
            ("GET", "/abc?accelerate", Operation::GetBucketAccelerate),
            ("GET", "/abc", Operation::ListObjects),
            ("GET", "/abc?prefix=&delimiter=/", Operation::ListObjects),
            (
                "GET",
                "/abc?list-type=2&prefix=a&start-after=b",
                Operation::ListObjectsV2,
            ),
            ("GET", "/abc?versions&key-marker=", Operation::ListObjectVersions),
            ("GET", "/abc?uploads", Operation::ListMultipartUploads),
            ("POST", "/abc?delete", Operation::DeleteObjects),
            ("PUT", "/abc/k", Operation::PutObject),
            ("PUT", "/abc/k?X-Amz-Signature=1&X-Amz-Date=2", Operation::PutObject),
            ("GET", "/abc/k?versionId=null&partNumber=1", Operation::GetObject),
            ("GET", "/abc/k?note=1", Operation::GetObject),
            ("HEAD", "/abc/k", Operation::HeadObject),
            ("DELETE", "/abc/k?versionId=1", Operation::DeleteObject),
            ("GET", "/abc/k?attributes", Operation::GetObjectAttributes),
            ("GET", "/abc/k?tagging", Operation::GetObjectTagging),
            ("PUT", "/abc/k?tagging", Operation::PutObjectTagging),
            ("DELETE", "/abc/k?tagging", Operation::DeleteObjectTagging),
            ("GET", "/abc/k?acl", Operation::GetObjectAcl),
            ("POST", "/abc/k?uploads", Operation::CreateMultipartUpload),
            ("PUT", "/abc/k?partNumber=1&uploadId=u", Operation::UploadPart),
            ("POST", "/abc/k?uploadId=u", Operation::CompleteMultipartUpload),
            ("DELETE", "/abc/k?uploadId=u", Operation::AbortMultipartUpload),
            ("GET", "/abc/k?uploadId=u&max-parts=2", Operation::ListParts),
        ] {
            assert_eq!(operation(method, path), Ok(expected), "{method} {path}");
        }
        let copy = ["x-amz-copy-source"];
        assert_eq!(with_headers("PUT", "/abc/k", &copy), Ok(Operation::CopyObject));
        assert_eq!(
            with_headers("PUT", "/abc/k?partNumber=1&uploadId=u", &copy),
            Ok(Operation::UploadPartCopy)
        );
    }

    #[test]
    fn what_no_row_allows_is_not_implemented_and_never_the_plain_operation() {
        for sub_resource in [
            "notification",
            "policy",
            "policyStatus",
            "cors",
            "lifecycle",
            "replication",
            "encryption",
            "website",
            "logging",
            "object-lock",
            "tagging",
            "publicAccessBlock",
            "ownershipControls",
            "inventory",
            "analytics",
            "metrics",
            "intelligent-tiering",
            "anything",
            "Versioning",
        ] {
            for method in ["GET", "PUT", "DELETE", "POST", "HEAD"] {
                let path = format!("/abc?{sub_resource}");
                assert_eq!(operation(method, &path), Err(Code::NotImplemented), "{method} {path}");
                let path = format!("/abc?{sub_resource}=");
                assert_eq!(operation(method, &path), Err(Code::NotImplemented), "{method} {path}");
            }
        }
        for sub_resource in [
            "retention",
            "legal-hold",
            "torrent",
            "select&select-type=2",
            "restore",
            "append",
            "renameObject",
            "anything",
        ] {
            for method in ["GET", "PUT", "DELETE", "POST", "HEAD"] {
                let path = format!("/abc/k?{sub_resource}");
                assert_eq!(operation(method, &path), Err(Code::NotImplemented), "{method} {path}");
            }
        }
        for (method, path) in [
            ("DELETE", "/abc?note=1"),
            ("DELETE", "/abc/k?note=1"),
            ("DELETE", "/abc?versioning"),
            ("DELETE", "/abc?versionId=1"),
            ("PUT", "/abc/k?partNumber=1"),
            ("PUT", "/abc/k?uploadId=1"),
            ("PUT", "/abc/k?versionId=1"),
            ("PUT", "/abc/k?acl"),
            ("DELETE", "/abc/k?uploadId=1&versionId=2"),
            ("POST", "/abc"),
            ("POST", "/abc/k"),
            ("POST", "/"),
            ("PUT", "/"),
            ("DELETE", "/"),
            ("HEAD", "/"),
            ("OPTIONS", "/abc/k"),
            ("PATCH", "/abc/k"),
        ] {
            assert_eq!(operation(method, path), Err(Code::NotImplemented), "{method} {path}");
        }
    }

    #[test]
    fn what_asks_to_be_sealed_is_never_stored_in_clear() {
        for header in UNSERVED_HEADERS {
            for path in ["/abc/k", "/abc/k?partNumber=1&uploadId=u"] {
                assert_eq!(
                    with_headers("PUT", path, &[header]),
                    Err(Code::NotImplemented),
                    "{header}"
                );
            }
            assert_eq!(
                with_headers("POST", "/abc/k?uploads", &[header]),
                Err(Code::NotImplemented),
                "{header}"
            );
        }
    }

    #[test]
    fn every_operation_of_a_row_asks_for_an_action_and_versions_for_their_own() {
        let target = Target::parse(None, "/abc/k", &[], "us-east-1").unwrap();
        let query = Query::parse(Some("versionId=1")).unwrap();
        let (_, action) = Operation::of(&Method::DELETE, &target, &query, &HeaderMap::new()).unwrap();
        assert_eq!(action, Action::DeleteObjectVersion);
    }
}
