//! Where names lead: listed hosts whose addresses are others than their operator thinks, and names that change their answer.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use disk_convert::{ByteSource as _, SourceError, SourceFault};
use disk_image::Span;
use object_io::{AddressPolicy, Bearer, HttpFault, HttpOptions, HttpSource, Resolver};
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile, Request};

const HERE: &str = "127.0.0.1";
const METADATA: &str = "169.254.169.254";

/// Gives one answer after the other, the last one again and again.
#[derive(Debug)]
struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let addresses = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.iter().map(addresses).collect())))
    }
}

#[async_trait]
impl Resolver for Script {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "store.example");
        let mut answers = self.0.lock().unwrap();
        let now = answers.front().cloned().unwrap();
        if answers.len() > 1 {
            answers.pop_front();
        }
        Ok(now)
    }
}

/// A disk of 100 bytes; each connection serves one request, so that each read asks for an address.
fn once(request: &Request) -> Answer {
    let (first, last) = request.range();
    let body = vec![7; last.min(99) + 1 - first];
    let len = body.len();
    Answer::new(206)
        .header("ETag", "\"v1\"")
        .header("Connection", "close")
        .header("Content-Range", format!("bytes {first}-{}/100", last.min(99)))
        .body(body)
        .cut(len)
}

/// Opens the disk by a name that its operator has listed.
async fn open(
    server: &Hostile,
    addresses: AddressPolicy,
    answers: &[&[&str]],
) -> Result<HttpSource, SourceError> {
    let port = server.origin.rsplit(':').next().unwrap();
    let options = HttpOptions {
        allowed_hosts: Some(vec![format!("store.example:{port}").parse().unwrap()]),
        addresses,
        resolver: Script::new(answers),
        attempts: 2,
        ..HttpOptions::default()
    };
    HttpSource::open(&format!("http://store.example:{port}/disk"), &options, &CancellationToken::new()).await
}

fn is_of_the_address(error: &SourceError) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref());
    error.fault == SourceFault::Forbidden && matches!(cause, Some(HttpFault::Address))
}

#[tokio::test]
async fn a_listed_name_may_not_lead_anywhere() {
    let server = Hostile::start(|request, _| once(request)).await;
    for (addresses, answer) in [
        (AddressPolicy::Public, METADATA),
        (AddressPolicy::Public, HERE),
        (AddressPolicy::Public, "10.0.0.1"),
        (AddressPolicy::Public, "::ffff:127.0.0.1"),
        (AddressPolicy::Private, METADATA),
        (AddressPolicy::Private, "fd00:ec2::254"),
        (AddressPolicy::Private, "fe80::1"),
    ] {
        let error = open(&server, addresses, &[&[answer]]).await.unwrap_err();
        assert!(is_of_the_address(&error), "{addresses:?} {answer}: {error:?}");
    }
    assert_eq!(server.count(|_| true), 0);
    // The operator's own network, where he says so; never the address beside it that is no store's.
    open(&server, AddressPolicy::Private, &[&[METADATA, HERE]]).await.unwrap();
    assert_eq!(server.count(|_| true), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_answer_gains_nothing() {
    let server = Hostile::start(|request, _| once(request)).await;
    let source = open(&server, AddressPolicy::Private, &[&[HERE], &[HERE], &[METADATA]]).await.unwrap();
    // The second connection is of the same address, the third one would not be.
    assert_eq!(source.read(Span::new(0, 10)).await.unwrap(), [7; 10][..]);
    let error = source.read(Span::new(10, 10)).await.unwrap_err();
    assert!(is_of_the_address(&error), "{error:?}");
    assert_eq!(server.count(|_| true), 2);
}

#[tokio::test]
async fn a_bearer_is_sent_to_the_host_of_the_url_alone_and_not_shown() {
    let elsewhere = Hostile::start(|request, _| once(request)).await;
    let to = format!("{}/disk", elsewhere.origin);
    let server = Hostile::start(move |request, _| match request.target() {
        "/moved" => Answer::new(307).header("Location", to.clone()),
        _ => once(request),
    })
    .await;
    let bearer = Bearer::new("hunter2");
    assert!(bearer.is_some() && Bearer::new("hunter\n2").is_none());
    let options = HttpOptions { bearer, redirects: 1, ..HttpOptions::default() };
    assert!(!format!("{options:?}").contains("hunter2"));
    let never = CancellationToken::new();
    let source = HttpSource::open(&format!("{}/disk", server.origin), &options, &never).await.unwrap();
    source.read(Span::new(0, 10)).await.unwrap();
    assert_eq!(server.count(|request| request.header("authorization") == Some("Bearer hunter2")), 2);
    let moved = HttpSource::open(&format!("{}/moved", server.origin), &options, &never).await.unwrap_err();
    assert_eq!((moved.fault, elsewhere.count(|_| true)), (SourceFault::Forbidden, 0));
}
