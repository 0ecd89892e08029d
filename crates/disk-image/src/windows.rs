//! Names as Windows writes them into images: UTF-16, backslashes.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Text in UTF-16, little-endian, up to a NUL; what is none is replaced.
pub(crate) fn utf16_le(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)))
}

/// The same, big-endian.
pub(crate) fn utf16_be(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks().0.iter().map(|unit| u16::from_be_bytes(*unit)))
}

fn utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// A relative path with the separators that everybody else uses. One that names a drive or a share is left as it is: it leads nowhere
/// here, and whoever opens files says so.
pub(crate) fn relative_path(path: &str) -> String {
    if path.starts_with(['\\', '/']) || path.as_bytes().get(1) == Some(&b':') {
        return path.to_owned();
    }
    let path = path.replace('\\', "/");
    path.strip_prefix("./").map_or(path.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(utf16_le(b"a\0\xdf\0=\xd8\x00\xde\0\0b\0"), "a\u{df}\u{1f600}");
        assert_eq!(utf16_be(b"\0a\xd8\x00\0b\x30"), "a\u{fffd}b");
    }

    #[test]
    fn paths() {
        let cases = [
            (r".\a\b.vhd", "a/b.vhd"),
            (r"..\a.vhd", "../a.vhd"),
            ("a.vhd", "a.vhd"),
            (r"C:\a\b.vhd", r"C:\a\b.vhd"),
            (r"\\server\a.vhd", r"\\server\a.vhd"),
            (r"\\?\d:\a.vhdx", r"\\?\d:\a.vhdx"),
        ];
        for (windows, ours) in cases {
            assert_eq!(relative_path(windows), ours);
        }
    }
}
