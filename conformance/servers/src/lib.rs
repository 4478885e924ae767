//! Real servers on loopback for the tests of several crates; nothing here is linked into a product.
//!
//! A program that is not there fails the test: nothing is skipped. Every server ends with its value.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod gs;
mod minio;
mod s3;
mod sshd;
mod weak_link;

use std::net::TcpListener;

pub use gs::{GsServer, TOKEN};
pub use minio::Minio;
pub use s3::{ACCESS_KEY, S3Server, S3Trouble, SECRET_KEY};
pub use sshd::Sshd;
pub use weak_link::WeakLink;

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
