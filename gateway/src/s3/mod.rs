//! The S3 door, on hyper: what comes in is parsed, authorised, done by one call of the index, and answered.
//!
//! Own code and not a framework: of the one that was looked at (s3s 0.14) routing, signatures, the aws-chunked coding, check sums,
//! the parsing of headers and errors would each have had to be guarded or done again around it, which left its data types alone.
//! Here a row of `operation` is the only way to an operation, `error` has all codes and messages, and each rule of the protocol
//! is a pure function with its tests.

mod archive;
mod bodies;
mod body;
mod checksum;
mod chunked;
pub(crate) mod condition;
pub(crate) mod content;
mod copy_source;
mod document;
pub(crate) mod error;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod listing;
mod metadata;
mod operation;
mod ops;
pub(crate) mod range;
pub(crate) mod request;
mod service;
mod signature;
mod slow;
mod tagging;
pub(crate) mod uri;
mod xml;

use crate::date;

pub use bodies::BodyOptions;
pub use service::{LogRequests, LogSwitch, S3, S3Options};
