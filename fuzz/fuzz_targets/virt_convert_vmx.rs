#![no_main]
use libfuzzer_sys::fuzz_target;
fuzz_target!(|data: &[u8]| drylab_converter::fuzz::virt_convert_vmx(data));
