//! One target; which one, the binary's name says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubectl_build::fuzz::run(env!("CARGO_BIN_NAME"), bytes));
