#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| iotpipeline_fuzz::packets(bytes));
