#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gdsboot_fuzz::write_log(data));
