#![no_main]
use libfuzzer_sys::fuzz_target;
fuzz_target!(|data: &[u8]| drylab_image::fuzz::vmdk_written(data));
