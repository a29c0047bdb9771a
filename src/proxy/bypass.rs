//! The hosts that are asked directly, as `NO_PROXY` lists them.

use std::net::IpAddr;

use url::{Host, Url};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bypass {
    all: bool,
    /// Whether this machine itself is asked directly.
    pub(super) local: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
enum Hosts {
    /// A name and all below it.
    Domain(String),
    Network(IpAddr, u32),
}

impl Bypass {
    /// Reads a list with commas or spaces between its entries; what is no entry is passed over.
    pub(super) fn parse(list: &str) -> Self {
        let mut bypass = Self::default();
        for item in list.split([',', ' ', '\t']).filter(|item| !item.is_empty()) {
            match item {
                "*" => bypass.all = true,
                item => bypass.entries.extend(Entry::parse(item)),
            }
        }
        bypass
    }

    pub(super) fn holds_for(&self, url: &Url) -> bool {
        self.all
            || self.entries.iter().any(|entry| entry.holds_for(url))
            || (self.local && is_local(url))
    }
}

impl Entry {
    fn parse(item: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::parse(item) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = item.rsplit_once(':')?;
        Some(Self {
            hosts: Hosts::parse(host)?,
            port: Some(port.parse().ok()?),
        })
    }

    fn holds_for(&self, url: &Url) -> bool {
        let port = self
            .port
            .is_none_or(|port| url.port_or_known_default() == Some(port));
        port && match (&self.hosts, url.host()) {
            (Hosts::Domain(domain), Some(Host::Domain(name))) => is_below(name, domain),
            (Hosts::Network(network, length), Some(Host::Ipv4(address))) => {
                is_within(address.into(), *network, *length)
            }
            (Hosts::Network(network, length), Some(Host::Ipv6(address))) => {
                is_within(address.to_canonical(), *network, *length)
            }
            _ => false,
        }
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Some(Self::Network(address, width(address)));
        }
        if let Some((network, length)) = text.split_once('/') {
            let (network, length) = (network.parse::<IpAddr>().ok()?, length.parse().ok()?);
            return (length <= width(network)).then_some(Self::Network(network, length));
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        match Host::parse(name).ok()? {
            Host::Domain(name) => Some(Self::Domain(name.trim_end_matches('.').to_owned())),
            _ => None,
        }
    }
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let differing = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            u128::from(address.to_bits() ^ network.to_bits())
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => address.to_bits() ^ network.to_bits(),
        _ => return false,
    };
    differing
        .checked_shr(width(address) - length)
        .unwrap_or_default()
        == 0
}

fn is_below(name: &str, domain: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a URL is of this machine, as far as can be told without looking its name up.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_below(name, "localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_for_what_it_names_and_nothing_else() {
        for (list, url, holds) in [
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
            ("::/0", "http://[fd12::1]/", true),
            ("::/0", "http://10.0.0.1/", false),
            ("10.0.0.1", "http://a.example/", false),
            ("in valid/x,a.example", "http://a.example/", true),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(Bypass::parse(list).holds_for(&url), holds, "{list}: {url}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_usual_names() {
        for (url, local) in [
            ("http://localhost/", true),
            ("http://app.localhost:3000/", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example/", false),
            ("http://notlocalhost/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
