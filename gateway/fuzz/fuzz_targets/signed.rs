//! Any signature in query or headers: nobody gets in who does not know the secret.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| cairn_gateway::s3::fuzz::signed(data));
