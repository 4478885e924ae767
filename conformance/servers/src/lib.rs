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
use std::sync::atomic::{AtomicU32, Ordering};

pub use gs::{GsServer, TOKEN};
pub use minio::Minio;
pub use s3::{ACCESS_KEY, S3Server, S3Trouble, SECRET_KEY};
pub use sshd::Sshd;
pub use weak_link::WeakLink;

/// Below those that Linux gives to who asks for any, which begin at 32768.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
const PORTS_APART: u32 = 101;

/// A loopback port that nothing listens on, another one each time, and none that the system gives to who asks for any: it is still free
/// when a program has been started for it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test programs beside each other begin apart.
        let next = std::process::id()
            .wrapping_mul(PORTS_APART)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (next % PORTS.len() as u32) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
