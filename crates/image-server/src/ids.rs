//! Identifiers in the shape of the cloud's: a prefix of three characters and 17 lower-case letters and digits.

use uuid::Uuid;

/// Prefix of images and of the operations on them; the cloud's own for compute in its first region.
const PREFIX: &str = "fd8";
const RANDOM_LEN: usize = 17;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// A new identifier: 85 random bits, so that a collision is not worth a check beyond the primary key's.
pub(crate) fn new_id() -> String {
    // A version 4 UUID has 122 random bits; six are fixed, and folding one half onto the other hides them.
    let (a, b) = (Uuid::new_v4().as_u128(), Uuid::new_v4().as_u128());
    let mut bits = a ^ b.rotate_left(64);
    let mut id = String::from(PREFIX);
    for _ in 0..RANDOM_LEN {
        id.push(char::from(ALPHABET[(bits & 31) as usize]));
        bits >>= 5;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!(id.len(), 20);
            assert!(
                id.starts_with("fd8") && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{id}"
            );
        }
    }
}
