//! File names in a descriptor, by the character encoding that it declares.
//!
//! Source: the `encoding` key of descriptors, names as the IANA registry has them; the WHATWG encoding standard's index of
//! windows-1252. A name is decoded, never guessed: one with bytes above 0x7f in an encoding that is not read here is refused. A
//! descriptor without the key (QEMU's, old ones of VMware) has its names byte for byte as the file system had them; where those are
//! UTF-8 they pass unchanged, so nothing is assumed, and where they are not they are refused.

use crate::{Feature, OpenError};

/// The characters of windows-1252 from 0x80 to 0x9f; NUL where it has none. All others are those of Unicode.
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\0', '\u{201a}', '\u{0192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{02c6}',
    '\u{2030}', '\u{0160}', '\u{2039}', '\u{0152}', '\0', '\u{017d}', '\0', '\0', '\u{2018}', '\u{2019}',
    '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{02dc}', '\u{2122}', '\u{0161}',
    '\u{203a}', '\u{0153}', '\0', '\u{017e}', '\u{0178}',
];

/// How names are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Charset {
    /// UTF-8, or nothing is declared.
    #[default]
    Utf8,
    /// windows-1252.
    Windows1252,
    /// Something else, of which only ASCII is read.
    Other,
}

impl Charset {
    /// The encoding with a name, upper or lower case.
    pub(super) fn named(name: &[u8]) -> Self {
        let is = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        if is(&["UTF-8", "UTF8"]) {
            Self::Utf8
        } else if is(&["windows-1252", "cp1252"]) {
            Self::Windows1252
        } else {
            Self::Other
        }
    }

    /// A name in this encoding.
    pub(super) fn decode(self, name: &[u8]) -> Result<String, OpenError> {
        let decoded = match self {
            Self::Utf8 => str::from_utf8(name).ok().map(str::to_owned),
            Self::Windows1252 => name.iter().map(|byte| windows_1252(*byte)).collect(),
            Self::Other => str::from_utf8(name).ok().filter(|name| name.is_ascii()).map(str::to_owned),
        };
        decoded.ok_or(OpenError::Unsupported(Feature::VmdkEncoding))
    }
}

fn windows_1252(byte: u8) -> Option<char> {
    match byte {
        0x80..=0x9f => WINDOWS_1252.get(usize::from(byte & 0x1f)).copied().filter(|char| *char != '\0'),
        _ => Some(char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_or_refused() {
        let refused = Err(OpenError::Unsupported(Feature::VmdkEncoding));
        let decode = |charset: &str, name: &[u8]| Charset::named(charset.as_bytes()).decode(name);
        assert_eq!(decode("utf-8", "Größe €.vmdk".as_bytes()), Ok("Größe €.vmdk".into()));
        assert_eq!(decode("windows-1252", b"Gr\xf6\xdfe \x80\x9f.vmdk"), Ok("Größe €Ÿ.vmdk".into()));
        assert_eq!(decode("Windows-1252", b"\xff\x8c\x9c\xa0"), Ok("ÿŒœ\u{a0}".into()));
        for undefined in [0x81, 0x8d, 0x8f, 0x90, 0x9d] {
            assert_eq!(decode("windows-1252", &[undefined]), refused, "{undefined:x}");
        }
        assert_eq!(decode("UTF-8", b"\xf6.vmdk"), refused);
        assert_eq!(Charset::default().decode(b"\xf6.vmdk"), refused);
        assert_eq!(Charset::default().decode("ö.vmdk".as_bytes()), Ok("ö.vmdk".into()));
        for other in ["Shift_JIS", "GBK", "Big5", "UTF-16", ""] {
            assert_eq!(decode(other, b"disk-flat.vmdk"), Ok("disk-flat.vmdk".into()));
            assert_eq!(decode(other, "ö.vmdk".as_bytes()), refused, "{other}");
        }
    }
}
