//! Passes the input of the fuzzer to [`draupnir_fuzz::journal_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| draupnir_fuzz::journal_file::run(input));
