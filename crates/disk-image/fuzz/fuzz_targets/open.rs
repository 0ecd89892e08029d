//! Any bytes as an image whose format the content shows.
#![no_main]

use fuzzing::{Files, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    fuzz(&Files::one(input), None);
});
