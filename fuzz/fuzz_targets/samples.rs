#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gdsboot_fuzz::samples(data));
