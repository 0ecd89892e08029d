//! The configuration file of image-prep: named profiles, in TOML.
//!
//! `image-prep/config.toml` of the user's configuration folder (XDG Base Directory Specification: `XDG_CONFIG_HOME`, `~/.config`
//! where it is not set):
//!
//! ```toml
//! profile = "work"                # where neither --profile nor IMAGE_PREP_PROFILE says which
//!
//! [profiles.work]
//! cloud = "ru"                    # or endpoint = "https://images.example:8443"
//! folder-id = "b1g..."            # with cloud = "gcp": project
//! service-account-key-file = "key.json"   # paths are relative to this file
//! bucket = "images"
//! ```
//!
//! It holds no secrets, it says where they are: a key that is not known here is refused, without its value.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::args::values::Bucket;
use crate::cloud::Cloud;
use crate::error::Error;
use crate::folders;

/// The profile that is used where nothing names another, if there is one.
const DEFAULT: &str = "default";

/// What a profile says; all of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Profile {
    /// Its name; empty where there is no profile.
    #[serde(skip)]
    pub(crate) name: String,
    /// It was named for this command, and is not just the one that is used otherwise.
    #[serde(skip)]
    pub(crate) is_named: bool,
    pub(crate) cloud: Option<Cloud>,
    pub(crate) endpoint: Option<String>,
    pub(crate) folder_id: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) service_account_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) instance_service_account: bool,
    pub(crate) yc_profile: Option<String>,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) storage_endpoint_url: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) aws_profile: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Option<String>,
    #[serde(default)]
    profiles: std::collections::BTreeMap<String, Profile>,
}

impl Profile {
    /// The profile of this name, or the one that the file says; an empty one where nothing is named and there is none.
    pub(crate) fn load(name: Option<&str>) -> Result<Self, Error> {
        let Some(folder) = folders::of_user("XDG_CONFIG_HOME", ".config") else {
            return name.map_or(Ok(Self::default()), |name| {
                Err(Error::NoProfile { name: name.to_owned(), path: "config.toml".into() })
            });
        };
        let path = folder.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { is_named: name.is_some(), ..Self::read(&text, name, &path)? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match name {
                None => Ok(Self::default()),
                Some(name) => Err(Error::NoProfile { name: name.to_owned(), path }),
            },
            Err(source) => Err(Error::File { action: "read the profiles in", path, source }),
        }
    }

    fn read(text: &str, name: Option<&str>, path: &Path) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|error| {
            // Its own text shows the line, in which somebody may have put a token.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            Error::Config { path: path.to_owned(), line: before.matches('\n').count() + 1 }
        })?;
        let File { profile, mut profiles } = file;
        let named = name.map(str::to_owned).or(profile);
        let is_named = named.is_some();
        let name = named.unwrap_or_else(|| DEFAULT.to_owned());
        let Some(profile) = profiles.remove(&name) else {
            return match is_named {
                false => Ok(Self::default()),
                true => Err(Error::NoProfile { name, path: path.to_owned() }),
            };
        };
        let beside = |file: PathBuf| path.parent().map(|folder| folder.join(&file)).unwrap_or(file);
        Ok(Self {
            name,
            token_file: profile.token_file.map(beside),
            service_account_key_file: profile.service_account_key_file.map(beside),
            ..profile
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "profile = \"work\"\n[profiles.work]\ncloud = \"kz\"\nfolder-id = \"f\"\n\
                        service-account-key-file = \"key.json\"\n[profiles.other]\ntoken-file = \"/t\"\n";

    fn read(text: &str, name: Option<&str>) -> Result<Profile, Error> {
        Profile::read(text, name, Path::new("/c/config.toml"))
    }

    #[test]
    fn profiles_by_name() {
        let work = read(TEXT, None).unwrap();
        assert_eq!(
            (work.name.as_str(), work.cloud, work.folder_id.as_deref()),
            ("work", Some(Cloud::Kz), Some("f"))
        );
        assert_eq!(work.service_account_key_file.as_deref(), Some(Path::new("/c/key.json")));
        let other = read(TEXT, Some("other")).unwrap();
        assert_eq!(other.token_file.as_deref(), Some(Path::new("/t")));
        assert!(matches!(read(TEXT, Some("none")), Err(Error::NoProfile { name, .. }) if name == "none"));
        assert_eq!(read("[profiles.work]\n", None).unwrap(), Profile::default());
        assert_eq!(read("[profiles.default]\nbucket = \"b\"\n", None).unwrap().bucket, "b".parse().ok());
        assert!(matches!(read("profile = \"gone\"\n", None), Err(Error::NoProfile { .. })));
    }

    #[test]
    fn what_is_wrong_is_not_repeated() {
        for text in [
            "[profiles.a]\nbucket = \"b\"\ntoken = \"t0p-SECRET\"\n",
            "[profiles.a]\n\ninstance-service-account = \"t0p-SECRET\"\n",
        ] {
            let error = read(text, None).unwrap_err();
            assert!(matches!(&error, Error::Config { line: 3, .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("SECRET"));
        }
    }
}
