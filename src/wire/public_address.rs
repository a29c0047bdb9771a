//! Distinguishes public addresses from private and special-purpose ones.
//!
//! The check applies to the address that a socket is about to connect to, not to a host name. The
//! addresses of a name can change at any time (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 networks that are not public, as address and prefix length. They are the IANA IPv4
/// Special-Purpose Address Registry and one address of Azure.
const NON_PUBLIC_IPV4: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Azure serves secrets to its virtual machines at this address.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// Whether an address belongs to a host on the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !NON_PUBLIC_IPV4
        .iter()
        .any(|(network, length)| (bits ^ network.to_bits()) >> (32 - length) == 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    match [a, b, c, d, e, f] {
        // An IPv4-mapped address or an address under the NAT64 prefix (RFC 6052) is public if the
        // embedded IPv4 address is.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(embedded),
        // An ISATAP address (RFC 5214) is a tunnel to the embedded IPv4 address, under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe] if !is_public_v4(embedded) => false,
        // IETF protocol assignments, including Teredo and benchmarking, are not public.
        [0x2001, 0..=0x01ff, ..] => false,
        // Prefixes for documentation are not public.
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // A 6to4 address (deprecated) is a tunnel to the embedded IPv4 address.
        [0x2002, ..] => false,
        // Only 2000::/3 is allocated for global unicast.
        _ => a >> 13 == 1,
    }
}

#[cfg(test)]
mod tests {
    use url::{Host, Url};

    use super::*;

    fn is_public_text(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn internet_hosts_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public_text(address), "{address}");
        }
    }

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for address in [
            // "This network", private, shared (CGNAT), loopback.
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            // Link-local, protocol assignments, 6to4 relays.
            "169.254.0.0",
            "169.254.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.88.99.1",
            // Documentation, benchmarking.
            "192.0.2.1",
            "198.51.100.255",
            "203.0.113.7",
            "198.18.0.0",
            "198.19.255.255",
            // Multicast, reserved, broadcast.
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            // Metadata services of cloud providers.
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            // IPv6: unspecified, loopback, unique local, link-local, site-local, multicast.
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            // Discard-only, documentation, benchmarking, Teredo, ORCHID, SRv6 SIDs, unassigned.
            "100::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "2001:2::1",
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "5f00::1",
            "4000::1",
            "1fff::1",
            // Embedded IPv4 addresses: compatible, mapped, translated, NAT64, 6to4, ISATAP.
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:808:808::1",
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:127.0.0.1",
        ] {
            assert!(!is_public_text(address), "{address}");
        }
    }

    /// The URL parser recognizes every notation of an IP address.
    #[test]
    fn no_notation_of_an_address_is_parsed_as_a_name() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f.0x0.0x0.0x1",
            "0X7F000001",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "2130706433",
            "127.0x0.0.1",
            "%31%32%37.0.0.1",
            "127%2e0%2e0%2e1",
            "１２７.０.０.１",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "0",
            "0.0.0.0",
            "0x0",
            "169.254.43518",
            "0xa9fea9fe",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::FFFF:7F00:0001]",
            "[::]",
            "[64:ff9b::7f00:1]",
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            let address: IpAddr = match url.host().unwrap() {
                Host::Ipv4(address) => address.into(),
                Host::Ipv6(address) => address.into(),
                Host::Domain(name) => panic!("{host} is the name {name}"),
            };
            assert!(!is_public(address), "{host} is {address}");
        }
        for host in [
            "[fe80::1%25eth0]",
            "127.0.0.256",
            "0x7f.0.0.0.1",
            "1.2.3.08",
        ] {
            assert!(Url::parse(&format!("http://{host}/")).is_err(), "{host}");
        }
    }
}
