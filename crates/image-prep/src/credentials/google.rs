//! The same for Compute Engine: where it is, for which project, and as whom.
//!
//! | | options | environment | profile of image-prep | else |
//! |---|---|---|---|---|
//! | credentials | `--token-file`, `--service-account-key-file`, `--instance-service-account` | `GOOGLE_OAUTH_ACCESS_TOKEN`, `CLOUDSDK_AUTH_ACCESS_TOKEN`, `GOOGLE_APPLICATION_CREDENTIALS` | `token-file`, `service-account-key-file`, `instance-service-account` | gcloud's own file, the machine's metadata |
//! | endpoint | `--endpoint` | | `endpoint` | `https://compute.googleapis.com` |
//! | project | `--project` | `GOOGLE_CLOUD_PROJECT`, `CLOUDSDK_CORE_PROJECT` | `project` | that of the service account |
//!
//! Source: <https://cloud.google.com/docs/authentication/application-default-credentials>; the variables for tokens are those of Google's
//! Terraform provider and of gcloud. What nobody named, gcloud's own file (`application_default_credentials.json` in `CLOUDSDK_CONFIG`,
//! or `~/.config/gcloud`) and the machine's metadata, is used with Google's endpoint only. Nothing is asked of anybody here.

use std::fmt;
use std::path::{Path, PathBuf};

use image_api::{GoogleKey, Token};
use url::Url;

use super::{By, Told, read};
use crate::args::ApiArgs;
use crate::cloud::{self, Cloud};
use crate::config;
use crate::error::Error;

/// The variable that names a file of credentials.
pub(crate) const KEY_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Variables that hold a token.
const TOKEN_VARIABLES: [&str; 2] = ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"];

/// Variables that hold a project.
const PROJECT_VARIABLES: [&str; 2] = ["GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"];

/// Credentials. Prints no secret.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A token that is shown as it is.
    Bearer(Token),
    /// What a file of credentials holds.
    Key(GoogleKey),
    /// The machine's metadata have one.
    Machine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("a token"),
            Self::Key(key) => f.write_str(&key.whose()),
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
}

impl Choice<'_> {
    /// Where Compute Engine is.
    pub(crate) fn endpoint_url(&self, allow_http: bool) -> Result<Told<Url>, Error> {
        let (text, by) = match (&self.args.endpoint, &self.own.endpoint) {
            (Some(typed), _) => (typed.clone(), By::Option("--endpoint")),
            (None, Some(own)) if self.own.cloud == Some(Cloud::Gcp) => (own.clone(), self.of_own()),
            _ => (Cloud::Gcp.endpoint(), By::Default),
        };
        Ok(Told { value: cloud::parse(&text, "https", allow_http)?, by })
    }

    /// The project; where nothing names one that of the service account.
    pub(crate) fn project(&self, endpoint: &Told<Url>) -> Result<Option<Told<String>>, Error> {
        let told = |value: &String, by| Ok(Some(Told { value: value.clone(), by }));
        if let Some(typed) = &self.args.project {
            return told(typed, By::Option("--project"));
        }
        for name in PROJECT_VARIABLES {
            if let Some(value) = (self.variable)(name) {
                return told(&value, By::Variable(name));
            }
        }
        if let Some(own) = &self.own.project {
            return told(own, self.of_own());
        }
        Ok(match self.credentials(endpoint)? {
            Some(Told { value: Source::Key(key), by }) => {
                key.project().map(|project| Told { value: project.to_owned(), by })
            }
            _ => None,
        })
    }

    /// The credentials for an endpoint; `None` where there are none that may be used with it.
    pub(crate) fn credentials(&self, endpoint: &Told<Url>) -> Result<Option<Told<Source>>, Error> {
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
        // What only a variable names, as the stand-in for a store, gets what an option names, and nothing that lies about.
        if matches!(endpoint.by, By::Variable(_)) {
            return Ok(None);
        }
        for name in TOKEN_VARIABLES {
            if let Some(value) = (self.variable)(name) {
                let token = Token::new(&value).ok_or_else(|| Error::Token { place: name.to_owned() })?;
                return told(Source::Bearer(token), By::Variable(name));
            }
        }
        if let Some(path) = (self.variable)(KEY_VARIABLE) {
            return told(read_key(Path::new(&path))?, By::Variable(KEY_VARIABLE));
        }
        if self.own_goes_with(endpoint) {
            if let Some(path) = &self.own.token_file {
                return told(read_token(path)?, self.of_own());
            }
            if let Some(path) = &self.own.service_account_key_file {
                return told(read_key(path)?, self.of_own());
            }
            if self.own.instance_service_account {
                return told(Source::Machine, self.of_own());
            }
        }
        if !Cloud::Gcp.has(&endpoint.value) {
            return Ok(None);
        }
        match self.file_of_gcloud().filter(|path| path.exists()) {
            Some(path) => told(read_key(&path)?, By::Gcloud),
            None => told(Source::Machine, By::Default),
        }
    }

    /// The file that credentials are read from, for a look at who may read it.
    pub(crate) fn file(&self, by: &By) -> Option<PathBuf> {
        match by {
            By::Option(_) => self.args.token_file.clone().or(self.args.service_account_key_file.clone()),
            By::Variable(KEY_VARIABLE) => (self.variable)(KEY_VARIABLE).map(PathBuf::from),
            By::Profile(_) => self.own.token_file.clone().or(self.own.service_account_key_file.clone()),
            By::Gcloud => self.file_of_gcloud(),
            By::Variable(_) | By::Yc(_) | By::Default => None,
        }
    }

    fn file_of_gcloud(&self) -> Option<PathBuf> {
        let folder = (self.variable)("CLOUDSDK_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from((self.variable)("HOME")?).join(".config/gcloud"));
        Some(folder.or_else(home)?.join("application_default_credentials.json"))
    }

    fn of_own(&self) -> By {
        By::Profile(self.own.name.clone())
    }

    /// True if what the profile of image-prep names may be used with an endpoint.
    fn own_goes_with(&self, endpoint: &Told<Url>) -> bool {
        // The other clouds have credentials of their own, in the same keys.
        let is_of_google = self.own.cloud == Some(Cloud::Gcp);
        let is_its_own = matches!(endpoint.by, By::Profile(_) | By::Default);
        is_of_google && (self.own.is_named || is_its_own)
    }
}

fn read_token(path: &Path) -> Result<Source, Error> {
    let text = read(path, "read the token in")?;
    let token = Token::new(&text).ok_or_else(|| Error::Token { place: path.display().to_string() })?;
    Ok(Source::Bearer(token))
}

fn read_key(path: &Path) -> Result<Source, Error> {
    let key = GoogleKey::from_json(&read(path, "read the key in")?);
    Ok(Source::Key(key.map_err(|source| Error::Key { place: path.display().to_string(), source })?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    const USER: &str =
        r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"t0p-SECRET"}"#;

    struct Machine {
        dir: tempfile::TempDir,
        variables: BTreeMap<&'static str, String>,
        args: ApiArgs,
        own: config::Profile,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().to_string_lossy().into_owned();
            let args = ApiArgs::default();
            Self { dir, variables: [("HOME", home)].into(), args, own: config::Profile::default() }
        }

        fn gcloud(self) -> Self {
            let folder = self.dir.path().join(".config/gcloud");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("application_default_credentials.json"), USER).unwrap();
            self
        }

        fn set(mut self, name: &'static str, value: &str) -> Self {
            self.variables.insert(name, value.to_owned());
            self
        }

        fn at(mut self, endpoint: &str) -> Self {
            self.args.endpoint = Some(endpoint.to_owned());
            self
        }

        fn found(&self) -> Result<Option<(String, By)>, Error> {
            let variable = |name: &str| self.variables.get(name).cloned();
            let choice = Choice { args: &self.args, variable: &variable, own: &self.own };
            let found = choice.credentials(&choice.endpoint_url(false)?)?;
            Ok(found.map(|told| (told.value.to_string(), told.by)))
        }

        fn by(&self) -> Option<By> {
            self.found().unwrap().map(|(_, by)| by)
        }
    }

    #[test]
    fn what_is_named_comes_first() {
        let machine = Machine::new().gcloud();
        assert_eq!(machine.by(), Some(By::Gcloud));
        let machine = machine.set("CLOUDSDK_AUTH_ACCESS_TOKEN", "ya29.a");
        assert_eq!(machine.by(), Some(By::Variable("CLOUDSDK_AUTH_ACCESS_TOKEN")));
        let mut machine = machine.set("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.b");
        assert_eq!(machine.by(), Some(By::Variable("GOOGLE_OAUTH_ACCESS_TOKEN")));
        machine.args.instance_service_account = true;
        assert_eq!(machine.by(), Some(By::Option("--instance-service-account")));
        assert_eq!(Machine::new().by(), Some(By::Default));
    }

    #[test]
    fn what_nobody_named_is_for_google_alone() {
        for endpoint in ["http://127.0.0.1:8080", "https://images.example", "https://evilgoogleapis.com"] {
            assert_eq!(Machine::new().gcloud().at(endpoint).by(), None, "{endpoint}");
            let named = Machine::new().at(endpoint).set("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.a");
            assert!(named.by().is_some(), "{endpoint}");
        }
        assert_eq!(Machine::new().gcloud().at("https://compute.googleapis.com").by(), Some(By::Gcloud));
        // A profile of another cloud, and one that is not named and has another endpoint.
        let of = |cloud| config::Profile { cloud, instance_service_account: true, ..Default::default() };
        let mut other = Machine::new().at("http://127.0.0.1:1");
        other.own = of(Some(Cloud::Ru));
        assert_eq!(other.by(), None);
        other.own = of(Some(Cloud::Gcp));
        assert_eq!(other.by(), None);
        other.own.is_named = true;
        assert!(matches!(other.by(), Some(By::Profile(_))));
    }

    #[test]
    fn what_a_variable_names_gets_what_an_option_names() {
        let endpoint = Url::parse("http://127.0.0.1:1").unwrap();
        let endpoint = Told { value: endpoint, by: By::Variable("STORAGE_EMULATOR_HOST") };
        let mut machine = Machine::new().gcloud().set("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.a");
        machine.own = config::Profile {
            cloud: Some(Cloud::Gcp),
            instance_service_account: true,
            is_named: true,
            ..Default::default()
        };
        let is_found = |args: &ApiArgs| {
            let variable = |name: &str| machine.variables.get(name).cloned();
            Choice { args, variable: &variable, own: &machine.own }.credentials(&endpoint).unwrap().is_some()
        };
        assert!(!is_found(&machine.args));
        assert!(is_found(&ApiArgs { instance_service_account: true, ..ApiArgs::default() }));
    }

    #[test]
    fn a_file_that_is_named_has_to_be_a_key() {
        let machine = Machine::new();
        let path = machine.dir.path().join("key.json");
        let machine = machine.set(KEY_VARIABLE, &path.to_string_lossy());
        assert!(matches!(machine.found(), Err(Error::File { .. })));
        fs::write(&path, r#"{"type":"external_account"}"#).unwrap();
        assert!(matches!(machine.found(), Err(Error::Key { .. })));
        fs::write(&path, USER).unwrap();
        let (whose, by) = machine.found().unwrap().unwrap();
        assert!(!whose.contains("SECRET") && by == By::Variable(KEY_VARIABLE), "{whose}");
    }

    #[test]
    fn the_project_is_named_somewhere() {
        let project = |machine: &Machine| {
            let variable = |name: &str| machine.variables.get(name).cloned();
            let choice = Choice { args: &machine.args, variable: &variable, own: &machine.own };
            let endpoint = choice.endpoint_url(false).unwrap();
            choice.project(&endpoint).unwrap().map(|told| told.value)
        };
        let mut machine = Machine::new().set("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.a");
        assert_eq!(project(&machine), None);
        machine.own.project = Some("own".to_owned());
        assert_eq!(project(&machine).as_deref(), Some("own"));
        let machine = machine.set("CLOUDSDK_CORE_PROJECT", "core");
        assert_eq!(project(&machine).as_deref(), Some("core"));
        let mut machine = machine.set("GOOGLE_CLOUD_PROJECT", "cloud");
        assert_eq!(project(&machine).as_deref(), Some("cloud"));
        machine.args.project = Some("typed".to_owned());
        assert_eq!(project(&machine).as_deref(), Some("typed"));
    }
}
