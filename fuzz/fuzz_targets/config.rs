//! Settings from a file, variables and flags: see `rusty_socks::fuzzing::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks::fuzzing::config(data));
