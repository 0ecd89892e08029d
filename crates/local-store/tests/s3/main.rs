//! The server under the real clients: aws-sdk-s3 for every verb and error, boto3 as a judge from outside, and
//! a socket where neither would send what must be refused. Loopback, port 0, a folder for each test.

#![allow(clippy::unwrap_used)]

mod access;
mod boto3;
mod buckets;
mod checksums;
mod conditions;
mod durability;
mod harness;
mod kill;
mod objects;
mod signing;
mod uploads;
