//! Any document: refused, or within its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| cairn_gateway::s3::fuzz::documents(data));
