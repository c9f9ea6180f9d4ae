//! What proxies say about their clients: see `rusty_socks_testing::fuzz::proxies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::proxies(data));
