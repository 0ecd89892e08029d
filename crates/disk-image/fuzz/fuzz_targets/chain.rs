//! Any bytes as an image and the files that it names.
#![no_main]

use fuzzing::{Files, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    fuzz(&Files::several(input), None);
});
