//! Any value of a header: ranges within the object, tags, sources, dates.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| cairn_gateway::s3::fuzz::values(data));
