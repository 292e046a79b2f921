//! Passes the input of the fuzzer to [`draupnir_fuzz::envelope_differential`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::envelope_differential::run(input));
