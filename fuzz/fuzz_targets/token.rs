//! Tokens and their claims: see `rusty_socks_testing::fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::token(data));
