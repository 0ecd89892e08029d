//! Tests of the verification, with a key pair that is for tests alone.

use std::time::UNIX_EPOCH;

use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::*;

const AUDIENCE: &str = "https://iam.example/iam/v1/tokens";
const NOW: u64 = 1_800_000_000;

/// A JWT by the key of `tests/iam`.
pub(crate) fn sign(header: &Value, claims: &Value, padding: &'static dyn RsaEncoding) -> String {
    let pem = include_bytes!("../../../tests/iam/private.pem");
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", BASE64.encode(signature))
}

fn keys() -> HashMap<String, Key> {
    let file: Value = serde_json::from_slice(include_bytes!("../../../tests/iam/key.json")).unwrap();
    let pem = file["public_key"].as_str().unwrap();
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = Key { account_id: "ajeaccount".to_owned(), public: rsa_key(&spki).unwrap() };
    HashMap::from([("ajekey".to_owned(), key)])
}

fn header() -> Value {
    json!({"alg": "PS256", "typ": "JWT", "kid": "ajekey"})
}

fn claims() -> Value {
    json!({"iss": "ajeaccount", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 3600})
}

fn check(jwt: &str) -> Result<String, JwtError> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    verify(jwt, &keys(), &["x".to_owned(), AUDIENCE.to_owned()], now).map(str::to_owned)
}

fn with(mut value: Value, name: &str, change: Value) -> Value {
    value[name] = change;
    value
}

#[test]
fn what_is_good() {
    assert_eq!(check(&sign(&header(), &claims(), &RSA_PSS_SHA256)).as_deref(), Ok("ajeaccount"));
    for (name, value) in [
        ("aud", json!(["y", AUDIENCE])),
        ("iat", json!(1.8e9)),
        ("nbf", json!(NOW)),
        ("sub", json!("anything")),
    ] {
        let jwt = sign(&header(), &with(claims(), name, value), &RSA_PSS_SHA256);
        assert_eq!(check(&jwt).as_deref(), Ok("ajeaccount"), "{name}");
    }
}

#[test]
fn claims_that_do_not_hold() {
    let refused = |name: &str, value: Value| {
        check(&sign(&header(), &with(claims(), name, value), &RSA_PSS_SHA256)).unwrap_err()
    };
    assert!(matches!(refused("iss", json!("ajeother")), JwtError::Issuer { .. }));
    assert!(matches!(refused("aud", json!("https://evil.example")), JwtError::Audience { .. }));
    assert!(matches!(refused("aud", json!([])), JwtError::Audience { .. }));
    assert_eq!(refused("exp", json!(NOW)), JwtError::Expired);
    assert_eq!(refused("iat", json!(NOW + 61)), JwtError::Early);
    assert_eq!(refused("nbf", json!(NOW + 61)), JwtError::Early);
    assert_eq!(refused("exp", json!(NOW + 3601)), JwtError::Life { found: 3601, limit: 3600 });
    // A claim of another type is no claim that is missing.
    for name in ["exp", "iat", "nbf", "aud", "iss"] {
        assert_eq!(refused(name, json!({"a": 1})), JwtError::Form, "{name}");
    }
    for name in ["exp", "iat", "aud", "iss"] {
        assert_eq!(refused(name, Value::Null), JwtError::Form, "{name}");
    }
}

#[test]
fn signatures_that_do_not_hold() {
    let good = sign(&header(), &claims(), &RSA_PSS_SHA256);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = with(claims(), "iss", json!("ajeadmin"));
    let (head, _) = signed.split_once('.').unwrap();
    let forged = format!("{head}.{}.{signature}", BASE64.encode(other.to_string()));
    assert_eq!(check(&forged), Err(JwtError::Signature));
    assert_eq!(check(&format!("{signed}.")), Err(JwtError::Signature));
    // The same key under another padding, said to be PS256.
    assert_eq!(check(&sign(&header(), &claims(), &RSA_PKCS1_SHA256)), Err(JwtError::Signature));
    for algorithm in ["none", "HS256", "RS256", "ps256", ""] {
        let header = with(header(), "alg", json!(algorithm));
        let refused = check(&sign(&header, &claims(), &RSA_PSS_SHA256));
        assert_eq!(refused, Err(JwtError::Algorithm { found: algorithm.to_owned() }));
    }
    let refused = check(&sign(&with(header(), "kid", json!("ajeother")), &claims(), &RSA_PSS_SHA256));
    assert_eq!(refused, Err(JwtError::Key { found: "ajeother".to_owned() }));
    let critical = with(header(), "crit", json!(["b64"]));
    assert_eq!(check(&sign(&critical, &claims(), &RSA_PSS_SHA256)), Err(JwtError::Critical));
}

#[test]
fn what_is_no_jwt() {
    for text in ["", ".", "..", "a.b", "a.b.c", "e30.e30.", "e30.e30.e30", "....", "\u{e9}.\u{e9}.\u{e9}"] {
        assert_eq!(check(text), Err(JwtError::Form), "{text}");
    }
}

#[test]
fn keys_of_another_kind() {
    let keys = keys();
    let public = &keys["ajekey"].public;
    assert_eq!(rsa_key(public), None, "an RSAPublicKey without its info");
    assert_eq!(rsa_key(&[]), None);
    // An Ed25519 key.
    let mut ed = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    ed.extend([7; 32]);
    assert_eq!(rsa_key(&ed), None);
}
