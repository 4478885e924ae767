//! Every error that the admin door answers: status, code and message in one table, and the document around it.
//!
//! Shape: `{code, message, field_errors: [{field, message}], trace_id}`. Codes are for programs and do not change; messages are for
//! people. What of the request is wrong goes into `field_errors`; the log gets the cause.

use cairn_index::Error as IndexError;
use cairn_roots::Body;
use http::header::{ALLOW, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::admin::shapes::document;
use crate::codes::error_codes;
use crate::pool::JobLost;
use crate::settings::{Wrong, WrongSetting};

error_codes! {
    Unauthorized 401 "unauthorized" "this needs the server's admin token, as Authorization: Bearer TOKEN";
    Forbidden 403 "forbidden" "that is not for this caller";
    NoRoute 404 "no_such_route" "nothing is here; docs/admin.md lists what there is";
    MethodNotAllowed 405 "method_not_allowed" "that is not done to this; the header Allow says what is";
    BadRequest 400 "bad_request" "the request is not as it has to be; field_errors says where";
    BadDocument 400 "bad_document" "the body is not one JSON object";
    BodyTooLarge 413 "body_too_large" "the body is larger than 65536 bytes";
    BodyTimeout 408 "body_timeout" "the body did not come within 30 seconds";
    BadCursor 400 "bad_cursor" "the cursor is not one that was given out for this query";
    NotImplemented 501 "not_implemented" "that is not made yet; field_errors says what";
    NoTenant 404 "no_such_tenant" "there is no such tenant";
    NoKey 404 "no_such_key" "the tenant has no access key of this id";
    NoBucket 404 "no_such_bucket" "the tenant has no bucket of this name";
    BucketExists 409 "bucket_exists" "the tenant has a bucket of this name already";
    BucketTaken 409 "bucket_name_taken" "the name is taken: names of buckets are one for the whole server";
    BucketNotEmpty 409 "bucket_not_empty" "a bucket with objects, versions or delete markers in it is not deleted";
    NoObject 404 "no_such_object" "there is no object of this key";
    NoVersion 404 "no_such_version" "the key has no version of this id";
    BackupExists 409 "backup_exists" "there is a backup of this name already";
    UpkeepRunning 409 "upkeep_running" "one runs already";
    UpkeepPaused 409 "upkeep_paused" "the settings say that none is to begin (collect.paused, scrub.paused)";
    DeleteMarker 409 "delete_marker" "the version is a delete marker, which has no bytes";
    ChunksMissing 409 "chunks_missing" "the version has lost chunks: run a scrub, and put it again";
    PreconditionFailed 412 "precondition_failed" "the object that the key has now is not the one that if_match names";
    QuotaExceeded 403 "quota_exceeded" "it would take the bucket over its quota";
    Contended 409 "contended" "others change the same at this moment; try again";
    Busy 503 "busy" "too much is asked at once; try again";
    StorageFull 507 "storage_full" "there is no room left on the server's disk";
    Internal 500 "internal" "the server failed; its log says why, under this trace_id";
}

/// Seconds after which a caller that was told to come later may come again.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error on its way to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminError {
    pub(crate) code: Code,
    /// Which field or parameter, and what is wrong with it.
    pub(crate) fields: Vec<(String, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Result of a step of a request.
pub(crate) type AdminResult<T> = Result<T, AdminError>;

impl From<Code> for AdminError {
    fn from(code: Code) -> Self {
        Self {
            code,
            fields: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl From<JobLost> for AdminError {
    fn from(lost: JobLost) -> Self {
        match lost {
            JobLost::Full => Code::Busy.into(),
            JobLost::Panicked => Code::Internal.into(),
        }
    }
}

/// The one map from what the index says to what callers are told.
impl From<IndexError> for AdminError {
    fn from(error: IndexError) -> Self {
        use IndexError as E;
        if error.is_full() {
            tracing::error!(error = cairn_store::error_chain(&error), "no room for an admin request");
            return Code::StorageFull.into();
        }
        match error {
            E::BadName { what, rule, .. } => Self::field(field_of(what), rule),
            E::BadPlace { .. } => Code::BadCursor.into(),
            E::NoBucket { .. } => Code::NoBucket.into(),
            E::BucketExists { .. } => Code::BucketExists.into(),
            E::BucketTaken { .. } => Code::BucketTaken.into(),
            E::BucketNotEmpty { .. } => Code::BucketNotEmpty.into(),
            E::NoObject { .. } => Code::NoObject.into(),
            E::NoVersion { .. } => Code::NoVersion.into(),
            E::Precondition { .. } => Code::PreconditionFailed.into(),
            E::ChunksMissing { .. } => Code::ChunksMissing.into(),
            E::OverQuota { .. } => Code::QuotaExceeded.into(),
            E::Contended { .. } | E::FenceMoved => Code::Contended.into(),
            E::Busy { .. } => Code::Busy.into(),
            error => {
                tracing::error!(error = cairn_store::error_chain(&error), "an admin request failed");
                Code::Internal.into()
            }
        }
    }
}

/// The parameter that holds a name of the index.
fn field_of(what: &'static str) -> &'static str {
    match what {
        "access key" => "id",
        "version" => "version_id",
        what => what,
    }
}

impl AdminError {
    /// A field or parameter that is wrong.
    pub(crate) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            fields: vec![(name.into(), message.into())],
            ..Code::BadRequest.into()
        }
    }

    /// Settings that are wrong. Empty: `None`.
    pub(crate) fn of_settings(wrongs: Vec<WrongSetting>) -> Option<Self> {
        let is_unmade = |wrong: &WrongSetting| matches!(wrong.wrong, Wrong::NotImplemented(_));
        let code = match (wrongs.is_empty(), wrongs.iter().all(is_unmade)) {
            (true, _) => return None,
            (false, true) => Code::NotImplemented,
            (false, false) => Code::BadRequest,
        };
        let field = |wrong: WrongSetting| match wrong.wrong {
            Wrong::Rule(rule) | Wrong::NotImplemented(rule) => (wrong.name, rule.to_owned()),
        };
        Some(Self {
            fields: wrongs.into_iter().map(field).collect(),
            ..code.into()
        })
    }

    /// What may be done to a path that takes no such method.
    pub(crate) fn allowing(methods: &[&str]) -> Self {
        let value = HeaderValue::try_from(methods.join(", "));
        Self {
            headers: value.into_iter().map(|value| (ALLOW, value)).collect(),
            ..Code::MethodNotAllowed.into()
        }
    }

    /// The whole answer.
    pub(crate) fn reply(&self, method: &Method, trace_id: &str) -> Response<Body> {
        let (status, code, message) = self.code.row();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(field, message)| json!({ "field": field, "message": message }))
            .collect();
        let words = json!({ "code": code, "message": message, "field_errors": fields, "trace_id": trace_id });
        let mut response = document(status, &words);
        let headers = response.headers_mut();
        match self.code {
            Code::Busy => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS)),
            Code::Unauthorized => {
                let bearer = HeaderValue::from_static("Bearer realm=\"cairn admin\"");
                headers.insert(WWW_AUTHENTICATE, bearer);
            }
            _ => {}
        }
        // What the caller may still be sending is not read: the connection ends with this answer.
        if *method != Method::GET && *method != Method::HEAD {
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
    fn the_table_is_whole_and_each_code_is_of_its_own() {
        let mut codes = std::collections::BTreeSet::new();
        for code in Code::ALL {
            let (status, name, message) = code.row();
            assert!((400..600).contains(&status), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert!(!message.is_empty() && codes.insert(name), "{name}");
        }
    }

    /// Goal: the page for people has each code with its status, and no other.
    #[test]
    fn the_page_has_every_code() {
        let page = include_str!("../../../docs/admin.md");
        let row = |code: &Code| {
            let (status, name, _) = code.row();
            format!("| `{name}` | {status} |")
        };
        let missing: Vec<String> = Code::ALL.iter().map(row).filter(|row| !page.contains(row)).collect();
        assert_eq!(missing, Vec::<String>::new());
        let is_code = |line: &&str| {
            line.starts_with("| `")
                && line
                    .split('|')
                    .nth(2)
                    .is_some_and(|status| status.trim().parse::<u16>().is_ok())
        };
        assert_eq!(page.lines().filter(is_code).count(), Code::ALL.len());
    }
}
