//! Any request line and headers: an address and an operation, or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| cairn_gateway::s3::fuzz::address(data));
