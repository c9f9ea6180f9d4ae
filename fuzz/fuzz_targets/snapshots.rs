//! The file that a server reads at its start: see `rusty_socks_testing::fuzz::snapshots`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks_testing::fuzz::snapshots(data));
