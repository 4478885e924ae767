//! Every error that the S3 door answers: code, status and message in one table, and the document around it.
//!
//! Clients and suites compare codes and messages, so they are fixed strings, those of Amazon's service; what differs from
//! request to request goes into fields of its own. A client gets no more than that and a request id; the log gets the cause.

use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};

use cairn_roots::Body;

use crate::codes::error_codes;
use crate::pool::JobLost;
use crate::s3::xml::Writer;

error_codes! {
    AccessDenied 403 "AccessDenied" "Access Denied";
    RequestExpired 403 "AccessDenied" "Request has expired";
    NotYetValid 403 "AccessDenied" "Request is not valid yet";
    HeadersNotSigned 403 "AccessDenied" "There were headers present in the request which were not signed";
    DateMissing 403 "AccessDenied" "AWS authentication requires a valid Date or x-amz-date header";
    AuthorizationHeaderMalformed 400 "AuthorizationHeaderMalformed" "The authorization header that you provided is not valid.";
    AuthorizationQueryParametersError 400 "AuthorizationQueryParametersError" "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
    ExpiresNotANumber 400 "AuthorizationQueryParametersError" "X-Amz-Expires should be a number";
    ExpiresTooSmall 400 "AuthorizationQueryParametersError" "X-Amz-Expires must be at least 1 second";
    ExpiresTooLarge 400 "AuthorizationQueryParametersError" "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds";
    BadDigest 400 "BadDigest" "The Content-MD5 you specified did not match what we received.";
    BadChecksum 400 "BadDigest" "The checksum you specified did not match the calculated checksum.";
    BadRequestTags 400 "BadRequest" "Object tags cannot be greater than 10";
    BucketAlreadyExists 409 "BucketAlreadyExists" "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.";
    BucketAlreadyOwnedByYou 409 "BucketAlreadyOwnedByYou" "Your previous request to create the named bucket succeeded and you already own it.";
    BucketNotEmpty 409 "BucketNotEmpty" "The bucket you tried to delete is not empty";
    ConditionalRequestConflict 409 "ConditionalRequestConflict" "The conditional request cannot succeed due to a conflicting operation against this resource.";
    EntityTooLarge 400 "EntityTooLarge" "Your proposed upload exceeds the maximum allowed size";
    EntityTooSmall 400 "EntityTooSmall" "Your proposed upload is smaller than the minimum allowed size";
    HeadersTooLarge 400 "RequestHeaderSectionTooLarge" "Your request header section exceeds the maximum allowed size.";
    IllegalVersioningConfiguration 400 "IllegalVersioningConfigurationException" "The Versioning element must be specified";
    IncompleteBody 400 "IncompleteBody" "You did not provide the number of bytes specified by the Content-Length HTTP header";
    InternalError 500 "InternalError" "We encountered an internal error. Please try again.";
    InvalidAccessKeyId 403 "InvalidAccessKeyId" "The AWS Access Key Id you provided does not exist in our records.";
    InvalidArgument 400 "InvalidArgument" "Invalid Argument";
    OneAuthMechanism 400 "InvalidArgument" "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified";
    UnsupportedAuthorization 400 "InvalidArgument" "Unsupported Authorization Type";
    ContentSha256Invalid 400 "InvalidArgument" "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value.";
    PartNumberInvalid 400 "InvalidArgument" "Part number must be an integer between 1 and 10000, inclusive";
    ContinuationTokenInvalid 400 "InvalidArgument" "The continuation token provided is incorrect";
    EncodingMethodInvalid 400 "InvalidArgument" "Invalid Encoding Method specified in Request";
    MaxKeysInvalid 400 "InvalidArgument" "Argument maxKeys must be an integer between 0 and 2147483647";
    VersionIdInvalid 400 "InvalidArgument" "Invalid version id specified";
    VersionIdEmpty 400 "InvalidArgument" "Version id cannot be the empty string";
    VersionMarkerAlone 400 "InvalidArgument" "A version-id marker cannot be specified without a key marker.";
    CopySourceInvalid 400 "InvalidArgument" "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
    CopySourceRangeInvalid 400 "InvalidArgument" "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy";
    CopySourceRangeOutside 400 "InvalidArgument" "Range specified is not valid for source object";
    MetadataDirectiveInvalid 400 "InvalidArgument" "Unknown metadata directive.";
    TaggingDirectiveInvalid 400 "InvalidArgument" "Unknown tagging directive.";
    TaggingHeaderInvalid 400 "InvalidArgument" "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.";
    AttributesInvalid 400 "InvalidArgument" "Invalid attribute name specified.";
    AclInvalid 400 "InvalidArgument" "The canned ACL you provided is not valid.";
    InvalidBucketName 400 "InvalidBucketName" "The specified bucket is not valid.";
    InvalidBucketState 409 "InvalidBucketState" "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.";
    InvalidChunkSize 400 "InvalidChunkSizeError" "Only the last chunk is allowed to have a size less than 8192 bytes";
    ChunkTooLarge 400 "InvalidChunkSizeError" "A chunk is larger than the 16777216 bytes allowed here";
    InvalidDigest 400 "InvalidDigest" "The Content-MD5 you specified was invalid.";
    InvalidLocationConstraint 400 "InvalidLocationConstraint" "The specified location-constraint is not valid";
    InvalidPart 400 "InvalidPart" "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    InvalidPartNumber 416 "InvalidPartNumber" "The requested partnumber is not satisfiable";
    InvalidPartOrder 400 "InvalidPartOrder" "The list of parts was not in ascending order. Parts must be ordered by part number.";
    InvalidRange 416 "InvalidRange" "The requested range is not satisfiable";
    SignatureV2 400 "InvalidRequest" "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
    ContentSha256Missing 400 "InvalidRequest" "Missing required header for this request: x-amz-content-sha256";
    ContentMd5Missing 400 "InvalidRequest" "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
    ResponseHeadersAnonymous 400 "InvalidRequest" "Request specific response headers cannot be used for anonymous GET requests.";
    SeveralChecksums 400 "InvalidRequest" "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
    ChecksumInvalid 400 "InvalidRequest" "Value for the x-amz-checksum header is invalid.";
    ChecksumAlgorithmUnknown 400 "InvalidRequest" "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";
    ChecksumAlgorithmMismatch 400 "InvalidRequest" "Value for x-amz-sdk-checksum-algorithm header is invalid.";
    ChecksumTypeUnknown 400 "InvalidRequest" "Value for x-amz-checksum-type header is invalid.";
    ChecksumTypeAlone 400 "InvalidRequest" "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.";
    ChecksumTypeUnfit 400 "InvalidRequest" "The FULL_OBJECT checksum type cannot be used with this checksum algorithm.";
    ChecksumTypeUnfitComposite 400 "InvalidRequest" "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm.";
    ChecksumTypeMismatch 400 "InvalidRequest" "The upload was created using another checksum type. The complete request must include the same checksum type.";
    PartChecksumMismatch 400 "InvalidRequest" "Checksum Type mismatch occurred: the part was sent with another checksum algorithm than the upload was created with.";
    ArchiveUnreadable 400 "InvalidRequest" "The archive that the key leads into cannot be read.";
    CopyOntoItself 400 "InvalidRequest" "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.";
    CopyTooLarge 400 "InvalidRequest" "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
    CopySourceDeleteMarker 400 "InvalidRequest" "The source of a copy request may not specifically refer to a delete marker by version id.";
    RangeAndPartNumber 400 "InvalidRequest" "Cannot specify both Range header and partNumber query parameter";
    MpObjectSizeInvalid 400 "InvalidRequest" "Value for x-amz-mp-object-size header is invalid.";
    MpObjectSizeMismatch 400 "InvalidRequest" "The provided 'x-amz-mp-object-size' header does not match what was computed.";
    InvalidStorageClass 400 "InvalidStorageClass" "The storage class you specified is not valid";
    InvalidTag 400 "InvalidTag" "The TagKey you have provided is invalid";
    InvalidTagValue 400 "InvalidTag" "The TagValue you have provided is invalid";
    InvalidTagSystem 400 "InvalidTag" "System tags cannot be added/updated by requester";
    InvalidTagTwice 400 "InvalidTag" "Cannot provide multiple Tags with the same key";
    InvalidToken 400 "InvalidToken" "The provided token is malformed or otherwise invalid.";
    InvalidUri 400 "InvalidURI" "Couldn't parse the specified URI.";
    KeyTooLong 400 "KeyTooLongError" "Your key is too long";
    MalformedTrailer 400 "MalformedTrailerError" "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MalformedXml 400 "MalformedXML" "The XML you provided was not well-formed or did not validate against our published schema";
    MetadataTooLarge 400 "MetadataTooLarge" "Your metadata headers exceed the maximum allowed metadata size";
    MethodNotAllowed 405 "MethodNotAllowed" "The specified method is not allowed against this resource.";
    MissingContentLength 411 "MissingContentLength" "You must provide the Content-Length HTTP header.";
    NoSuchBucket 404 "NoSuchBucket" "The specified bucket does not exist";
    NoSuchKey 404 "NoSuchKey" "The specified key does not exist.";
    NoSuchUpload 404 "NoSuchUpload" "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    NoSuchVersion 404 "NoSuchVersion" "The specified version does not exist.";
    NotImplemented 501 "NotImplemented" "A header you provided implies functionality that is not implemented";
    OperationAborted 409 "OperationAborted" "A conflicting conditional operation is currently in progress against this resource. Please try again.";
    PreconditionFailed 412 "PreconditionFailed" "At least one of the pre-conditions you specified did not hold";
    QuotaExceeded 403 "QuotaExceeded" "The quota of the bucket is exceeded.";
    RequestTimeout 400 "RequestTimeout" "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.";
    RequestTimeTooSkewed 403 "RequestTimeTooSkewed" "The difference between the request time and the current time is too large.";
    SignatureDoesNotMatch 403 "SignatureDoesNotMatch" "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    SlowDown 503 "SlowDown" "Please reduce your request rate.";
    StorageFull 507 "XStorageFull" "There is no room left on the server's disk.";
    XAmzContentSha256Mismatch 400 "XAmzContentSHA256Mismatch" "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

/// Seconds after which a client that was told to slow down may come again.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Error {
    pub(crate) code: Code,
    /// Elements of the document beside the usual ones, in order: `ArgumentName`, `Region`, …
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Headers of the answer beside the usual ones.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Result of a step of a request.
pub(crate) type S3Result<T> = Result<T, S3Error>;

impl From<Code> for S3Error {
    fn from(code: Code) -> Self {
        Self {
            code,
            fields: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl From<JobLost> for S3Error {
    fn from(lost: JobLost) -> Self {
        match lost {
            JobLost::Full => Code::SlowDown.into(),
            JobLost::Panicked => Code::InternalError.into(),
        }
    }
}

/// The one map from what the index says to what clients are told.
impl From<cairn_index::Error> for S3Error {
    fn from(error: cairn_index::Error) -> Self {
        use cairn_index::Error as E;
        if error.is_full() {
            tracing::error!(error = cairn_store::error_chain(&error), "no room for a request");
            return Code::StorageFull.into();
        }
        match error {
            E::NoBucket { name } => Code::NoSuchBucket.with("BucketName", name),
            E::BucketExists { name } => Code::BucketAlreadyOwnedByYou.with("BucketName", name),
            E::BucketTaken { name } => Code::BucketAlreadyExists.with("BucketName", name),
            E::BucketNotEmpty { name } => Code::BucketNotEmpty.with("BucketName", name),
            E::NoObject { key, .. } => Code::NoSuchKey.with("Key", key),
            E::NoVersion { key, version, .. } => Code::NoSuchVersion.with("Key", key).with("VersionId", version),
            E::NoUpload { upload, .. } => Code::NoSuchUpload.with("UploadId", upload),
            E::UploadEnded => Code::NoSuchUpload.into(),
            E::Precondition { .. } => Code::PreconditionFailed.into(),
            E::Contended { .. } | E::FenceMoved => Code::OperationAborted.into(),
            E::OverQuota { name, .. } => Code::QuotaExceeded.with("BucketName", name),
            E::PartOrder => Code::InvalidPartOrder.into(),
            E::NoPart { number } => Code::InvalidPart.with("PartNumber", number.to_string()),
            E::PartTooSmall { number, size, least } => Code::EntityTooSmall
                .with("PartNumber", number.to_string())
                .with("ProposedSize", size.to_string())
                .with("MinSizeAllowed", least.to_string()),
            // Chunks went while the upload stood still: it is to be sent again.
            E::Busy { .. } | E::ChunksMissing { .. } => Code::SlowDown.into(),
            E::BadName { what: "key", .. } => Code::KeyTooLong.into(),
            E::BadName {
                what: "bucket", name, ..
            } => Code::InvalidBucketName.with("BucketName", name),
            E::BadPlace { .. } => Code::ContinuationTokenInvalid.into(),
            error => {
                tracing::error!(error = cairn_store::error_chain(&error), "a request failed");
                Code::InternalError.into()
            }
        }
    }
}

impl Code {
    /// With an element beside the usual ones.
    pub(crate) fn with(self, name: &'static str, value: impl Into<String>) -> S3Error {
        S3Error::from(self).with(name, value)
    }

    /// With the name and the value of the argument that is wrong.
    pub(crate) fn argument(self, name: &str, value: &str) -> S3Error {
        self.with("ArgumentName", name).with("ArgumentValue", value)
    }
}

impl S3Error {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A range outside an object of `len` bytes.
    pub(crate) fn outside(requested: &str, len: u64) -> Self {
        let error = Code::InvalidRange
            .with("RangeRequested", requested)
            .with("ActualObjectSize", len.to_string());
        match HeaderValue::try_from(format!("bytes */{len}")) {
            Ok(value) => error.header(CONTENT_RANGE, value),
            Err(_) => error,
        }
    }

    /// A delete marker that was asked for by its version id: it can only be deleted.
    pub(crate) fn is_marker(method: &Method) -> Self {
        Code::MethodNotAllowed
            .with("Method", method.as_str())
            .with("ResourceType", "DeleteMarker")
            .header(ALLOW, HeaderValue::from_static("DELETE"))
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The document: also what ends a slow answer whose status has gone out already.
    pub(crate) fn document(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = Writer::document();
        self.write(&mut xml, resource, request_id, host_id);
        xml.finish()
    }

    /// [`S3Error::document`] without its declaration.
    pub(crate) fn element(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = Writer::empty();
        self.write(&mut xml, resource, request_id, host_id);
        xml.finish()
    }

    /// The `Error` element alone.
    fn write(&self, xml: &mut Writer, resource: &str, request_id: &str, host_id: &str) {
        let (_, code, message) = self.code.row();
        xml.open("Error");
        xml.text("Code", code);
        xml.text("Message", message);
        for (name, value) in &self.fields {
            xml.text(name, value);
        }
        xml.text("Resource", resource);
        xml.text("RequestId", request_id);
        xml.text("HostId", host_id);
        xml.close("Error");
    }

    /// The whole answer. HEAD gets status and headers alone.
    pub(crate) fn reply(&self, method: &Method, resource: &str, request_id: &str, host_id: &str) -> Response<Body> {
        let status = self.status();
        let has_body = *method != Method::HEAD && status != StatusCode::NOT_MODIFIED;
        let body = if has_body {
            Body::from(self.document(resource, request_id, host_id))
        } else {
            Body::empty()
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        if self.code == Code::SlowDown {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        // What the client may still be sending is not read: the connection ends with this answer.
        if *method == Method::PUT || *method == Method::POST {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_statuses_are_errors_and_codes_of_one_name_have_one_status() {
        let mut statuses = std::collections::BTreeMap::new();
        for code in Code::ALL {
            let (status, name, message) = code.row();
            assert!((300..600).contains(&status), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}");
            assert!(!message.is_empty(), "{name}");
            assert_eq!(*statuses.entry(name).or_insert(status), status, "{name}");
        }
    }

    #[test]
    fn only_load_answers_503() {
        let busy = Code::ALL.iter().filter(|code| code.row().0 == 503);
        assert_eq!(busy.collect::<Vec<_>>(), [&Code::SlowDown]);
    }

    #[test]
    fn the_document_names_resource_request_and_host_and_escapes_what_the_client_sent() {
        let error = Code::InvalidArgument.argument("max-keys", "<&>");
        assert_eq!(
            error.document("/b/a&b", "R1", "H1"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidArgument</Code>\
             <Message>Invalid Argument</Message><ArgumentName>max-keys</ArgumentName>\
             <ArgumentValue>&lt;&amp;&gt;</ArgumentValue><Resource>/b/a&amp;b</Resource>\
             <RequestId>R1</RequestId><HostId>H1</HostId></Error>"
        );
    }

    #[test]
    fn head_gets_no_body_and_slow_down_says_when_to_come_again() {
        use hyper::body::Body as _;
        let answer = S3Error::from(Code::NoSuchKey).reply(&Method::HEAD, "/b/k", "R", "H");
        assert_eq!(
            (answer.status().as_u16(), answer.body().size_hint().exact()),
            (404, Some(0))
        );
        let answer = S3Error::from(Code::SlowDown).reply(&Method::GET, "/b/k", "R", "H");
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn a_range_outside_says_how_long_the_object_is() {
        let answer = S3Error::outside("bytes=9-", 3).reply(&Method::GET, "/b/k", "R", "H");
        assert_eq!(answer.status().as_u16(), 416);
        assert_eq!(answer.headers()[CONTENT_RANGE], "bytes */3");
    }
}
