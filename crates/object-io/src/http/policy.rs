//! Whom a source may ask: checked on the URL, and on every address that its host resolves to.
//!
//! Special addresses: IANA "Special-Purpose Address Registries" for IPv4 and IPv6 (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::fault::HttpFault;
use super::options::{AddressPolicy, HttpOptions};
use super::resolver::Resolver;

/// Fails unless `url` may be asked.
pub(super) fn check(url: &Url, options: &HttpOptions) -> Result<(), HttpFault> {
    let scheme = url.scheme();
    if scheme != "https" && !(scheme == "http" && options.allow_http) {
        return Err(HttpFault::Scheme);
    }
    // A user name would be sent, and shown by others than us.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HttpFault::User);
    }
    let named = options.allowed_hosts.as_ref().map(|rules| rules.iter().any(|rule| rule.allows(url)));
    match (named, url.host()) {
        (Some(false), _) => Err(HttpFault::Host),
        (Some(true), _) | (None, Some(Host::Domain(_))) => Ok(()),
        (None, Some(Host::Ipv4(address))) => check_address(address.into(), options.addresses),
        (None, Some(Host::Ipv6(address))) => check_address(address.into(), options.addresses),
        (None, None) => Err(HttpFault::Host),
    }
}

/// Asks the resolver, and drops what the policy forbids: the client connects to nothing else.
#[derive(Debug)]
pub(super) struct CheckedResolver {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolver>,
}

impl CheckedResolver {
    pub(super) fn new(options: &HttpOptions) -> Self {
        Self { policy: options.addresses, resolver: options.resolver.clone() }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, resolver) = (self.policy, self.resolver.clone());
        Box::pin(async move {
            let found = resolver.resolve(name.as_str()).await?;
            let allowed: Vec<SocketAddr> = found
                .iter()
                .filter(|address| check_address(**address, policy).is_ok())
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(HttpFault::Address.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn check_address(address: IpAddr, policy: AddressPolicy) -> Result<(), HttpFault> {
    let address = carried(address);
    let allowed = match (policy, address) {
        (AddressPolicy::Any, _) => true,
        (_, address) if is_metadata(address) => false,
        (AddressPolicy::Private, IpAddr::V4(address)) => {
            is_public_v4(address) || address.is_private() || address.is_loopback() || is_shared(address)
        }
        (AddressPolicy::Private, IpAddr::V6(address)) => {
            is_public_v6(address) || address.is_unique_local() || address.is_loopback()
        }
        (AddressPolicy::Public, IpAddr::V4(address)) => is_public_v4(address),
        (AddressPolicy::Public, IpAddr::V6(address)) => is_public_v6(address),
    };
    if allowed { Ok(()) } else { Err(HttpFault::Address) }
}

/// The IPv4 address that an IPv6 address carries and leads to, or the address itself.
fn carried(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let (high, low) = match v6.segments() {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return address,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d).into()
}

/// Carrier-grade NAT (RFC 6598), which clusters take for networks of their own.
fn is_shared(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    a == 100 && (64..128).contains(&b)
}

/// Where clouds tell a machine about itself, outside of the link-local addresses that most of them use: Azure (168.63.129.16, public
/// by its number), Alibaba (100.100.100.200, in the shared space), EC2 and Google by IPv6, which look like private networks.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [168, 63, 129, 16] | [100, 100, 100, 200]),
        IpAddr::V6(address) => {
            matches!(address.segments(), [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254])
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0                                   // this network
        || a >= 240                                 // reserved, broadcast
        || is_shared(address)
        || (a == 192 && b == 0 && c == 0)           // IETF protocol assignments
        || (a == 198 && (b == 18 || b == 19)); // benchmarks, RFC 2544
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // 2000::/3 is all that is given out; of it, without Teredo, ORCHID and the like (2001::/23) and documentation.
    let documentation =
        (segments[0] == 0x2001 && segments[1] == 0xdb8) || (segments[0] == 0x3fff && segments[1] < 0x1000);
    let protocols = segments[0] == 0x2001 && segments[1] < 0x200;
    segments[0] & 0xe000 == 0x2000 && !documentation && !protocols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internet_is_public() {
        for address in ["8.8.8.8", "213.180.193.243", "2a02:6b8::1d9", "64:ff9b::808:808", "::ffff:8.8.8.8"] {
            assert!(check_address(address.parse().unwrap(), AddressPolicy::Public).is_ok(), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "fd00:ec2::254",
            "168.63.129.16",
        ] {
            assert!(check_address(address.parse().unwrap(), AddressPolicy::Public).is_err(), "{address}");
            assert!(check_address(address.parse().unwrap(), AddressPolicy::Any).is_ok(), "{address}");
        }
    }

    #[test]
    fn private_networks_have_no_metadata() {
        for address in [
            "8.8.8.8",
            "10.1.2.3",
            "127.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "::1",
            "fc00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(check_address(address.parse().unwrap(), AddressPolicy::Private).is_ok(), "{address}");
        }
        for address in [
            "0.0.0.0",
            "100.100.100.200",
            "168.63.129.16",
            "169.254.169.254",
            "192.0.0.192",
            "255.255.255.255",
            "::",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
        ] {
            assert!(check_address(address.parse().unwrap(), AddressPolicy::Private).is_err(), "{address}");
        }
    }

    #[test]
    fn urls_are_checked_before_they_are_asked() {
        let strict =
            HttpOptions { allow_http: false, addresses: AddressPolicy::Public, ..HttpOptions::default() };
        let listed = HttpOptions {
            allowed_hosts: Some(vec!["127.0.0.1:9000".parse().unwrap()]),
            ..HttpOptions::default()
        };
        let refusal = |url: &str, options: &HttpOptions| check(&Url::parse(url).unwrap(), options).err();
        assert!(refusal("https://example.com/x", &strict).is_none());
        assert!(matches!(refusal("http://example.com/x", &strict), Some(HttpFault::Scheme)));
        assert!(matches!(refusal("file:///etc/passwd", &HttpOptions::default()), Some(HttpFault::Scheme)));
        assert!(matches!(refusal("https://169.254.169.254/x", &strict), Some(HttpFault::Address)));
        assert!(matches!(refusal("https://[::1]/x", &strict), Some(HttpFault::Address)));
        assert!(matches!(refusal("https://me@example.com/x", &strict), Some(HttpFault::User)));
        assert!(refusal("http://127.0.0.1:9000/x", &listed).is_none());
        assert!(matches!(refusal("http://127.0.0.1:9001/x", &listed), Some(HttpFault::Host)));
    }
}
