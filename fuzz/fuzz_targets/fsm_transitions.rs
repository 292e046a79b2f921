//! Passes the input of the fuzzer to [`draupnir_fuzz::fsm_transitions`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::fsm_transitions::run(input));
