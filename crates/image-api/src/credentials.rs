//! Where the bearer token of each call comes from.
//!
//! A token is given, or it is got and renewed: for a JWT of a service account ([`ServiceAccountKey`]), for an OAuth token of a
//! person (both at the `IamTokenService` of the endpoint), for what Google's application default credentials hold ([`GoogleKey`], at a
//! token endpoint), or from the metadata service of the virtual machine that this runs on ([`metadata`]). A token that was got is kept in memory, and by nobody else, until [`MARGIN`] before it ends; however many
//! calls want one at once, one of them asks. A call that is refused as UNAUTHENTICATED is made once more with a new token: a
//! token may be revoked, and a clock that was set, or a machine that slept, makes the end of one a guess.
//!
//! Source: <https://yandex.cloud/en/docs/iam/operations/iam-token/create-for-sa>, and `IamTokenService` in `proto/`; of Google's see
//! [`GoogleKey`].

mod google;
mod key;
mod metadata;
mod oauth;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use google::GoogleKey;
pub use key::{KeyError, ServiceAccountKey};
pub use metadata::METADATA_ADDRESS;

use crate::{
    ApiError, ClientOptions, Token,
    client::Exchange,
    iam::{CreateIamTokenRequest, CreateIamTokenResponse, create_iam_token_request::Identity},
};

/// A token is renewed so long before it ends: longer than any one call lasts, short beside the hour that the shortest live.
const MARGIN: Duration = Duration::from_secs(300);

/// A token is kept for at least so long, whatever is said of its end: this machine's clock may be far ahead of the server's, and
/// each call would get a token of its own. The server refuses what has ended in truth.
const LEAST_LIFE: Duration = Duration::from_secs(60);

/// And no longer than this, which no token lives: what is far off would overflow the clock.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// Where tokens come from. A clone shares the token that was got; prints no secret.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    origin: Origin,
    /// Held while a token is got, so that all others wait for that one.
    got: Mutex<Option<Got>>,
}

enum Origin {
    Given(Token),
    Account { key: ServiceAccountKey, exchange: Exchange },
    Person { oauth: Token, exchange: Exchange },
    Google { key: GoogleKey, endpoint: oauth::TokenEndpoint },
    Machine(metadata::Metadata),
}

/// A token that was got.
struct Got {
    token: Token,
    renew_at: Instant,
}

/// A token, and how long it is good from now on.
struct Fresh {
    token: Token,
    life: Duration,
}

impl Credentials {
    /// A token that is there already, and is not renewed.
    pub fn token(token: Token) -> Self {
        Self::of(Origin::Given(token))
    }

    /// A service account, which gets its tokens from the `IamTokenService` at `endpoint`, such as
    /// `https://iam.api.cloud.yandex.net`. The JWT is for that server alone (`aud`): nobody else can make use of it.
    pub fn service_account(
        key: ServiceAccountKey,
        endpoint: &str,
        options: &ClientOptions,
    ) -> Result<Self, ApiError> {
        Ok(Self::of(Origin::Account { key, exchange: Exchange::new(endpoint, options)? }))
    }

    /// A person by an OAuth token, which is exchanged at the same service.
    pub fn oauth(oauth: Token, endpoint: &str, options: &ClientOptions) -> Result<Self, ApiError> {
        Ok(Self::of(Origin::Person { oauth, exchange: Exchange::new(endpoint, options)? }))
    }

    /// What a file of Google's application default credentials holds. `user_token_uri` is where a person's tokens are got, if not at
    /// Google's address; what signs names its own.
    pub fn google(
        key: GoogleKey,
        user_token_uri: Option<&str>,
        options: &ClientOptions,
    ) -> Result<Self, ApiError> {
        let endpoint = key.endpoint(user_token_uri, options)?;
        Ok(Self::of(Origin::Google { key, endpoint }))
    }

    /// The service account of the virtual machine that this runs on. `address` is a host, with or without a port.
    pub fn metadata(address: &str) -> Result<Self, ApiError> {
        Ok(Self::of(Origin::Machine(metadata::Metadata::new(address)?)))
    }

    fn of(origin: Origin) -> Self {
        Self(Arc::new(Inner { origin, got: Mutex::default() }))
    }

    /// A token for a call, got where there is none; one attempt.
    ///
    /// # Errors
    /// [`ApiError::NoToken`], with the reason as its source.
    pub async fn get(&self, cancel: &CancellationToken) -> Result<Token, ApiError> {
        let Inner { origin, got } = &*self.0;
        if let Origin::Given(token) = origin {
            return Ok(token.clone());
        }
        let mut got = got.lock().await;
        if let Some(got) = got.as_ref().filter(|got| Instant::now() < got.renew_at) {
            return Ok(got.token.clone());
        }
        let fresh = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ApiError::Cancelled),
            fresh = origin.fetch() => fresh,
        };
        let Fresh { token, life } =
            fresh.map_err(|source| ApiError::NoToken { whose: origin.whose(), source: Box::new(source) })?;
        let kept = life.saturating_sub(MARGIN).clamp(LEAST_LIFE, LONGEST_LIFE);
        *got = Some(Got { token: token.clone(), renew_at: Instant::now() + kept });
        Ok(token)
    }

    /// Forgets a token that a server refused. False where there is no other to be got.
    pub async fn refused(&self, token: &Token) -> bool {
        if matches!(self.0.origin, Origin::Given(_)) {
            return false;
        }
        // Another call may have got a new one meanwhile: that one stays.
        let mut got = self.0.got.lock().await;
        if got.as_ref().is_some_and(|got| got.token.matches(token.expose())) {
            *got = None;
        }
        true
    }

    /// True if tokens are got for it: at the `IamTokenService`, or from the metadata service.
    pub fn is_renewed(&self) -> bool {
        !matches!(self.0.origin, Origin::Given(_))
    }
}

impl From<Token> for Credentials {
    fn from(token: Token) -> Self {
        Self::token(token)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.origin.whose()).finish()
    }
}

impl Origin {
    /// Whose tokens these are, for errors.
    fn whose(&self) -> String {
        match self {
            Self::Given(_) => "the bearer of a token".to_owned(),
            Self::Account { key, .. } => format!("service account {}", key.account_id()),
            Self::Person { .. } => "the owner of the OAuth token".to_owned(),
            Self::Google { key, .. } => key.whose(),
            Self::Machine(_) => "the service account of this machine".to_owned(),
        }
    }

    async fn fetch(&self) -> Result<Fresh, ApiError> {
        let (exchange, identity) = match self {
            Self::Given(token) => return Ok(Fresh { token: token.clone(), life: Duration::MAX }),
            Self::Machine(metadata) => return metadata.fetch().await,
            Self::Google { key, endpoint } => return key.fetch(endpoint).await,
            Self::Account { key, exchange } => {
                let jwt = key.jwt(&audience(exchange.url()), SystemTime::now());
                (exchange, Identity::Jwt(jwt.map_err(|source| ApiError::Key { source })?))
            }
            Self::Person { oauth, exchange } => {
                (exchange, Identity::YandexPassportOauthToken(oauth.expose().to_owned()))
            }
        };
        let request = CreateIamTokenRequest { identity: Some(identity) };
        read(&exchange.ask(&request).await?)
    }
}

/// What a JWT is for: the address of the exchange, which the cloud names so too.
fn audience(endpoint: &Url) -> String {
    format!("{}/iam/v1/tokens", endpoint.as_str().trim_end_matches('/'))
}

fn read(answer: &CreateIamTokenResponse) -> Result<Fresh, ApiError> {
    let token = Token::new(&answer.iam_token).ok_or(ApiError::NotAToken)?;
    let end = answer.expires_at.and_then(|end| SystemTime::try_from(end).ok());
    let life = end.and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    Ok(Fresh { token, life })
}
