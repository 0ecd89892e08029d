//! How a store is found: options, then environment and profiles as the AWS tools read them, then `YC_STORAGE_*`.
//!
//! Conventions: "AWS SDKs and Tools Reference Guide", settings `credentials`, `endpoint_url`, `region`, `profile`; for `YC_STORAGE_*`
//! the Terraform provider of Yandex Cloud.
//!
//! Order for credentials: [`StoreConfig::credentials`]; `AWS_ACCESS_KEY_ID`; a profile that is named (option or `AWS_PROFILE`);
//! `YC_STORAGE_ACCESS_KEY`; the default profile; a web identity; a container's endpoint. So what was set for this command comes before what
//! lies in a file. The endpoint follows the same order. In Google Cloud Storage, after what is named: [`StoreConfig::tokens`], if there are
//! any; what nobody named for it is of another store, and so are keys that cannot be Google's ([`HmacKeys`]). Tokens go over TLS, or stay on
//! this machine.
//!
//! Refused: the instance metadata service. Where there is none, asking takes seconds, and the usual error is that nothing was configured.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig, ecs::EcsCredentialsProvider};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::{
    IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    SharedInterceptor,
};
use aws_smithy_http_client::tls;
use aws_types::service_config::ServiceConfigKey;
use url::{Host, Url};

use crate::clock::StoreClock;
use crate::google::{Bearer, Dialect, HmacKeys, Tokens};
use crate::limits::CONNECT_TIMEOUT;
use crate::link::RateLimit;
use crate::profile::{Address, Known, StoreKind};
use crate::store::{Inner, Store};
use crate::trust;
use crate::{ObjectError, RetryOptions, Scheme, StoreProfile};

/// Where a store's region is asked for and none is known: what AWS calls its default, and what other stores ignore.
const DEFAULT_REGION: &str = "us-east-1";
/// What Google Cloud Storage takes for a region: it has one name for all of them.
const GOOGLE_REGION: &str = "auto";
/// The stores of Yandex Cloud, and the region of each.
const YANDEX: [(&str, &str); 2] =
    [("storage.yandexcloud.net", "ru-central1"), ("storage.yandexcloud.kz", "kz1")];

/// What is known about a store; all of it may be left to the environment.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// What the names of the store's objects begin with, in messages.
    pub scheme: Scheme,
    /// The store's URL; AWS where none is known.
    pub endpoint_url: Option<String>,
    /// The store where neither that, nor environment nor profile name one.
    pub default_endpoint_url: Option<String>,
    /// The region that signatures name.
    pub region: Option<String>,
    /// The profile to take the rest from.
    pub profile: Option<String>,
    /// The key pair.
    pub credentials: Option<Credentials>,
    /// Bearer tokens, where no key pair is found. Of use in Google Cloud Storage only.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// What is known of the store for sure; the rest is found out by use.
    ///
    /// The bucket goes into the path of URLs where nothing else is said and an endpoint is known: few stores but AWS have a host for
    /// each bucket.
    pub store_profile: StoreProfile,
    /// Where what was found out is remembered, a small file for each endpoint; nowhere by default.
    pub memory: Option<PathBuf>,
    /// How much failure is put up with.
    pub retry: RetryOptions,
    /// Bytes a second that all uploads through this store send at most.
    pub limit_rate: Option<u64>,
}

/// A key pair, and the token of a temporary one. Prints the access key only.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the pair in every request.
    pub access_key: String,
    /// Signs, and is never sent.
    pub secret_key: String,
    /// Sent with temporary pairs.
    pub session_token: Option<String>,
}

impl Credentials {
    /// A lasting key pair.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), session_token: None }
    }

    fn for_sdk(self, origin: &'static str) -> aws_credential_types::Credentials {
        aws_credential_types::Credentials::new(
            self.access_key,
            self.secret_key,
            self.session_token,
            None,
            origin,
        )
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl Store {
    /// Finds the store and its credentials. Asks the store nothing yet.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NoCredentials`] at once where nothing is configured; if a profile cannot be read, or the endpoint is no URL.
    pub async fn connect(config: StoreConfig) -> Result<Self, ObjectError> {
        // The SDK's futures are large: see `retry::ask_once`.
        let http = http_client();
        let named = config.profile.is_some() || is_set("AWS_PROFILE");
        let providers = ProviderConfig::default().with_http_client(http.clone());
        let profile = config.profile.as_deref();
        let region = match &config.region {
            Some(region) => Some(Region::new(region.clone())),
            None => Box::pin(region_of_environment(&providers, profile)).await,
        };
        let providers = providers.with_region(region.clone());
        let credentials = match config.credentials.clone() {
            Some(credentials) => SharedCredentialsProvider::new(credentials.for_sdk("options")),
            None if config.scheme == Scheme::Gs => {
                SharedCredentialsProvider::new(hmac_keys(&config, &providers, named))
            }
            None => SharedCredentialsProvider::new(chain(&providers, profile, named)),
        };
        let sdk = Box::pin(load(http, &credentials, profile)).await;
        let endpoint = endpoint_of(&config, &sdk, named)?;
        let region = region.unwrap_or_else(|| Region::new(default_region(endpoint.as_ref())));
        let found = credentials.provide_credentials().await.map(drop).map_err(no_credentials);
        let guarded = endpoint.as_ref().is_none_or(|url| url.scheme() == "https" || is_loopback(url));
        // Whoever reads a token on its way can use it.
        let (credentials, is_bearer) = match (found, config.tokens.clone().filter(|_| guarded)) {
            (Err(ObjectError::NoCredentials), Some(tokens)) => {
                let tokens = SharedCredentialsProvider::new(Bearer(tokens));
                tokens.provide_credentials().await.map_err(no_credentials)?;
                (tokens, true)
            }
            (found, _) => found.map(|()| (credentials, false))?,
        };

        let profile = Known::new(config.store_profile, endpoint.as_ref(), config.memory.as_deref());
        let path_style = profile.get().address.map_or(endpoint.is_some(), |address| address == Address::Path);
        let mut builder =
            aws_sdk_s3::config::Builder::from(&sdk).region(region.clone()).force_path_style(path_style);
        let clock = StoreClock::default();
        builder.push_interceptor(SharedInterceptor::new(clock.clone()));
        if config.scheme == Scheme::Gs {
            let tokens = config.tokens.clone().filter(|_| is_bearer);
            builder.push_interceptor(SharedInterceptor::new(Dialect { tokens }));
        }
        if is_bearer {
            // Whoever gives tokens keeps them, and knows which are refused.
            let cache = IdentityCache::no_cache();
            builder = builder.credentials_provider(credentials.clone()).identity_cache(cache);
        }
        builder.set_endpoint_url(endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()));
        Ok(Self(Arc::new(Inner {
            client: aws_sdk_s3::Client::from_conf(builder.build()),
            scheme: config.scheme,
            is_bearer,
            credentials,
            clock,
            region: region.as_ref().into(),
            guarded,
            endpoint,
            profile,
            retry: config.retry,
            limit: config.limit_rate.map(RateLimit::new),
        })))
    }
}

/// One client for the verbs and for what gives credentials: rustls with ring, the system's trust store, no proxy.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(trust::sdk_context())
        .build_https()
}

async fn load(
    http: SharedHttpClient,
    credentials: &SharedCredentialsProvider,
    profile: Option<&str>,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .credentials_provider(credentials.clone())
        // The real one is set on the client; without any, the loader would ask the instance metadata service.
        .region(Region::from_static(DEFAULT_REGION))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        // Retries and the time-outs of attempts are ours (see `retry`). A body that is sent slowly may be held back by a limit.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().upload_enabled(false).build())
        // Trailing checksums are refused by many stores; ours are headers (see `multipart`).
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

fn chain(providers: &ProviderConfig, profile: Option<&str>, named: bool) -> CredentialsProviderChain {
    let chain = named_keys(providers, profile, named);
    let chain = if profile.is_some() { return chain } else { chain.or_else("YandexCloud", YandexVariables) };
    let web = WebIdentityTokenCredentialsProvider::builder().configure(providers).build();
    let container = EcsCredentialsProvider::builder().configure(providers).build();
    let chain = if named { chain } else { chain.or_else("Profile", file(providers, None)) };
    chain.or_else("WebIdentityToken", web).or_else("EcsContainer", container)
}

/// What an option or a variable names.
fn named_keys(providers: &ProviderConfig, profile: Option<&str>, named: bool) -> CredentialsProviderChain {
    // A profile that an option names comes before variables that are about no command in particular.
    if profile.is_some() {
        return CredentialsProviderChain::first_try("Profile", file(providers, profile));
    }
    let variables = EnvironmentVariableCredentialsProvider::new();
    let first = CredentialsProviderChain::first_try("Environment", variables);
    if named { first.or_else("Profile", file(providers, None)) } else { first }
}

/// The same for Google Cloud Storage, as far as they are keys of Google's.
fn hmac_keys(config: &StoreConfig, providers: &ProviderConfig, named: bool) -> CredentialsProviderChain {
    let profile = config.profile.as_deref();
    let endpoint = config.endpoint_url.as_deref().and_then(|text| parse_endpoint(text).ok());
    let at_google = endpoint.is_some_and(|url| StoreKind::of_endpoint(Some(&url)) == Some(StoreKind::Gcs));
    let may_fail = config.tokens.is_some() && profile.is_none();
    let of = |keys: ProfileFileCredentialsProvider| HmacKeys { keys, at_google, may_fail };
    if profile.is_some() {
        return CredentialsProviderChain::first_try("Profile", of(file(providers, profile)));
    }
    let keys = EnvironmentVariableCredentialsProvider::new();
    let first = CredentialsProviderChain::first_try("Environment", HmacKeys { keys, at_google, may_fail });
    if named { first.or_else("Profile", of(file(providers, None))) } else { first }
}

/// A profile; the one that `AWS_PROFILE` names, or the default, where `None`.
fn file(providers: &ProviderConfig, profile: Option<&str>) -> ProfileFileCredentialsProvider {
    let builder = ProfileFileCredentialsProvider::builder().configure(providers);
    match profile {
        Some(name) => builder.profile_name(name).build(),
        None => builder.build(),
    }
}

/// `YC_STORAGE_ACCESS_KEY` and `YC_STORAGE_SECRET_KEY`.
#[derive(Debug)]
struct YandexVariables;

impl ProvideCredentials for YandexVariables {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(
            match (variable("YC_STORAGE_ACCESS_KEY"), variable("YC_STORAGE_SECRET_KEY")) {
                (Some(access_key), Some(secret_key)) => {
                    Ok(Credentials::new(access_key, secret_key).for_sdk("YC_STORAGE"))
                }
                _ => Err(CredentialsError::not_loaded(
                    "YC_STORAGE_ACCESS_KEY or YC_STORAGE_SECRET_KEY not set",
                )),
            },
        )
    }
}

async fn region_of_environment(providers: &ProviderConfig, profile: Option<&str>) -> Option<Region> {
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return Some(region);
    }
    let builder = ProfileFileRegionProvider::builder().configure(providers);
    let provider = match profile {
        Some(name) => builder.profile_name(name).build(),
        None => builder.build(),
    };
    provider.region().await
}

fn endpoint_of(config: &StoreConfig, sdk: &SdkConfig, named: bool) -> Result<Option<Url>, ObjectError> {
    let aws = || {
        let key = ServiceConfigKey::builder()
            .service_id("S3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        let of_s3 = sdk.service_config().and_then(|services| services.load_config(key));
        of_s3.or_else(|| sdk.endpoint_url().map(str::to_owned))
    };
    let yandex = || variable("YC_STORAGE_ENDPOINT_URL");
    let found = match &config.endpoint_url {
        Some(url) => Some(url.clone()),
        None if named || is_set("AWS_ENDPOINT_URL_S3") || is_set("AWS_ENDPOINT_URL") => aws().or_else(yandex),
        None => yandex().or_else(aws),
    };
    let found = found.or_else(|| config.default_endpoint_url.clone());
    found.map(|text| parse_endpoint(&text)).transpose()
}

fn parse_endpoint(text: &str) -> Result<Url, ObjectError> {
    // Yandex's own examples name the host alone.
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    Url::parse(&full)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .ok_or_else(|| {
            // Whatever stands before an `@` or after a `?` may be a secret.
            let host = text.rsplit('@').next().unwrap_or_default();
            ObjectError::Endpoint { endpoint: host.split('?').next().unwrap_or_default().into() }
        })
}

fn default_region(endpoint: Option<&Url>) -> &'static str {
    match StoreKind::of_endpoint(endpoint) {
        Some(StoreKind::Gcs) => GOOGLE_REGION,
        _ => endpoint.and_then(yandex_region).unwrap_or(DEFAULT_REGION),
    }
}

/// True for Yandex Object Storage, by its host.
pub(crate) fn is_yandex(url: &Url) -> bool {
    yandex_region(url).is_some()
}

fn yandex_region(url: &Url) -> Option<&'static str> {
    let host = url.host_str()?;
    let is_of = |store: &str| {
        host.strip_suffix(store).is_some_and(|bucket| bucket.is_empty() || bucket.ends_with('.'))
    };
    YANDEX.iter().find(|(store, _)| is_of(store)).map(|(_, region)| *region)
}

/// True if nothing leaves this machine on the way to `url`.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn no_credentials(error: CredentialsError) -> ObjectError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => ObjectError::NoCredentials,
        other => ObjectError::Credentials { source: Box::new(other) },
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_set(name: &str) -> bool {
    variable(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url() {
        for (text, url) in [
            ("https://storage.yandexcloud.net", "https://storage.yandexcloud.net/"),
            ("storage.yandexcloud.net", "https://storage.yandexcloud.net/"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap().as_str(), url);
        }
        for text in ["ftp://host", "https://", "https://host/?a=b", "http://user:secret@host"] {
            let error = parse_endpoint(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn hosts_are_told_apart() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(is_yandex(&url("https://storage.yandexcloud.net")));
        assert!(is_yandex(&url("https://images.storage.yandexcloud.net")));
        assert_eq!(yandex_region(&url("https://images.storage.yandexcloud.kz")), Some("kz1"));
        assert!(!is_yandex(&url("https://evilstorage.yandexcloud.net.example")));
        assert!(!is_yandex(&url("https://evilstorage.yandexcloud.net")));
        for local in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:80"] {
            assert!(is_loopback(&url(local)), "{local}");
        }
        assert!(!is_loopback(&url("http://10.0.0.1")));
        assert_eq!(default_region(Some(&url("https://storage.googleapis.com"))), "auto");
        assert_eq!(default_region(Some(&url("https://storage.yandexcloud.kz"))), "kz1");
        assert_eq!(default_region(Some(&url("http://localhost:1"))), DEFAULT_REGION);
    }

    #[test]
    fn credentials_print_no_secret() {
        let credentials =
            Credentials { session_token: Some("token".into()), ..Credentials::new("AKID", "secret") };
        assert_eq!(format!("{credentials:?}"), r#"Credentials { access_key: "AKID", .. }"#);
    }
}
