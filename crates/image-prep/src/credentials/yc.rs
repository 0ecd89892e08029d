//! The configuration file of `yc`, the cloud's own command line: its profiles, of which one is current.
//!
//! `~/.config/yandex-cloud/config.yaml`. Read of a profile are `token` (IAM or OAuth), `service-account-key`, `instance-service-account`,
//! `folder-id` and `endpoint`; a federated one has none of the first three, and only `yc` can log in with it. The file is walked as
//! events, and what is not a mapping of text to text is skipped, aliases too: nothing in it can make it larger than it is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use image_api::{KeyError, ServiceAccountKey, Token};
use saphyr_parser::{Event, Parser};

/// Deepest nesting that is walked: the key is at four.
const DEPTH_MAX: usize = 16;

/// What a profile says.
#[derive(Clone, Default)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) folder_id: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// By the names of the file, secrets among them.
    values: BTreeMap<String, String>,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum YcError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
    /// Not YAML.
    #[error("line {line} is not YAML")]
    Yaml {
        /// From 1.
        line: usize,
    },
    /// Nested too deep.
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    Deep,
    /// There is no such profile in it.
    #[error("it has no profile `{name}`")]
    NoProfile {
        /// Its name.
        name: String,
    },
}

/// Credentials in a profile.
pub(crate) enum Found {
    Token(Option<Token>),
    Key(Result<ServiceAccountKey, KeyError>),
    Machine,
}

/// Where the file is.
pub(crate) fn path() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(&home).join(".config/yandex-cloud/config.yaml"))
}

impl Profile {
    /// The profile of this name, or the current one; `None` where nothing is named and there is no file or no current one.
    pub(crate) fn load(path: &Path, name: Option<&str>) -> Result<Option<Self>, YcError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(&text, name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.is_none() => Ok(None),
            Err(error) => Err(YcError::Io(error)),
        }
    }

    fn read(text: &str, name: Option<&str>) -> Result<Option<Self>, YcError> {
        let all = flatten(text)?;
        let current = all.get(&["current".to_owned()][..]).map(String::as_str);
        let Some(name) = name.or(current) else { return Ok(None) };
        let values: BTreeMap<_, _> = all
            .iter()
            .filter_map(|(path, value)| match &path[..] {
                [profiles, profile, key @ ..] if profiles == "profiles" && profile == name => {
                    Some((key.join("."), value.clone()))
                }
                _ => None,
            })
            .collect();
        if values.is_empty() {
            return Err(YcError::NoProfile { name: name.to_owned() });
        }
        let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
        Ok(Some(Self {
            name: name.to_owned(),
            folder_id: value("folder-id"),
            endpoint: value("endpoint"),
            values,
        }))
    }

    /// The credentials in it.
    pub(crate) fn credentials(&self) -> Option<Found> {
        let value = |key: &str| self.values.get(key).filter(|value| !value.is_empty());
        if let Some(private) = value("service-account-key.private_key") {
            let part = |key: &str| value(key).cloned().unwrap_or_default();
            let (id, account) =
                (part("service-account-key.id"), part("service-account-key.service_account_id"));
            return Some(Found::Key(ServiceAccountKey::new(id, account, private)));
        }
        if let Some(token) = value("token") {
            return Some(Found::Token(Token::new(token)));
        }
        value("instance-service-account").filter(|value| *value == "true").map(|_| Found::Machine)
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The texts of a document, by the keys that lead to them.
fn flatten(text: &str) -> Result<BTreeMap<Vec<String>, String>, YcError> {
    let mut found = BTreeMap::new();
    // For each open collection: the key whose value comes next; `None` in a sequence, and where a key comes next.
    let mut open: Vec<Level> = Vec::new();
    let (mut documents, mut skipped) = (0, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| YcError::Yaml { line: error.marker().line() })?;
        match event {
            Event::DocumentStart(_) => documents += 1,
            _ if documents > 1 => break,
            // A collection as a key is nobody's, nor what is in it.
            Event::MappingStart(..) | Event::SequenceStart(..) if skipped > 0 => skipped += 1,
            Event::MappingEnd | Event::SequenceEnd if skipped > 0 => {
                skipped -= 1;
                if skipped == 0 {
                    open.last_mut().into_iter().for_each(Level::took_value);
                }
            }
            _ if skipped > 0 => {}
            Event::MappingStart(..) if open.last().is_none_or(|level| level.key.is_some()) => {
                if open.len() == DEPTH_MAX {
                    return Err(YcError::Deep);
                }
                open.push(Level { key: None });
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => skipped = 1,
            Event::MappingEnd => {
                open.pop();
                open.last_mut().into_iter().for_each(Level::took_value);
            }
            Event::Scalar(value, ..) => {
                let path: Vec<String> = open.iter().filter_map(|level| level.key.clone()).collect();
                let Some(level) = open.last_mut() else { continue };
                match level.key {
                    None => level.key = Some(value.into_owned()),
                    Some(_) => {
                        level.took_value();
                        found.insert(path, value.into_owned());
                    }
                }
            }
            Event::Alias(_) => open.last_mut().into_iter().for_each(Level::took_value),
            _ => {}
        }
    }
    Ok(found)
}

/// A mapping that is open.
struct Level {
    key: Option<String>,
}

impl Level {
    fn took_value(&mut self) {
        // A collection or an alias as a key leaves none, and its value would be taken for the next: it is given a name nobody asks for.
        self.key = match self.key {
            Some(_) => None,
            None => Some(String::new()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "current: person\n\
        profiles:\n\
        \x20 person:\n\
        \x20   token: y0_SECRET\n\
        \x20   cloud-id: c\n\
        \x20   folder-id: \"f1\"\n\
        \x20   lists: [a, {b: c}]\n\
        \x20   endpoint: api.cloud.yandex.net:443\n\
        \x20 machine:\n\
        \x20   instance-service-account: true\n\
        \x20 robot:\n\
        \x20   folder-id: f2\n\
        \x20   service-account-key:\n\
        \x20     id: ajekey\n\
        \x20     service_account_id: ajeaccount\n\
        \x20     private_key: |\n\
        \x20       PLEASE DO NOT REMOVE THIS LINE!\n\
        \x20       -----BEGIN PRIVATE KEY-----\n\
        \x20       SECRET\n\
        \x20       -----END PRIVATE KEY-----\n\
        \x20 federated:\n\
        \x20   federation-id: x\n";

    fn of(name: Option<&str>) -> Profile {
        Profile::read(TEXT, name).unwrap().unwrap()
    }

    #[test]
    fn profiles() {
        let person = of(None);
        assert_eq!((person.name.as_str(), person.folder_id.as_deref()), ("person", Some("f1")));
        assert_eq!(person.endpoint.as_deref(), Some("api.cloud.yandex.net:443"));
        let Some(Found::Token(Some(token))) = person.credentials() else { panic!("no token") };
        assert_eq!(token.expose(), "y0_SECRET");
        assert!(matches!(of(Some("machine")).credentials(), Some(Found::Machine)));
        let robot = of(Some("robot"));
        // That far it is read: three letters are no key.
        assert!(matches!(robot.credentials(), Some(Found::Key(Err(KeyError::Rsa | KeyError::Pem)))));
        assert!(of(Some("federated")).credentials().is_none());
        assert!(!format!("{person:?} {robot:?}").contains("SECRET"));
    }

    #[test]
    fn what_is_not_there_or_not_yaml() {
        assert!(matches!(Profile::read(TEXT, Some("none")), Err(YcError::NoProfile { .. })));
        assert!(Profile::read("profiles: {}\n", None).unwrap().is_none());
        assert!(Profile::read("", None).unwrap().is_none());
        assert!(matches!(Profile::read("a: [SECRET\nb: }", None), Err(YcError::Yaml { .. })));
        assert!(matches!(
            Profile::read(&"{a: ".repeat(100), None),
            Err(YcError::Yaml { .. } | YcError::Deep)
        ));
    }

    #[test]
    fn keys_that_are_no_text_are_passed_over() {
        let text = "? [a, b]\n: {x: y}\n? {c: d}\n: e\ncurrent: n\nprofiles: {n: {folder-id: f}}\n";
        assert_eq!(Profile::read(text, None).unwrap().unwrap().folder_id.as_deref(), Some("f"));
        let alias = "a: &x b\n? *x\n: c\ncurrent: *x\nprofiles: {n: {folder-id: f}}\n";
        assert!(Profile::read(alias, None).unwrap().is_none());
    }
}
