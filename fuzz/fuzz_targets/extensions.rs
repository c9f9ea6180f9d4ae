//! The negotiation of extensions: see `rusty_socks_testing::fuzz::extensions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::extensions(data));
