//! The chat protocol: see `rusty_socks_testing::fuzz::chat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::chat(data));
