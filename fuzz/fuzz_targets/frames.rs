//! Frame streams through an endpoint, however they are cut: see
//! `rusty_socks_testing::fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::frames(data));
