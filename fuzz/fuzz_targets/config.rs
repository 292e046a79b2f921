//! Passes the input of the fuzzer to [`draupnir_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::config::run(input));
