//! Hands what the fuzzer makes up to [`draupnir_fuzz::llm_usage`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::llm_usage::run(input));
