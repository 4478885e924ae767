//! Any body in the coding aws-chunked: the same however it is sliced, and nothing that was not signed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| cairn_gateway::s3::fuzz::chunked(data));
