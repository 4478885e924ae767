//! What can go wrong between a program and a server: one variant for each thing that a caller does differently.

use std::fmt;

/// Any error, as a source.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An address that is none.
    #[error("{url}: not the URL of a server")]
    BadUrl {
        /// As it was given.
        url: String,
    },
    /// The client itself cannot work here.
    #[error("cannot start: {source}")]
    Start {
        /// Why.
        source: BoxError,
    },
    /// Nobody answered, or not to the end.
    #[error("{server} did not answer")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer is not in the server's language: something else listens there.
    #[error("{server}: answered {status} with {what}")]
    NotOurs {
        /// Its address.
        server: String,
        /// The answer's status.
        status: u16,
        /// What came.
        what: &'static str,
    },
    /// The server has refused.
    #[error("the server answered {status}: {}", words(message, fields))]
    Refused {
        /// The answer's status.
        status: u16,
        /// The server's code, for programs; empty where it gives none.
        code: String,
        /// What it says.
        message: String,
        /// What of the request is wrong.
        fields: Vec<FieldError>,
    },
}

/// A field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Which.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The fields say more than the message.
fn words(message: &str, fields: &[FieldError]) -> String {
    match fields {
        [] => message.to_owned(),
        fields => fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}
