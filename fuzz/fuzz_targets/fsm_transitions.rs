//! Hands what the fuzzer makes up to [`draupnir_fuzz::fsm_transitions`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::fsm_transitions::run(input));
