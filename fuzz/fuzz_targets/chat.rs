//! The chat protocol: see `rusty_socks::fuzzing::chat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rusty_socks::fuzzing::chat(data));
