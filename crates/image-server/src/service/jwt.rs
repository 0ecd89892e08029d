//! JSON Web Tokens of service accounts: PS256 and nothing else.
//!
//! Source: RFC 7515 (compact serialisation), RFC 7518, section 3.5 (PS256), RFC 7519 (claims). `kid` names the key, `iss` is
//! its account, `aud` one of the configured audiences, `exp` at most [`limits::JWT_LIFE`] after `iat`. Refused: any other
//! algorithm, whatever the header says (the key knows what it is for), `crit`, keys below 2048 bits. By ring, which does
//! TLS here too: a library for every algorithm would bring a second implementation of RSA.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use serde::{Deserialize, de::DeserializeOwned};

use crate::limits;

/// `rsaEncryption` without parameters, as an AlgorithmIdentifier (RFC 3279, section 2.3.1).
const RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// A public key, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) account_id: String,
    /// RSAPublicKey in DER (RFC 8017, appendix A.1.1).
    pub(super) public: Vec<u8>,
}

/// Why a JWT proves nothing. None of these repeats the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwtError {
    #[error("the JWT is not three parts of base64url with JSON in the first two")]
    Form,
    #[error("the JWT's alg is {found:?}, expected \"PS256\"")]
    Algorithm { found: String },
    #[error("the JWT has critical extensions, expected none")]
    Critical,
    #[error("the JWT's kid {found:?} is not a registered key")]
    Key { found: String },
    #[error("the JWT's signature is not of its key")]
    Signature,
    #[error("the JWT's iss is {found:?}, expected the account of its key, {expected:?}")]
    Issuer { found: String, expected: String },
    #[error("the JWT's aud is {found:?}, expected one of {expected:?}")]
    Audience { found: Vec<String>, expected: Vec<String> },
    #[error("the JWT has expired")]
    Expired,
    #[error("the JWT is not good yet: the caller's clock is ahead")]
    Early,
    #[error("the JWT lives for {found} s, expected at most {limit} s")]
    Life { found: u64, limit: u64 },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    /// Seconds since 1970, perhaps with a fraction (RFC 7519, section 2).
    iat: f64,
    exp: f64,
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The account that a JWT proves.
pub(super) fn verify<'a>(
    jwt: &str,
    keys: &'a HashMap<String, Key>,
    audiences: &[String],
    now: SystemTime,
) -> Result<&'a str, JwtError> {
    let (signed, signature) = jwt.rsplit_once('.').ok_or(JwtError::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Form)?;
    let header: Header = decode(header)?;
    if header.alg != "PS256" {
        return Err(JwtError::Algorithm { found: header.alg });
    }
    if header.crit.is_some() {
        return Err(JwtError::Critical);
    }
    let key = keys.get(&header.kid).ok_or(JwtError::Key { found: header.kid })?;
    let signature = BASE64.decode(signature).map_err(|_| JwtError::Form)?;
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &key.public)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| JwtError::Signature)?;
    // From here on the claims are those of whoever has the key.
    check(decode(claims)?, key, audiences, now)?;
    Ok(&key.account_id)
}

fn check(claims: Claims, key: &Key, audiences: &[String], now: SystemTime) -> Result<(), JwtError> {
    if claims.iss != key.account_id {
        return Err(JwtError::Issuer { found: claims.iss, expected: key.account_id.clone() });
    }
    let found = match claims.aud {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    };
    if !found.iter().any(|found| audiences.contains(found)) {
        return Err(JwtError::Audience { found, expected: audiences.to_vec() });
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ahead = now + limits::JWT_CLOCK_SKEW.as_secs_f64();
    if claims.exp <= now {
        return Err(JwtError::Expired);
    }
    if claims.iat > ahead || claims.nbf.is_some_and(|nbf| nbf > ahead) {
        return Err(JwtError::Early);
    }
    let limit = limits::JWT_LIFE.as_secs();
    let life = Duration::try_from_secs_f64(claims.exp - claims.iat).unwrap_or(Duration::MAX);
    if life > limits::JWT_LIFE {
        return Err(JwtError::Life { found: life.as_secs(), limit });
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, JwtError> {
    let json = BASE64.decode(part).map_err(|_| JwtError::Form)?;
    serde_json::from_slice(&json).map_err(|_| JwtError::Form)
}

/// The RSAPublicKey inside a SubjectPublicKeyInfo; `None` where it is of another algorithm or cut.
pub(super) fn rsa_key(spki: &[u8]) -> Option<Vec<u8>> {
    let (info, rest) = der(SEQUENCE, spki)?;
    let (bits, more) = der(BIT_STRING, info.strip_prefix(&RSA)?)?;
    let key = bits.strip_prefix(&[0])?;
    let (_, after) = der(SEQUENCE, key)?;
    (rest.is_empty() && more.is_empty() && after.is_empty()).then(|| key.to_vec())
}

/// The content of the DER value that `input` begins with, and what follows it.
fn der(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = input.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => {
            rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?
        }
        // No key of 8192 bits is that long.
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(super) mod tests;
