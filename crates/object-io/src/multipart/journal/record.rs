//! The lines of a journal: eight hexadecimal digits of CRC32, a space, a JSON object, a newline.
//!
//! The CRC is over the JSON. What a crash tears is the last line, or the last few where the system wrote pages in another
//! order: reading stops at the first line that is not whole, and nothing behind it is believed.
//!
//! Refused: records of another version, which end the reading as a torn line does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::PartSent;

/// Changes with the meaning of the records.
pub(super) const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase")]
pub(super) enum Record {
    /// An upload was begun. Whatever stands before is of another one.
    Begun(Box<Begun>),
    /// A part is in the store.
    Part(PartRecord),
    /// The object is to stay, whatever was said when the upload was begun.
    Kept,
    /// The object is whole, and under its name.
    Done(Done),
}

/// What an upload is, and of what. Two uploads with the same [`UploadOf`] and the same lengths send the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    pub(super) version: u32,
    /// The store: its URL, or the region of AWS.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Names the upload in the store.
    pub upload_id: String,
    /// Length of the object in bytes.
    pub len: u64,
    /// Length of all parts but the last, bytes.
    pub part_len: u64,
    /// What is uploaded.
    pub of: UploadOf,
}

/// What is uploaded: as far as these agree, the bytes do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadOf {
    /// Form of the object and what the form depends on, as text.
    pub form: String,
    /// Changes whenever a form's bytes do.
    pub layout: u32,
    /// The content, where it is known.
    pub guest_digest: Option<String>,
    /// Each file that the content is read from.
    pub sources: Vec<SourceIdentity>,
    /// The object is to be removed when it has served its purpose.
    pub temporary: bool,
}

/// Which file, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceIdentity {
    /// What errors call it; no secret.
    pub name: String,
    /// What changes when it does.
    pub version: String,
}

/// A part that the store has answered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    number: u32,
    etag: String,
    crc32: u32,
    len: u64,
}

/// The finished object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its version, quotes included.
    pub etag: String,
}

impl PartRecord {
    pub(super) fn new(number: u32, part: &PartSent) -> Self {
        Self { number, etag: part.etag.to_string(), crc32: part.crc32, len: part.len }
    }
}

/// What the records say together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) begun: Option<Begun>,
    /// By number, from 1.
    pub(crate) parts: BTreeMap<u32, PartSent>,
    pub(crate) done: Option<Done>,
}

impl Known {
    pub(super) fn of(records: Vec<Record>) -> Self {
        records.into_iter().fold(Self::default(), Self::with)
    }

    fn with(mut self, record: Record) -> Self {
        match record {
            Record::Begun(begun) => return Self { begun: Some(*begun), ..Self::default() },
            Record::Part(PartRecord { number, etag, crc32, len }) => {
                self.parts.insert(number, PartSent { etag: etag.into(), crc32, len, md5: None });
            }
            Record::Kept => {
                if let Some(begun) = &mut self.begun {
                    begun.of.temporary = false;
                }
            }
            Record::Done(done) => self.done = Some(done),
        }
        self
    }
}

/// The line of a record. Empty for one that has no JSON, which none of them is.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let Ok(json) = serde_json::to_vec(record) else { return Vec::new() };
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// The whole records at the beginning of `bytes`, and how many bytes they take.
pub(super) fn decode(bytes: &[u8]) -> (Vec<Record>, u64) {
    let mut records = Vec::new();
    let mut whole = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(record) = decode_line(line) else { break };
        records.push(record);
        whole += line.len() as u64;
    }
    (records, whole)
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    // As written: `from_str_radix` would take a sign too.
    if sum != format!("{:08x}", crc32fast::hash(json)).as_bytes() {
        return None;
    }
    let record = serde_json::from_slice(json).ok()?;
    match &record {
        Record::Begun(begun) if begun.version != VERSION => None,
        _ => Some(record),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begun(key: String, guest_digest: Option<String>, len: u64) -> Record {
        let source = SourceIdentity { name: "disk\n\u{1f4be}".to_owned(), version: "1 2 3".to_owned() };
        Record::Begun(Box::new(Begun {
            version: VERSION,
            endpoint: "http://127.0.0.1:9000/".to_owned(),
            bucket: "bucket".to_owned(),
            key,
            upload_id: "id".to_owned(),
            len,
            part_len: 16 << 20,
            of: UploadOf {
                form: "qcow2-2097152".to_owned(),
                layout: 1,
                guest_digest,
                sources: vec![source],
                temporary: false,
            },
        }))
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let begun = (".{0,20}", proptest::option::of(".{0,9}"), any::<u64>())
            .prop_map(|(key, digest, len)| begun(key, digest, len));
        let part = (any::<u32>(), ".{0,20}", any::<u32>(), any::<u64>())
            .prop_map(|(number, etag, crc32, len)| Record::Part(PartRecord { number, etag, crc32, len }));
        let done = ".{0,20}".prop_map(|etag| Record::Done(Done { etag }));
        proptest::collection::vec(prop_oneof![begun, part, done, Just(Record::Kept)], 0..8)
    }

    fn text(records: &[Record]) -> Vec<u8> {
        records.iter().flat_map(encode).collect()
    }

    proptest! {
        #[test]
        fn any_cut_yields_a_prefix(records in records(), cut in any::<prop::sample::Index>()) {
            let bytes = text(&records);
            let cut = cut.index(bytes.len() + 1);
            let (found, whole) = decode(&bytes[..cut]);
            prop_assert_eq!(&found[..], &records[..found.len()]);
            // Not one record less than there are, and the rest is torn.
            prop_assert_eq!(whole, text(&found).len() as u64);
            let next = records.get(found.len()).map_or(0, |record| encode(record).len() as u64);
            prop_assert!(cut as u64 - whole < next.max(1));
        }

        #[test]
        fn a_flipped_bit_ends_the_reading(records in records(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = text(&records);
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let (found, whole) = decode(&bytes);
            prop_assert_eq!(&found[..], &records[..found.len()]);
            prop_assert!(whole <= at as u64);
        }

        #[test]
        fn nothing_is_believed_of_noise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes).1, 0);
        }
    }

    #[test]
    fn another_upload_begins_anew() {
        let part = |number| Record::Part(PartRecord { number, etag: "e".into(), crc32: 1, len: 2 });
        let begin = |key: &str| begun(key.to_owned(), None, 1);
        let known = Known::of(vec![begin("a"), part(1), part(2), begin("b"), part(3)]);
        assert_eq!(known.begun.map(|begun| begun.key).as_deref(), Some("b"));
        assert_eq!(known.parts.into_keys().collect::<Vec<_>>(), [3]);
        assert_eq!(known.done, None);
    }

    #[test]
    fn another_version_is_not_read() {
        let Record::Begun(mut begun) = begun("k".to_owned(), None, 1) else { unreachable!() };
        begun.version += 1;
        assert!(decode(&encode(&Record::Begun(begun))).0.is_empty());
    }
}
