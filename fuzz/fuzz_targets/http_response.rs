//! Passes the input of the fuzzer to [`draupnir_fuzz::http_response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::http_response::run(input));
