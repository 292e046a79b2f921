//! Passes the input of the fuzzer to [`draupnir_fuzz::hand_over_state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::hand_over_state::run(input));
