//! Passes the input of the fuzzer to [`draupnir_fuzz::close_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::close_frame::run(input));
