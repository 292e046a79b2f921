//! Passes the input of the fuzzer to [`draupnir_fuzz::terminal_snapshot`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::terminal_snapshot::run(input));
