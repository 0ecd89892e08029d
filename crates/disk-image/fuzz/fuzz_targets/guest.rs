//! Any bytes as a disk: what is inside of it is found, or not, within the limits.
#![no_main]

use guest_info::{inspect, limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let guest = inspect(Box::new(input.to_vec())).expect("memory does not fail");
    assert!(guest.partitions.len() <= limits::MAX_PARTITIONS);
    assert!(guest.bytes_read <= input.len() as u64, "a page was read twice");
    assert_eq!(guest.readiness.len(), 8);
    for text in
        guest.readiness.iter().flat_map(|finding| &finding.evidence).flat_map(|evidence| &evidence.text)
    {
        assert!(!text.contains(char::is_control) && text.chars().count() <= limits::MAX_SHOWN);
    }
});
