//! The key of a service account: the JSON that `yc iam key create` writes, and the JWTs that it signs.
//!
//! Source: RFC 7515 (compact serialisation), RFC 7518, section 3.5 (PS256), RFC 7519 (claims), by ring, which does TLS here too.
//! Read of the file are `id`, `service_account_id` and `private_key` (PKCS #8 in PEM; lines before `BEGIN` are skipped, the cloud
//! writes one that asks not to remove it). Refused: keys that are not RSA or have fewer than 2048 bits.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;

/// How long a JWT is good: it is used at once, and the cloud allows an hour.
const JWT_LIFE: Duration = Duration::from_secs(600);

/// What a key file has of what is read.
const FIELDS: &str = "`id`, `service_account_id` and `private_key`";

/// The key of a service account. Prints no secret.
#[derive(Clone)]
pub struct ServiceAccountKey {
    id: String,
    account_id: String,
    pair: Arc<RsaKeyPair>,
}

/// Why text is no key. None of these repeats it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is not JSON with the fields of a key.
    #[error("it is not JSON with {fields}")]
    Json {
        /// Which those are.
        fields: &'static str,
        /// Line and column of what is wrong; 0 where the JSON is sound and something is missing.
        line: usize,
        /// Within the line.
        column: usize,
    },
    /// Its `private_key` is not PKCS #8 in PEM.
    #[error("its `private_key` is not a PEM `PRIVATE KEY`")]
    Pem,
    /// The key is of another kind, or not sound.
    #[error("its `private_key` is not an RSA key of 2048 to 4096 bits")]
    Rsa,
    /// It is of a kind that is not read here.
    #[error("it is of type `{}`, expected service_account or authorized_user", found.escape_debug())]
    Kind {
        /// As it calls itself.
        found: String,
    },
    /// It names an address for tokens that is not one.
    #[error("its `token_uri` is not an https URL")]
    TokenUri,
    /// The system has no random numbers.
    #[error("the key could not sign")]
    Sign,
}

#[derive(Deserialize)]
struct KeyFile {
    id: String,
    service_account_id: String,
    private_key: String,
}

impl ServiceAccountKey {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// Where it is not what `yc iam key create` writes.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let file: KeyFile = read(text, FIELDS)?;
        Self::new(file.id, file.service_account_id, &file.private_key)
    }

    /// A key by its parts; `private_key` is PKCS #8 in PEM.
    ///
    /// # Errors
    /// Where the PEM is not that of an RSA key.
    pub fn new(id: String, account_id: String, private_key: &str) -> Result<Self, KeyError> {
        Ok(Self { id, account_id, pair: Arc::new(pair_of(private_key)?) })
    }

    /// The identifier of the account.
    pub fn account_id(&self) -> &str {
        &self.account_id
    }

    /// The identifier of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A JWT for `audience`, good for ten minutes from `now`. A secret: whoever has it until then is the account.
    pub(super) fn jwt(&self, audience: &str, now: SystemTime) -> Result<String, KeyError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = serde_json::json!({ "typ": "JWT", "alg": "PS256", "kid": self.id });
        let claims = serde_json::json!({
            "iss": self.account_id,
            "aud": audience,
            "iat": now,
            "exp": now + JWT_LIFE.as_secs(),
        });
        sign(&self.pair, &RSA_PSS_SHA256, &header, &claims)
    }
}

/// Reads a key file, whose `fields` an error names and not its values.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str, fields: &'static str) -> Result<T, KeyError> {
    // serde_json's own message may repeat a value.
    serde_json::from_str(text).map_err(|error| KeyError::Json {
        fields,
        line: error.line(),
        column: error.column(),
    })
}

/// An RSA key, from PKCS #8 in PEM.
pub(super) fn pair_of(private_key: &str) -> Result<RsaKeyPair, KeyError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes()).map_err(|_| KeyError::Pem)?;
    RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::Rsa)
}

/// A JWT, compact: a secret for as long as it is good.
pub(super) fn sign(
    pair: &RsaKeyPair,
    algorithm: &'static dyn RsaEncoding,
    header: &serde_json::Value,
    claims: &serde_json::Value,
) -> Result<String, KeyError> {
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(algorithm, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| KeyError::Sign)?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountKey")
            .field("id", &self.id)
            .field("account_id", &self.account_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key() {
        let key = |private: &str| {
            let json = serde_json::json!({"id": "k", "service_account_id": "a", "private_key": private});
            ServiceAccountKey::from_json(&json.to_string()).unwrap_err().to_string()
        };
        assert!(key("t0p-SECRET").contains("PEM"));
        let other = "-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n-----END PRIVATE KEY-----\n";
        assert!(key(other).contains("RSA"));
        for text in ["", "{", r#"{"id": 5}"#, r#"{"id": "k", "private_key": "SECRET"}"#] {
            let error = ServiceAccountKey::from_json(text).unwrap_err();
            assert!(matches!(error, KeyError::Json { .. }) && !format!("{error:?}").contains("SECRET"));
        }
    }
}
