//! As whom to speak to the image service, and where it is: what options, environment and profiles say, in that order.
//!
//! | | options | environment | profile of image-prep | profile of `yc` | else |
//! |---|---|---|---|---|---|
//! | credentials | `--token-file`, `--service-account-key-file`, `--instance-service-account` | `YC_TOKEN`, `YC_IAM_TOKEN`, `YC_SERVICE_ACCOUNT_KEY_FILE` | `token-file`, `service-account-key-file`, `instance-service-account` | `token`, `service-account-key`, `instance-service-account` | the machine's metadata |
//! | endpoint | `--endpoint`, `--cloud` | `YC_ENDPOINT` | `endpoint`, `cloud` | `endpoint` | cloud `ru` |
//! | folder | `--folder-id` | `YC_FOLDER_ID` | `folder-id` | `folder-id` | |
//!
//! Within a field the first one counts. What nobody named, the current profile of `yc` and the machine's metadata, is used
//! with the clouds that are built in and with the endpoint of that profile only: another server that is tried out must not get the
//! token of a cloud. The same holds for a profile of image-prep that was not named by --profile: its credentials go to its endpoint,
//! and to a cloud that is built in if it has none. A profile of `yc` that was typed comes before the environment. Nothing is asked
//! of anybody here.

pub(crate) mod google;
pub(crate) mod yc;

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use image_api::{ServiceAccountKey, Token};
use url::Url;

use crate::args::ApiArgs;
use crate::cloud::{self, Cloud};
use crate::config;
use crate::error::Error;

/// Longest file of a token or a key: they have a few KiB.
const FILE_MAX: u64 = 64 << 10;

/// How OAuth tokens begin; IAM tokens begin with `t1.`, those of other servers with something else.
const OAUTH: [&str; 6] = ["y0_", "y1_", "y2_", "y3_", "AQAA", "AgAA"];

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// An option.
    Option(&'static str),
    /// A variable.
    Variable(&'static str),
    /// The profile of image-prep of this name.
    Profile(String),
    /// The profile of `yc` of this name.
    Yc(String),
    /// The file that gcloud keeps for application default credentials.
    Gcloud,
    /// Nobody.
    Default,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) | Self::Variable(name) => f.write_str(name),
            Self::Profile(name) => write!(f, "profile `{name}`"),
            Self::Yc(name) => write!(f, "profile `{name}` of yc"),
            Self::Gcloud => f.write_str("gcloud's application default credentials"),
            Self::Default => f.write_str("built in"),
        }
    }
}

/// What was found, and who said so.
#[derive(Debug, Clone)]
pub(crate) struct Told<T> {
    pub(crate) value: T,
    pub(crate) by: By,
}

/// Credentials. Prints no secret.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A token that is shown as it is.
    Bearer(Token),
    /// A token that is exchanged for one.
    Oauth(Token),
    /// A key that signs for one.
    Key(ServiceAccountKey),
    /// The machine's metadata have one.
    Machine,
}

impl Source {
    /// A token of either kind.
    fn of_token(token: Token) -> Self {
        let is_oauth = OAUTH.iter().any(|prefix| token.expose().starts_with(prefix));
        if is_oauth { Self::Oauth(token) } else { Self::Bearer(token) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("a token"),
            Self::Oauth(_) => f.write_str("an OAuth token"),
            Self::Key(key) => write!(f, "key {} of service account {}", key.id(), key.account_id()),
            Self::Machine => f.write_str("the service account of this machine"),
        }
    }
}

/// All that there is to choose from.
pub(crate) struct Choice<'a> {
    /// What was typed.
    pub(crate) args: &'a ApiArgs,
    /// The environment.
    pub(crate) variable: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The profile of image-prep.
    pub(crate) own: &'a config::Profile,
    /// The profile of `yc`.
    pub(crate) yc: Option<&'a yc::Profile>,
}

/// The variables of this process; one that is empty is none.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Choice<'_> {
    /// Where the image service is, or what knows where.
    pub(crate) fn endpoint(&self) -> Told<String> {
        let told = |value: String, by| Told { value, by };
        if let Some(endpoint) = &self.args.endpoint {
            return told(endpoint.clone(), By::Option("--endpoint"));
        }
        if let Some(cloud) = self.args.cloud {
            return told(cloud.endpoint(), By::Option("--cloud"));
        }
        if let Some(told) = self.typed_yc().and_then(yc_endpoint) {
            return told;
        }
        if let Some(endpoint) = (self.variable)("YC_ENDPOINT") {
            return told(endpoint, By::Variable("YC_ENDPOINT"));
        }
        let own = || By::Profile(self.own.name.clone());
        if let Some(endpoint) = &self.own.endpoint {
            return told(endpoint.clone(), own());
        }
        if let Some(cloud) = self.own.cloud {
            return told(cloud.endpoint(), own());
        }
        self.yc.and_then(yc_endpoint).unwrap_or_else(|| told(Cloud::default().endpoint(), By::Default))
    }

    /// The profile of `yc`, if it was typed.
    fn typed_yc(&self) -> Option<&yc::Profile> {
        self.yc.filter(|_| self.args.yc_profile.is_some())
    }

    /// True if what the profile of image-prep names may be used with an endpoint.
    fn own_goes_with(&self, endpoint: &Told<Url>) -> bool {
        let is_its_own = match endpoint.by {
            By::Profile(_) | By::Default => true,
            By::Yc(_) => self.own.yc_profile.is_some(),
            By::Option(_) | By::Variable(_) | By::Gcloud => false,
        };
        // What it has for Google is for nobody else.
        let is_of_google = self.own.cloud == Some(Cloud::Gcp);
        let goes = is_its_own || self.own.endpoint.is_none() && Cloud::of(&endpoint.value).is_some();
        !is_of_google && (self.own.is_named || goes)
    }

    /// The endpoint as a URL. One without a scheme has `https`, or `http` where `YC_PLAINTEXT` says so.
    pub(crate) fn endpoint_url(&self, allow_http: bool) -> Result<Told<Url>, Error> {
        let Told { value, by } = self.endpoint();
        let plain = (self.variable)("YC_PLAINTEXT").is_some_and(|value| value == "true" || value == "1");
        let scheme = if plain { "http" } else { "https" };
        Ok(Told { value: cloud::parse(&value, scheme, allow_http)?, by })
    }

    /// Whose the Image is; `typed` is the option or its variable.
    pub(crate) fn folder_id(&self, typed: Option<&str>) -> Option<Told<String>> {
        let typed = typed.map(|id| (id.to_owned(), By::Option("--folder-id")));
        let own = || Some((self.own.folder_id.clone()?, By::Profile(self.own.name.clone())));
        let of_yc = |yc: &yc::Profile| Some((yc.folder_id.clone()?, By::Yc(yc.name.clone())));
        let (typed_yc, yc) = (|| self.typed_yc().and_then(of_yc), || self.yc.and_then(of_yc));
        typed.or_else(typed_yc).or_else(own).or_else(yc).map(|(value, by)| Told { value, by })
    }

    /// The credentials for an endpoint; `None` where there are none that may be used with it.
    pub(crate) fn credentials(&self, endpoint: &Told<Url>) -> Result<Option<Told<Source>>, Error> {
        let is_built_in = Cloud::of(&endpoint.value).is_some();
        if let Some(typed) = self.typed()? {
            return Ok(Some(typed));
        }
        if let Some(found) = self.typed_yc().map(of_yc).transpose()?.flatten() {
            return Ok(Some(found));
        }
        if let Some(named) = self.named(endpoint)? {
            return Ok(Some(named));
        }
        let yc_was_named = self.own.yc_profile.is_some() && self.own_goes_with(endpoint);
        let yc = self.yc.filter(|_| yc_was_named || is_built_in || matches!(endpoint.by, By::Yc(_)));
        if let Some(found) = yc.map(of_yc).transpose()?.flatten() {
            return Ok(Some(found));
        }
        Ok(is_built_in.then_some(Told { value: Source::Machine, by: By::Default }))
    }

    /// What an option names.
    fn typed(&self) -> Result<Option<Told<Source>>, Error> {
        let told = |value, by| Ok(Some(Told { value, by }));
        if let Some(path) = &self.args.token_file {
            return told(read_token(path)?, By::Option("--token-file"));
        }
        if let Some(path) = &self.args.service_account_key_file {
            return told(read_key(path)?, By::Option("--service-account-key-file"));
        }
        if self.args.instance_service_account {
            return told(Source::Machine, By::Option("--instance-service-account"));
        }
        Ok(None)
    }

    /// What a variable or the profile of image-prep names.
    fn named(&self, endpoint: &Told<Url>) -> Result<Option<Told<Source>>, Error> {
        let told = |value, by| Ok(Some(Told { value, by }));
        for name in ["YC_TOKEN", "YC_IAM_TOKEN"] {
            if let Some(value) = (self.variable)(name) {
                let token = Token::new(&value).ok_or_else(|| Error::Token { place: name.to_owned() })?;
                return told(Source::of_token(token), By::Variable(name));
            }
        }
        let name = "YC_SERVICE_ACCOUNT_KEY_FILE";
        if let Some(value) = (self.variable)(name) {
            // A path, or the JSON itself.
            let key = match value.trim_start().starts_with('{') {
                true => parse_key(&value, name)?,
                false => read_key(Path::new(&value))?,
            };
            return told(key, By::Variable(name));
        }
        if !self.own_goes_with(endpoint) {
            return Ok(None);
        }
        let own = || By::Profile(self.own.name.clone());
        if let Some(path) = &self.own.token_file {
            return told(read_token(path)?, own());
        }
        if let Some(path) = &self.own.service_account_key_file {
            return told(read_key(path)?, own());
        }
        if self.own.instance_service_account { told(Source::Machine, own()) } else { Ok(None) }
    }

    /// The files that credentials are read from, for a look at who may read them.
    pub(crate) fn file(&self, by: &By) -> Option<std::path::PathBuf> {
        match by {
            By::Option(_) => self.args.token_file.clone().or(self.args.service_account_key_file.clone()),
            By::Variable("YC_SERVICE_ACCOUNT_KEY_FILE") => {
                let value = (self.variable)("YC_SERVICE_ACCOUNT_KEY_FILE")?;
                (!value.trim_start().starts_with('{')).then(|| value.into())
            }
            By::Profile(_) => self.own.token_file.clone().or(self.own.service_account_key_file.clone()),
            By::Yc(_) => yc::path(),
            By::Variable(_) | By::Gcloud | By::Default => None,
        }
    }
}

/// The endpoint of a profile of `yc`.
fn yc_endpoint(yc: &yc::Profile) -> Option<Told<String>> {
    Some(Told { value: yc.endpoint.clone()?, by: By::Yc(yc.name.clone()) })
}

/// The credentials of a profile of `yc`.
fn of_yc(yc: &yc::Profile) -> Result<Option<Told<Source>>, Error> {
    let place = || format!("profile `{}` of yc", yc.name);
    let Some(found) = yc.credentials() else { return Ok(None) };
    let value = match found {
        yc::Found::Token(token) => Source::of_token(token.ok_or_else(|| Error::Token { place: place() })?),
        yc::Found::Key(key) => Source::Key(key.map_err(|source| Error::Key { place: place(), source })?),
        yc::Found::Machine => Source::Machine,
    };
    Ok(Some(Told { value, by: By::Yc(yc.name.clone()) }))
}

/// True if others than the owner may read a file.
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o044 != 0)
}

fn read_token(path: &Path) -> Result<Source, Error> {
    let text = read(path, "read the token in")?;
    let token = Token::new(&text).ok_or_else(|| Error::Token { place: path.display().to_string() })?;
    Ok(Source::of_token(token))
}

fn read_key(path: &Path) -> Result<Source, Error> {
    parse_key(&read(path, "read the key in")?, &path.display().to_string())
}

fn parse_key(text: &str, place: &str) -> Result<Source, Error> {
    let key = ServiceAccountKey::from_json(text);
    Ok(Source::Key(key.map_err(|source| Error::Key { place: place.to_owned(), source })?))
}

fn read(path: &Path, action: &'static str) -> Result<String, Error> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    read.map_err(|source| Error::File { action, path: path.to_owned(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests;
