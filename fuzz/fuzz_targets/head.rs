//! Request heads, whole and cut: see `rusty_socks_testing::fuzz::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::head(data));
