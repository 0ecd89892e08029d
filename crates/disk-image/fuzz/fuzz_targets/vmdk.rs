//! Any bytes as a VMDK image.
#![no_main]

use disk_image::Format;
use fuzzing::{Files, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    fuzz(&Files::one(input), Some(Format::Vmdk));
});
