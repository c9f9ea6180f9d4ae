//! TLS records in pieces: see `rusty_socks_testing::fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::records(data));
