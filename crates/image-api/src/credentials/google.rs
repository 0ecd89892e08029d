//! Google's application default credentials, as far as a file has them: the key of a service account, and what `gcloud auth
//! application-default login` leaves of a person.
//!
//! Source: <https://cloud.google.com/docs/authentication/application-default-credentials>; RFC 7523, section 2.1 (a JWT for a token, RS256)
//! and RFC 6749, section 6 (a refresh token for one), both at a token endpoint, which answers in JSON (section 5). A JWT is for the address
//! that it is sent to (`aud`), the key's own `token_uri`. A refresh token goes to Google's address only, whatever the file says: whoever has
//! it is the person until it is revoked. Refused by name: files of other kinds (workload identity federation, impersonation).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::{
    Fresh,
    key::{KeyError, pair_of, read, sign},
    oauth::TokenEndpoint,
};
use crate::{ApiError, ClientOptions, client::is_loopback};

/// Where Google gives tokens.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// What a token is for: all that the account may do, as the other clouds have it.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How long a JWT is good: it is used at once, and Google allows an hour.
const JWT_LIFE: Duration = Duration::from_secs(600);

const ACCOUNT: &str = "`client_email`, `private_key_id` and `private_key`";
const PERSON: &str = "`client_id`, `client_secret` and `refresh_token`";

/// What a file of application default credentials holds. Prints no secret.
#[derive(Clone)]
pub struct GoogleKey {
    kind: Kind,
    project: Option<String>,
}

#[derive(Clone)]
enum Kind {
    Account { email: String, id: String, pair: Arc<RsaKeyPair>, token_uri: Url },
    Person { client_id: String, client_secret: String, refresh_token: String },
}

#[derive(Deserialize)]
struct AnyFile {
    r#type: String,
}

#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key_id: String,
    private_key: String,
    token_uri: Option<String>,
    project_id: Option<String>,
}

#[derive(Deserialize)]
struct PersonFile {
    client_id: String,
    client_secret: String,
    refresh_token: String,
}

impl GoogleKey {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Where it is of another kind, or not sound. No error repeats a value.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let AnyFile { r#type } = read(text, "`type`")?;
        match r#type.as_str() {
            "service_account" => {
                let file: AccountFile = read(text, ACCOUNT)?;
                let token_uri = file.token_uri.as_deref().unwrap_or(TOKEN_URI);
                let is_safe = |url: &Url| url.scheme() == "https" && url.has_host() || is_loopback(url);
                let token_uri = Url::parse(token_uri).ok().filter(is_safe).ok_or(KeyError::TokenUri)?;
                let pair = Arc::new(pair_of(&file.private_key)?);
                let kind =
                    Kind::Account { email: file.client_email, id: file.private_key_id, pair, token_uri };
                Ok(Self { kind, project: file.project_id })
            }
            "authorized_user" => {
                let PersonFile { client_id, client_secret, refresh_token } = read(text, PERSON)?;
                let kind = Kind::Person { client_id, client_secret, refresh_token };
                Ok(Self { kind, project: None })
            }
            // Long, it is not a word of Google's and may be anything.
            found => Err(KeyError::Kind { found: found.chars().take(63).collect() }),
        }
    }

    /// The project that a service account belongs to, where it is said.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Whose tokens it gives, for people.
    pub fn whose(&self) -> String {
        match &self.kind {
            Kind::Account { email, .. } => format!("service account {email}"),
            Kind::Person { .. } => "the user of gcloud's application default credentials".to_owned(),
        }
    }

    /// True if it signs: then the clock matters.
    pub fn is_signing(&self) -> bool {
        matches!(self.kind, Kind::Account { .. })
    }

    /// Where its tokens are got; of a person `user_uri`, which is Google's but for tests.
    pub(super) fn endpoint(
        &self,
        user_uri: Option<&str>,
        options: &ClientOptions,
    ) -> Result<TokenEndpoint, ApiError> {
        match &self.kind {
            Kind::Account { token_uri, .. } => TokenEndpoint::new(token_uri.as_str(), options),
            Kind::Person { .. } => TokenEndpoint::new(user_uri.unwrap_or(TOKEN_URI), options),
        }
    }

    pub(super) async fn fetch(&self, endpoint: &TokenEndpoint) -> Result<Fresh, ApiError> {
        endpoint.ask(self.form()?).await
    }

    /// What is asked at a token endpoint: a secret.
    fn form(&self) -> Result<String, ApiError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        match &self.kind {
            Kind::Account { email, id, pair, token_uri } => {
                let jwt = jwt(pair, email, id, token_uri, SystemTime::now());
                let jwt = jwt.map_err(|source| ApiError::Key { source })?;
                form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                form.append_pair("assertion", &jwt);
            }
            Kind::Person { client_id, client_secret, refresh_token } => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", client_id).append_pair("client_secret", client_secret);
                form.append_pair("refresh_token", refresh_token);
            }
        }
        Ok(form.finish())
    }
}

fn jwt(
    pair: &RsaKeyPair,
    email: &str,
    id: &str,
    audience: &Url,
    now: SystemTime,
) -> Result<String, KeyError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "kid": id });
    let claims = serde_json::json!({
        "iss": email,
        "scope": SCOPE,
        "aud": audience.as_str(),
        "iat": now,
        "exp": now + JWT_LIFE.as_secs(),
    });
    sign(pair, &RSA_PKCS1_SHA256, &header, &claims)
}

impl fmt::Debug for GoogleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GoogleKey").field(&self.whose()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_named_and_not_repeated() {
        let of = |text: &str| GoogleKey::from_json(text).unwrap_err();
        for (text, part) in [
            ("", "`type`"),
            (r#"{"type": 5}"#, "`type`"),
            (r#"{"type": "external_account", "audience": "SECRET"}"#, "`external_account`"),
            (r#"{"type": "authorized_user", "client_id": "SECRET"}"#, "`refresh_token`"),
            (r#"{"type": "service_account", "private_key": "SECRET"}"#, "`client_email`"),
            (
                r#"{"type": "service_account", "client_email": "e", "private_key_id": "i", "private_key": "SECRET"}"#,
                "PEM",
            ),
            (
                r#"{"type": "service_account", "client_email": "e", "private_key_id": "i", "private_key": "SECRET",
                    "token_uri": "http://elsewhere.example/token"}"#,
                "token_uri",
            ),
        ] {
            let error = of(text);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
        }
    }

    #[test]
    fn a_person_has_no_key_and_prints_no_secret() {
        let text = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "SECRET", "refresh_token": "SECRET",
            "quota_project_id": "p", "account": ""}"#;
        let key = GoogleKey::from_json(text).unwrap();
        assert_eq!((key.project(), key.is_signing()), (None, false));
        assert!(!format!("{key:?}").contains("SECRET"));
    }
}
