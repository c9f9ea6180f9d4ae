//! Settings from a file, variables and flags: see `rusty_socks_testing::fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::config(data));
