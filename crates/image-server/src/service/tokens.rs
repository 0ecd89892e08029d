//! `IamTokenService`: a JWT of a registered service account against a token of ours.
//!
//! The token is 256 random bits; the catalog has its SHA-256, its account and its end, so it is good at every server of the
//! same catalog, over restarts, and can be read back by nobody. It is not logged.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use image_api::{
    Code, Timestamp, Validate as _, Violations,
    iam::{CreateIamTokenRequest, CreateIamTokenResponse, create_iam_token_request::Identity as Proof},
    rpc::Status,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tracing::info;

use super::{
    Call, Refusal, Service,
    jwt::{self, Key},
};
use crate::limits;

/// What every token begins with, as the cloud's do.
const PREFIX: &str = "t1.";

/// Service accounts, by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    keys: Arc<HashMap<String, Key>>,
    /// What a JWT may be meant for.
    audiences: Vec<String>,
}

/// The part of a key file that is needed to verify. The private key, where the file has it, is not kept.
#[derive(Deserialize)]
struct KeyFile {
    id: String,
    service_account_id: String,
    public_key: String,
}

/// Why a file registers no service account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountKeyError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It is not JSON with the fields of a key.
    #[error("it is not JSON with `id`, `service_account_id` and `public_key`")]
    Json(#[source] serde_json::Error),
    /// Its `public_key` is no RSA key in PEM.
    #[error("its `public_key` is not a PEM `PUBLIC KEY` of RSA")]
    PublicKey,
    /// Another file has a key of the same identifier.
    #[error("a key {id} is registered already")]
    Twice {
        /// The identifier.
        id: String,
    },
}

impl Accounts {
    /// Nobody yet.
    pub(crate) fn new(audiences: Vec<String>) -> Self {
        Self { keys: Arc::default(), audiences }
    }

    /// Reads one key file more: what `yc iam key create` writes, with or without the private key.
    pub(crate) fn register(&mut self, path: &Path) -> Result<(), AccountKeyError> {
        let text = fs::read(path).map_err(AccountKeyError::Io)?;
        let file: KeyFile = serde_json::from_slice(&text).map_err(AccountKeyError::Json)?;
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(file.public_key.as_bytes());
        let public = spki.ok().and_then(|spki| jwt::rsa_key(&spki)).ok_or(AccountKeyError::PublicKey)?;
        let keys = Arc::make_mut(&mut self.keys);
        if keys.contains_key(&file.id) {
            return Err(AccountKeyError::Twice { id: file.id });
        }
        keys.insert(file.id, Key { account_id: file.service_account_id, public });
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key of the account is registered.
    pub(super) fn has(&self, account_id: &str) -> bool {
        self.keys.values().any(|key| key.account_id == account_id)
    }
}

impl Service {
    pub(super) async fn create_token(
        self: Arc<Self>,
        _call: Call,
        request: CreateIamTokenRequest,
    ) -> Result<CreateIamTokenResponse, Refusal> {
        request.validate()?;
        let jwt = match &request.identity {
            Some(Proof::Jwt(jwt)) => jwt,
            // Whose it is only the cloud could tell.
            Some(Proof::YandexPassportOauthToken(_)) => {
                let message =
                    "no token is given out for an OAuth token here, only for the JWT of a service account";
                return Err(Status::new(Code::Unauthenticated, message).into());
            }
            None => return Err(Violations::one("identity", "required, found nothing").into()),
        };
        let accounts = &self.identity.accounts;
        let now = SystemTime::now();
        let account = jwt::verify(jwt, &accounts.keys, &accounts.audiences, now)
            .map_err(|error| Status::new(Code::Unauthenticated, error.to_string()))?;
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).map_err(|_| Refusal::internal())?;
        let iam_token = format!("{PREFIX}{}", BASE64.encode(random));
        let expires_at = now + limits::TOKEN_LIFE;
        let since = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        self.catalog.add_token(&digest(&iam_token), account, micros).await?;
        info!(account, "token given out");
        Ok(CreateIamTokenResponse { iam_token, expires_at: Some(Timestamp::from(expires_at)) })
    }
}

/// What the catalog knows of a token.
pub(super) fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}
