//! Bodies of requests to the admin listener: see `rusty_socks_testing::fuzz::bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::bodies(data));
