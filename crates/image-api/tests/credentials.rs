//! Tokens that are got, kept, and renewed: how often, and what is said where none comes.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use image_api::{
    ApiError, Client, ClientOptions, Code, Credentials, GoogleKey, Retry, ServiceAccountKey, Timestamp,
    Token, iam::CreateIamTokenResponse, to_json,
};
use tokio_util::sync::CancellationToken;

const PRIVATE: &str = include_str!("../../image-server/tests/iam/private.pem");

/// A cloud of one process: tokens, metadata, and one operation for whoever has the newest token.
#[derive(Default)]
struct Cloud {
    /// Tokens that were given out.
    given: u32,
    /// Proofs, as they came.
    proofs: Vec<String>,
    /// Calls that showed a token.
    calls: u32,
    /// How long a token lives, by what is said of it.
    life: Duration,
    /// What is answered instead of a token.
    broken: Option<StatusCode>,
}

type Shared = Arc<Mutex<Cloud>>;

async fn start(life: Duration) -> (String, Shared) {
    let cloud = Arc::new(Mutex::new(Cloud { life, ..Cloud::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(answer).with_state(Arc::clone(&cloud));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (endpoint, cloud)
}

async fn answer(
    State(cloud): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let mut cloud = cloud.lock().unwrap();
    let is_metadata = uri.path() == "/computeMetadata/v1/instance/service-accounts/default/token";
    let is_oauth = uri.path() == "/token";
    if is_metadata || is_oauth || uri.path() == "/iam/v1/tokens" {
        if let Some(status) = cloud.broken {
            return (status, String::new());
        }
        cloud.given += 1;
        let token = format!("t1.{}", cloud.given);
        if is_metadata {
            assert_eq!(headers["metadata-flavor"], "Google");
            let seconds = cloud.life.as_secs();
            let answer = serde_json::json!({"access_token": token, "expires_in": seconds});
            return (StatusCode::OK, answer.to_string());
        }
        cloud.proofs.push(body);
        if is_oauth {
            assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
            let seconds = cloud.life.as_secs();
            let answer =
                serde_json::json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"});
            return (StatusCode::OK, answer.to_string());
        }
        let expires_at = Some(Timestamp::from(SystemTime::now() + cloud.life));
        let answer = CreateIamTokenResponse { iam_token: token, expires_at };
        return (StatusCode::OK, to_json(&answer).unwrap());
    }
    cloud.calls += 1;
    let newest = format!("Bearer t1.{}", cloud.given);
    match headers.get("authorization").and_then(|value| value.to_str().ok()) {
        Some(shown) if shown == newest => (StatusCode::OK, r#"{"id":"op","done":true}"#.to_owned()),
        _ => (StatusCode::UNAUTHORIZED, r#"{"code":16,"message":"the token has expired"}"#.to_owned()),
    }
}

fn options() -> ClientOptions {
    let pause = Duration::from_millis(5);
    let retry = Retry { attempts: 3, first_pause: pause, max_pause: pause };
    ClientOptions { retry, ..ClientOptions::default() }
}

fn key() -> ServiceAccountKey {
    let private = format!("PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <k>\n{PRIVATE}");
    let json = serde_json::json!({"id": "k", "service_account_id": "a", "private_key": private});
    ServiceAccountKey::from_json(&json.to_string()).unwrap()
}

fn client(endpoint: &str, credentials: Credentials) -> Client {
    Client::with_options(endpoint, None, &options()).unwrap().with_credentials(credentials)
}

fn account(endpoint: &str) -> Client {
    client(endpoint, Credentials::service_account(key(), endpoint, &options()).unwrap())
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn one_exchange_serves_many_calls() {
    let (endpoint, cloud) = start(HOUR).await;
    let client = account(&endpoint);
    let never = never();
    for _ in 0..8 {
        client.clone().get_operation("op", &never).await.unwrap();
    }
    let cloud = cloud.lock().unwrap();
    assert_eq!((cloud.given, cloud.calls), (1, 8));
}

#[tokio::test]
async fn calls_at_once_wait_for_one_exchange() {
    let (endpoint, cloud) = start(HOUR).await;
    let (client, never) = (account(&endpoint), never());
    let (first, second, third) = tokio::join!(
        client.get_operation("op", &never),
        client.get_operation("op", &never),
        client.get_operation("op", &never),
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(cloud.lock().unwrap().given, 1);
}

#[tokio::test]
async fn the_jwt_is_for_the_server_that_is_asked() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let (endpoint, cloud) = start(HOUR).await;
    account(&endpoint).get_operation("op", &never()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&cloud.lock().unwrap().proofs[0]).unwrap();
    let jwt = body["jwt"].as_str().unwrap();
    let part = |number: usize| -> serde_json::Value {
        let part = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(number).unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    assert_eq!(part(0), serde_json::json!({"typ": "JWT", "alg": "PS256", "kid": "k"}));
    let claims = part(1);
    assert_eq!((&claims["iss"], &claims["aud"]), (&"a".into(), &format!("{endpoint}/iam/v1/tokens").into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let (endpoint, cloud) = start(HOUR).await;
    let (client, never) = (account(&endpoint), never());
    client.get_operation("op", &never).await.unwrap();
    let later = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        client.get_operation("op", &never).await.unwrap();
        cloud.lock().unwrap().given
    };
    assert_eq!(later(3200).await, 1);
    // Within the last five minutes.
    assert_eq!(later(200).await, 2);
    assert_eq!(cloud.lock().unwrap().calls, 3, "no call was refused");
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let (endpoint, cloud) = start(HOUR).await;
    let (client, never) = (account(&endpoint), never());
    client.get_operation("op", &never).await.unwrap();
    // Somebody revokes it.
    cloud.lock().unwrap().given += 1;
    client.get_operation("op", &never).await.unwrap();
    {
        let cloud = cloud.lock().unwrap();
        assert_eq!((cloud.given, cloud.calls), (3, 3));
    }
    // A token that is only given is not got anew.
    let bearer = self::client(&endpoint, Token::new("old").unwrap().into());
    let refused = bearer.get_operation("op", &never).await.unwrap_err();
    assert_eq!((refused.code(), cloud.lock().unwrap().calls), (Code::Unauthenticated, 4));
}

/// A clock that is hours ahead makes every token look expired.
#[tokio::test]
async fn a_wrong_clock_does_not_mean_a_token_for_each_call() {
    let (endpoint, cloud) = start(Duration::ZERO).await;
    let (client, never) = (account(&endpoint), never());
    for _ in 0..5 {
        client.get_operation("op", &never).await.unwrap();
    }
    assert_eq!(cloud.lock().unwrap().given, 1);
}

#[tokio::test]
async fn an_oauth_token_is_exchanged() {
    let (endpoint, cloud) = start(HOUR).await;
    let oauth = Credentials::oauth(Token::new("y0_SECRET").unwrap(), &endpoint, &options()).unwrap();
    assert!(!format!("{oauth:?}").contains("SECRET"));
    client(&endpoint, oauth).get_operation("op", &never()).await.unwrap();
    assert_eq!(cloud.lock().unwrap().proofs, [r#"{"yandexPassportOauthToken":"y0_SECRET"}"#]);
}

#[tokio::test]
async fn the_metadata_of_a_machine() {
    let (endpoint, cloud) = start(HOUR).await;
    let address = endpoint.strip_prefix("http://").unwrap();
    let client = client(&endpoint, Credentials::metadata(address).unwrap());
    for _ in 0..3 {
        client.get_operation("op", &never()).await.unwrap();
    }
    assert_eq!(cloud.lock().unwrap().given, 1);
    for wrong in ["", "host/path", "user@host", "host?query"] {
        assert!(matches!(Credentials::metadata(wrong), Err(ApiError::Endpoint)), "{wrong}");
    }
}

#[tokio::test]
async fn where_no_token_comes() {
    let (endpoint, cloud) = start(HOUR).await;
    let refuse = |status| cloud.lock().unwrap().broken = Some(status);
    let (client, never) = (account(&endpoint), never());
    refuse(StatusCode::UNAUTHORIZED);
    let error = client.get_operation("op", &never).await.unwrap_err();
    assert_eq!(error.to_string(), "no token for service account a");
    assert_eq!((error.code(), error.is_retryable()), (Code::Unauthenticated, false));
    refuse(StatusCode::SERVICE_UNAVAILABLE);
    let error = client.get_operation("op", &never).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true));
    refuse(StatusCode::NOT_FOUND);
    let address = endpoint.strip_prefix("http://").unwrap();
    let machine = self::client(&endpoint, Credentials::metadata(address).unwrap());
    let error = machine.get_operation("op", &never).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(cloud.lock().unwrap().calls, 0, "nobody was called without a token");
    assert!(!format!("{client:?} {machine:?}").contains("PRIVATE"));
}

/// What is between here and the service may answer with what it was sent, or with a token in the wrong place.
#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_not_shown() {
    for (status, answer) in [
        (StatusCode::BAD_GATEWAY, "<html>y0_SECRET</html>"),
        (StatusCode::BAD_REQUEST, r#"{"message":"y0_SECRET"}"#),
        (StatusCode::OK, r#"{"iamToken":"t1.a","expiresAt":"t1.SECRET"}"#),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(move || async move { (status, answer) });
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let oauth = Credentials::oauth(Token::new("y0_SECRET").unwrap(), &endpoint, &options()).unwrap();
        let error = oauth.get(&never()).await.unwrap_err();
        let why = std::error::Error::source(&error).unwrap();
        assert!(!format!("{error:?} {error} {why}").contains("SECRET"), "{error:?}");
    }
}

/// A number of seconds that no clock holds is no reason to fall over.
#[tokio::test]
async fn a_token_for_ever_is_kept_for_a_day() {
    let (endpoint, cloud) = start(Duration::from_secs(u64::MAX)).await;
    let address = endpoint.strip_prefix("http://").unwrap();
    let machine = client(&endpoint, Credentials::metadata(address).unwrap());
    for _ in 0..2 {
        machine.get_operation("op", &never()).await.unwrap();
    }
    assert_eq!(cloud.lock().unwrap().given, 1);
}

/// What a form says.
fn form(body: &str) -> std::collections::BTreeMap<String, String> {
    url::form_urlencoded::parse(body.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn a_service_account_of_google_signs_for_its_own_token_endpoint() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
    use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
    let (endpoint, cloud) = start(HOUR).await;
    let token_uri = format!("{endpoint}/token");
    let json = serde_json::json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": PRIVATE,
        "client_email": "me@p.iam.gserviceaccount.com", "token_uri": token_uri, "universe_domain": "googleapis.com",
    });
    let key = GoogleKey::from_json(&json.to_string()).unwrap();
    assert_eq!((key.project(), key.is_signing()), (Some("p"), true));
    let credentials = Credentials::google(key, None, &options()).unwrap();
    assert!(!format!("{credentials:?}").contains("PRIVATE"));
    let client = client(&endpoint, credentials);
    for _ in 0..3 {
        client.get_operation("op", &never()).await.unwrap();
    }
    let cloud = cloud.lock().unwrap();
    assert_eq!((cloud.given, cloud.calls), (1, 3));
    let form = form(&cloud.proofs[0]);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (signed, signature) = form["assertion"].rsplit_once('.').unwrap();
    let part = |number: usize| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(number).unwrap()).unwrap())
            .unwrap()
    };
    assert_eq!(part(0), serde_json::json!({"typ": "JWT", "alg": "RS256", "kid": "k"}));
    let claims = part(1);
    assert_eq!((&claims["iss"], &claims["aud"]), (&"me@p.iam.gserviceaccount.com".into(), &token_uri.into()));
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
    let der = PrivatePkcs8KeyDer::from_pem_slice(PRIVATE.as_bytes()).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn a_user_of_google_has_a_refresh_token() {
    let (endpoint, cloud) = start(HOUR).await;
    let json =
        r#"{"type":"authorized_user","client_id":"c","client_secret":"s&=","refresh_token":"1//SECRET"}"#;
    let key = GoogleKey::from_json(json).unwrap();
    let credentials = Credentials::google(key, Some(&format!("{endpoint}/token")), &options()).unwrap();
    assert!(!format!("{credentials:?}").contains("SECRET"));
    let client = client(&endpoint, credentials);
    client.get_operation("op", &never()).await.unwrap();
    // Somebody revokes the token, and then all of them.
    cloud.lock().unwrap().given += 1;
    client.get_operation("op", &never()).await.unwrap();
    assert_eq!(cloud.lock().unwrap().given, 3);
    let sent = form(&cloud.lock().unwrap().proofs[0]);
    let expected = [
        ("client_id", "c"),
        ("client_secret", "s&="),
        ("grant_type", "refresh_token"),
        ("refresh_token", "1//SECRET"),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    {
        let mut cloud = cloud.lock().unwrap();
        cloud.given += 1;
        cloud.broken = Some(StatusCode::BAD_REQUEST);
    }
    let error = client.get_operation("op", &never()).await.unwrap_err();
    assert!(matches!(&error, ApiError::NoToken { whose, .. } if whose.contains("gcloud")), "{error:?}");
}
