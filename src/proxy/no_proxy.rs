//! The hosts that are reached without a proxy, in the syntax of `NO_PROXY`.
//!
//! `hyper_util::client::proxy::matcher` is not used, because it does not support ports, spaces as
//! separators, `*.` prefixes or bracketed IPv6 addresses. It fails more than 10 cases of the test
//! `entries_match_the_hosts_they_name_and_no_others`.

use std::net::IpAddr;

use url::{Host, Url};

use crate::host_name::{is_localhost_or_subdomain, is_subdomain};

/// A parsed `NO_PROXY` list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NoProxy {
    /// Whether the list contains `*`, which matches every host.
    matches_all_hosts: bool,
    /// Whether the list also matches localhost and loopback addresses.
    pub(super) matches_localhost: bool,
    entries: Vec<NoProxyEntry>,
}

#[derive(Clone, Debug, PartialEq)]
struct NoProxyEntry {
    host_pattern: HostPattern,
    /// The port that the entry matches; `None` for every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
enum HostPattern {
    /// A domain and its subdomains.
    DomainAndSubdomains(String),
    /// A network address and the number of bits of its prefix.
    IpNetwork(IpAddr, u32),
}

impl NoProxy {
    /// Parses entries separated by commas or white space. Ignores invalid entries.
    pub(super) fn parse_list(list: &str) -> Self {
        let mut no_proxy = Self::default();
        let is_separator = |character: char| character == ',' || character.is_ascii_whitespace();
        for item in list.split(is_separator).filter(|item| !item.is_empty()) {
            match item {
                "*" => no_proxy.matches_all_hosts = true,
                item => no_proxy.entries.extend(NoProxyEntry::parse_entry(item)),
            }
        }
        no_proxy
    }

    pub(super) fn matches_url(&self, url: &Url) -> bool {
        self.matches_all_hosts
            || self.entries.iter().any(|entry| entry.matches_url(url))
            || (self.matches_localhost && is_localhost_or_loopback(url))
    }
}

impl NoProxyEntry {
    fn parse_entry(item: &str) -> Option<Self> {
        if let Some(host_pattern) = HostPattern::parse_host_pattern(item) {
            return Some(Self {
                host_pattern,
                port: None,
            });
        }
        let (host, port) = item.rsplit_once(':')?;
        Some(Self {
            host_pattern: HostPattern::parse_host_pattern(host)?,
            port: Some(port.parse().ok()?),
        })
    }

    fn matches_url(&self, url: &Url) -> bool {
        let is_port_match = self
            .port
            .is_none_or(|port| url.port_or_known_default() == Some(port));
        is_port_match
            && match (&self.host_pattern, url.host()) {
                (HostPattern::DomainAndSubdomains(domain), Some(Host::Domain(name))) => {
                    is_same_or_subdomain(name, domain)
                }
                (HostPattern::IpNetwork(network, prefix_len), Some(Host::Ipv4(address))) => {
                    is_in_network(address.into(), *network, *prefix_len)
                }
                (HostPattern::IpNetwork(network, prefix_len), Some(Host::Ipv6(address))) => {
                    is_in_network(address.to_canonical(), *network, *prefix_len)
                }
                _ => false,
            }
    }
}

impl HostPattern {
    fn parse_host_pattern(text: &str) -> Option<Self> {
        if let Ok(address) = strip_ipv6_brackets(text).parse::<IpAddr>() {
            let address = address.to_canonical();
            return Some(Self::IpNetwork(address, address_bit_count(address)));
        }
        if let Some((network, prefix_len)) = text.split_once('/') {
            let network = strip_ipv6_brackets(network).parse::<IpAddr>().ok()?;
            let prefix_len = prefix_len.parse().ok()?;
            return (prefix_len <= address_bit_count(network))
                .then_some(Self::IpNetwork(network, prefix_len));
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        match Host::parse(name).ok()? {
            Host::Domain(name) => Some(Self::DomainAndSubdomains(
                name.trim_end_matches('.').to_owned(),
            )),
            _ => None,
        }
    }
}

/// Removes the brackets of an IPv6 address.
fn strip_ipv6_brackets(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text)
}

fn address_bit_count(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn is_in_network(address: IpAddr, network: IpAddr, prefix_len: u32) -> bool {
    let differing = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            u128::from(address.to_bits() ^ network.to_bits())
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => address.to_bits() ^ network.to_bits(),
        _ => return false,
    };
    differing
        .checked_shr(address_bit_count(address) - prefix_len)
        .unwrap_or_default()
        == 0
}

fn is_same_or_subdomain(name: &str, domain: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == domain || is_subdomain(name, domain)
}

/// Whether the host is `localhost`, a subdomain of `localhost` or a loopback address. Host names
/// are not resolved.
fn is_localhost_or_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_localhost_or_subdomain(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_the_hosts_they_name_and_no_others() {
        for (list, url, is_match) in [
            ("", "http://a.example/", false),
            ("*", "http://a.example/", true),
            ("a.example", "http://a.example/", true),
            ("A.Example", "https://a.example./", true),
            (".a.example", "http://a.example/", true),
            ("*.a.example", "http://sub.a.example/", true),
            ("a.example", "http://deep.sub.a.example/", true),
            ("a.example", "http://nota.example/", false),
            ("a.example", "http://a.example.org/", false),
            ("b.example , a.example", "http://a.example/", true),
            ("b.example a.example", "http://a.example/", true),
            (" ,b.example,,\ta.example ,", "http://a.example/", true),
            ("b.example\na.example", "http://a.example/", true),
            ("b.example,*", "http://a.example/", true),
            ("a.example.", "http://a.example/", true),
            (".a.example.", "http://sub.a.example./", true),
            (".a.example:8080", "http://sub.a.example:8080/", true),
            (".", "http://a.example/", false),
            ("a.example:8080", "http://a.example:8080/", true),
            ("a.example:8080", "http://a.example/", false),
            ("a.example:443", "https://a.example/", true),
            ("bücher.example", "http://xn--bcher-kva.example/", true),
            ("10.0.0.1", "http://10.0.0.1/", true),
            ("10.0.0.1", "http://0xa.1/", true),
            ("10.0.0.1:80", "http://10.0.0.1/", true),
            ("10.0.0.1", "http://10.0.0.10/", false),
            ("10.0.0.0/8", "http://10.255.0.1/", true),
            ("10.0.0.0/8", "http://11.0.0.1/", false),
            ("0.0.0.0/0", "http://11.0.0.1/", true),
            ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/", true),
            ("10.0.0.0/33", "http://10.0.0.1/", false),
            ("::1", "http://[::1]/", true),
            ("[::1]", "http://[::1]/", true),
            ("[::1]:8080", "http://[::1]:8080/", true),
            ("[::1]:8080", "http://[::1]/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("[fd00::]/8", "http://[fd12::1]/", true),
            ("[fd00::]/8", "http://[fe12::1]/", false),
            ("10.0.0.0/8:8080", "http://10.255.0.1:8080/", true),
            ("10.0.0.0/8:8080", "http://10.255.0.1/", false),
            ("10.0.0.0/", "http://10.0.0.0/", false),
            ("[::1", "http://[::1]/", false),
            ("::/0", "http://[fd12::1]/", true),
            ("::/0", "http://10.0.0.1/", false),
            ("10.0.0.1", "http://a.example/", false),
            ("in valid/x,a.example", "http://a.example/", true),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(
                NoProxy::parse_list(list).matches_url(&url),
                is_match,
                "{list}: {url}"
            );
        }
    }

    #[test]
    fn localhost_names_and_loopback_addresses_are_localhost() {
        for (url, is_local) in [
            ("http://localhost/", true),
            ("http://app.localhost:3000/", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example/", false),
            ("http://notlocalhost/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(
                is_localhost_or_loopback(&Url::parse(url).unwrap()),
                is_local,
                "{url}"
            );
        }
    }
}
