//! Hands what the fuzzer makes up to [`draupnir_fuzz::log_lines`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::log_lines::run(input));
