//! The only map from errors to gRPC codes.
//!
//! Callers get a safe message; the log gets the whole chain. Where trying again helps `RetryInfo` says when. `RESOURCE_EXHAUSTED` is for
//! quotas and full disks alone: clients stop uploading on it; load is `UNAVAILABLE`.

use bytes::Bytes;
use cairn_index::Error;
use cairn_proto::google::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use crate::pool::JobLost;

/// Seconds after which those who found no room may come again.
const AGAIN_AFTER_SECONDS: i64 = 1;

/// Why a call is not answered as it hoped: a status that was decided.
#[derive(Debug)]
pub(super) struct Failed(pub(super) Status);

/// Result of a step of a call.
pub(super) type Answer<T> = Result<T, Failed>;

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        failed.0
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<JobLost> for Failed {
    fn from(lost: JobLost) -> Self {
        Self(match lost {
            JobLost::Full => busy("more work waits than there is room for"),
            JobLost::Panicked => Status::internal("internal error"),
        })
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(status_of(&error))
    }
}

fn status_of(error: &Error) -> Status {
    if error.is_full() {
        tracing::error!(error = cairn_store::error_chain(error), "there is no room");
        return Status::resource_exhausted("there is no room on the server's disk");
    }
    match error {
        Error::WrongDigest { .. } | Error::TooLarge { .. } | Error::BadName { .. } => {
            Status::invalid_argument(error.to_string())
        }
        Error::NoBucket { .. } => Status::invalid_argument("no bucket goes with this instance name"),
        Error::OverQuota { .. } => Status::resource_exhausted(error.to_string()),
        Error::Busy { .. } | Error::Contended { .. } => busy(&error.to_string()),
        // What came was slower than its lease.
        Error::ChunksMissing { .. } => busy("what was sent has been collected meanwhile: send it again"),
        Error::Store(cairn_store::Error::Missing { .. }) => Status::not_found("bytes of it are gone"),
        Error::Store(cairn_store::Error::Corrupt { .. }) => {
            tracing::error!(error = cairn_store::error_chain(error), "stored bytes are damaged");
            Status::data_loss("stored bytes of it are damaged")
        }
        error => {
            tracing::error!(error = cairn_store::error_chain(error), "a call failed");
            Status::internal("internal error")
        }
    }
}

/// A client has paused for too long.
pub(super) fn silent() -> Status {
    Status::deadline_exceeded("nothing was sent for too long")
}

/// There is no room at this moment: come again.
pub(super) fn busy(message: &str) -> Status {
    let retry = rpc::RetryInfo {
        retry_delay: Some(prost_types::Duration {
            seconds: AGAIN_AFTER_SECONDS,
            nanos: 0,
        }),
    };
    with_detail(Code::Unavailable, message, "google.rpc.RetryInfo", &retry)
}

/// Blobs have to be sent before this can be.
///
/// - `subjects`: `blobs/{hash}/{size}` of each.
pub(super) fn missing(message: &str, subjects: impl IntoIterator<Item = String>) -> Status {
    let violation = |subject| rpc::precondition_failure::Violation {
        r#type: "MISSING".to_owned(),
        subject,
        description: String::new(),
    };
    let failure = rpc::PreconditionFailure {
        violations: subjects.into_iter().map(violation).collect(),
    };
    with_detail(
        Code::FailedPrecondition,
        message,
        "google.rpc.PreconditionFailure",
        &failure,
    )
}

/// Fields of the request are wrong.
///
/// - `fields`: each with what is wrong with it.
pub(super) fn wrong_fields(message: &str, fields: &[(String, String)]) -> Status {
    if fields.is_empty() {
        return Status::invalid_argument(message);
    }
    let violation = |(field, description): &(String, String)| rpc::bad_request::FieldViolation {
        field: field.clone(),
        description: description.clone(),
        ..Default::default()
    };
    let wrong = rpc::BadRequest {
        field_violations: fields.iter().map(violation).collect(),
    };
    with_detail(Code::InvalidArgument, message, "google.rpc.BadRequest", &wrong)
}

fn with_detail(code: Code, message: &str, name: &str, detail: &impl prost::Message) -> Status {
    let status = rpc::Status {
        code: code as i32,
        message: message.to_owned(),
        details: vec![prost_types::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

/// A status as it stands beside one blob of several.
pub(super) fn beside(status: &Status) -> rpc::Status {
    rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_says_when_to_come_again_and_quotas_do_not() {
        for error in [Error::Busy { what: "uploads" }, Error::Contended { what: "blobs" }] {
            let status = status_of(&error);
            assert_eq!(status.code(), Code::Unavailable);
            let details = rpc::Status::decode(status.details()).unwrap();
            assert!(details.details[0].type_url.ends_with("RetryInfo"));
            let retry = rpc::RetryInfo::decode(&details.details[0].value[..]).unwrap();
            assert_eq!(retry.retry_delay.unwrap().seconds, AGAIN_AFTER_SECONDS);
        }
        let over = Error::OverQuota {
            name: "bucket".to_owned(),
            what: "bytes",
            quota: 5,
        };
        assert_eq!(status_of(&over).code(), Code::ResourceExhausted);
        let lost: Status = Failed::from(JobLost::Full).into();
        assert_eq!(lost.code(), Code::Unavailable);
    }

    #[test]
    fn what_is_missing_is_named() {
        let status = missing("send it", ["blobs/aa/3".to_owned()]);
        let details = rpc::Status::decode(status.details()).unwrap();
        let failure = rpc::PreconditionFailure::decode(&details.details[0].value[..]).unwrap();
        assert_eq!(
            (&*failure.violations[0].r#type, &*failure.violations[0].subject),
            ("MISSING", "blobs/aa/3")
        );
    }
}
