//! Signature Version 4 by hand, for requests that no client sends.

use std::net::SocketAddr;
use std::time::SystemTime;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use s3s::crypto::{Checksum as _, Sha256};

use crate::harness::{ACCESS, Answer, REGION, SECRET, raw};

/// Signs `headers`, which must be in order and begin at `x-amz-`, as if it were `now`, and sends the request.
pub(crate) async fn send(
    addr: SocketAddr,
    now: SystemTime,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let time = DateTime::from(now).fmt(DateTimeFormat::DateTime).unwrap();
    let digits: String = time[..19].chars().filter(|c| !"-:".contains(*c)).collect();
    let (time, day) = (format!("{digits}Z"), &digits[..8]);
    let host = addr.to_string();
    let payload = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256").unwrap().1;

    let mut all = vec![("host", host.as_str()), ("x-amz-date", &time)];
    all.extend_from_slice(headers);
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{payload}");
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let hash = hex::encode(Sha256::checksum(canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for step in [day, REGION, "s3", "aws4_request"] {
        key = hmac(&key, step.as_bytes()).to_vec();
    }
    let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={ACCESS}/{scope}, SignedHeaders={names}, Signature={signature}");
    all.retain(|(name, _)| *name != "host");
    all.push(("authorization", &authorization));
    raw(addr, method, path, &all, body).await
}

/// RFC 2104; keys here are never longer than a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| (0..64).map(move |i| key.get(i).copied().unwrap_or_default() ^ byte);
    let inner: Vec<u8> = pad(0x36).chain(message.iter().copied()).collect();
    let outer: Vec<u8> = pad(0x5c).chain(Sha256::checksum(&inner)).collect();
    Sha256::checksum(&outer)
}
