//! Certificates that must be rejected, one reason at a time, and the `danger_` settings.

use std::error::Error as _;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::wire::connect::DnsConfig;
use crate::wire::connect::TlsConfig;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Creates a self-signed authority. `change` modifies the parameters of its certificate.
fn new_root(change: impl FnOnce(&mut CertificateParams)) -> Issuer {
    CertifiedIssuer::self_signed(ca_params("Root", change), new_key()).unwrap()
}

fn new_intermediate(issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Issuer {
    CertifiedIssuer::signed_by(ca_params("Intermediate", change), new_key(), issuer).unwrap()
}

fn ca_params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let names = names.iter().map(|&name| dns_san(name));
    params.subject_alt_names = names.collect();
    params
}

fn dns_san(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// The certificate chain that a server presents, and its private key.
struct PresentedChain {
    chain: Vec<Vec<u8>>,
    key: KeyPair,
}

impl PresentedChain {
    fn new(params: CertificateParams, issuer: &Issuer) -> Self {
        let key = new_key();
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self {
            chain: vec![certificate.der().to_vec()],
            key,
        }
    }

    fn with_issuer(mut self, issuer: &Issuer) -> Self {
        self.chain.push(issuer.der().to_vec());
        self
    }
}

/// Presents a certificate without checking it.
#[derive(Debug)]
struct FixedCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn tls_server(presented: PresentedChain) -> Server {
    let provider = Arc::new(ring::default_provider());
    let key = PrivateKeyDer::try_from(presented.key.serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let chain = presented.chain.into_iter().map(Into::into).collect();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(FixedCertificate(Arc::new(CertifiedKey::new(
            chain, key,
        )))));
    let config = Arc::new(config);
    Server::new(move |stream, _| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while respond(&mut stream, OK) {}
        drain(&mut stream.sock);
    })
}

/// A client that trusts `root` and resolves every name to this machine.
fn trusting_client(root: &Issuer, change: impl FnOnce(&mut TlsConfig)) -> Client {
    let mut tls = TlsConfig::default();
    tls.add_roots(root.der()).unwrap();
    change(&mut tls);
    let here = |_: String| async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) };
    let dns = DnsConfig {
        user_resolver: Some(Arc::new(here)),
        ..DnsConfig::default()
    };
    Client::with(WireConfig {
        tls_config: tls,
        dns_config: dns,
        ..WireConfig::default()
    })
}

async fn send_get(client: &Client, host: &str, port: u16) -> Result<(), FailedSend> {
    let target = ConnectionTarget {
        origin: "https://under.test",
        is_https: true,
        host: match host.parse() {
            Ok(address) => Host::Ipv4(address),
            Err(_) => Host::Domain(host),
        },
        port,
        proxy: None,
    };
    let sent = client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await;
    sent.map(|_| ())
}

/// Asserts that a server with this chain is rejected, and that no request is sent to it.
async fn assert_rejected(case: &str, root: &Issuer, host: &str, presented: PresentedChain) {
    let server = tls_server(presented);
    let client = trusting_client(root, |_| {});
    let Err(failure) = send_get(&client, host, server.port).await else {
        panic!("{case}: it was accepted");
    };
    assert_eq!(failure.error.kind(), ErrorKind::Tls, "{case}");
    assert!(
        failure.no_response && failure.request.is_some() && !client.clock.maybe_sent(),
        "{case}"
    );
    let source = format!("{:?}", failure.error.source().unwrap());
    let ours = ["InvalidCertificate", "PeerMisbehaved", "NoCertificates"];
    assert!(
        ours.iter().any(|ours| source.contains(ours)),
        "{case}: {source}"
    );
}

#[tokio::test]
async fn a_valid_certificate_is_accepted_by_name_wildcard_and_address() {
    let root = new_root(|_| {});
    let intermediate = new_intermediate(&root, |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    let mut by_address = leaf_params(&[]);
    by_address.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    for (host, presented) in [
        (
            "a.example",
            PresentedChain::new(leaf_params(&["a.example"]), &root),
        ),
        (
            "A.Example",
            PresentedChain::new(leaf_params(&["a.example"]), &root),
        ),
        (
            "a.example.",
            PresentedChain::new(leaf_params(&["a.example"]), &root),
        ),
        (
            "x.a.example",
            PresentedChain::new(leaf_params(&["*.a.example"]), &root),
        ),
        ("127.0.0.1", PresentedChain::new(by_address, &root)),
        (
            "a.example",
            PresentedChain::new(leaf_params(&["a.example"]), &intermediate)
                .with_issuer(&intermediate),
        ),
    ] {
        let server = tls_server(presented);
        let result = send_get(&trusting_client(&root, |_| {}), host, server.port).await;
        assert!(result.is_ok(), "{host}: {result:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_rejected() {
    let root = new_root(|_| {});
    for (host, name) in [
        ("a.example", "b.example"),
        ("a.example", "www.a.example"),
        ("www.a.example", "a.example"),
        ("a.example", "example"),
        ("a.example", "a.example.org"),
        ("a.example", "aaexample"),
        ("a.example", "a.example\0.evil.example"),
        ("a.example", "a.example "),
        ("xn--bcher-kva.example", "xn--bcher-kvb.example"),
        // A wildcard matches exactly one label, the first.
        ("a.example", "*"),
        ("a.example", "*.a.example"),
        ("b.a.example", "*.example"),
        ("a.example", "a.*"),
        ("b.a.example", "b.*.example"),
        ("b.a.example", "*.*.example"),
        ("b.a.example", "b*.a.example"),
        ("b.a.example", "*b.a.example"),
        ("b.a.example", "**.a.example"),
        // An address needs an address entry, not a DNS entry.
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "*.0.0.1"),
        ("127.0.0.1", "a.example"),
    ] {
        let presented = PresentedChain::new(leaf_params(&[name]), &root);
        assert_rejected(&format!("{name:?} for {host}"), &root, host, presented).await;
    }
    let v4 = |octets: [u8; 4]| SanType::IpAddress(octets.into());
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (case, host, name) in [
        ("an address for a name", "a.example", v4([127, 0, 0, 1])),
        ("another address", "127.0.0.1", v4([127, 0, 0, 2])),
        (
            "a mapped address",
            "127.0.0.1",
            SanType::IpAddress(mapped.into()),
        ),
        (
            "a URL",
            "a.example",
            SanType::URI("https://a.example/".try_into().unwrap()),
        ),
        (
            "a mailbox",
            "a.example",
            SanType::Rfc822Name("me@a.example".try_into().unwrap()),
        ),
    ] {
        let mut params = leaf_params(&[]);
        params.subject_alt_names = vec![name];
        assert_rejected(case, &root, host, PresentedChain::new(params, &root)).await;
    }
    let mut common = leaf_params(&[]);
    common
        .distinguished_name
        .push(DnType::CommonName, "a.example");
    let presented = PresentedChain::new(common, &root);
    assert_rejected("a common name alone", &root, "a.example", presented).await;
}

#[tokio::test]
async fn a_certificate_with_wrong_dates_or_usage_is_rejected() {
    type Change = fn(&mut CertificateParams);
    let changes: [(&str, Change); 8] = [
        ("expired", |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }),
        ("not yet valid", |params| {
            params.not_before = date_time_ymd(4000, 1, 1);
        }),
        ("valid never", |params| {
            params.not_before = date_time_ymd(4000, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }),
        ("for clients", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        ("for code", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }),
        ("for mail and time", |params| {
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::EmailProtection,
                ExtendedKeyUsagePurpose::TimeStamping,
            ];
        }),
        ("an authority", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        ("critical in an unknown way", |params| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        }),
    ];
    let root = new_root(|_| {});
    for (case, change) in changes {
        let mut params = leaf_params(&["a.example"]);
        change(&mut params);
        assert_rejected(case, &root, "a.example", PresentedChain::new(params, &root)).await;
    }
}

#[tokio::test]
async fn a_chain_without_a_trusted_root_is_rejected() {
    let trusted = new_root(|_| {});
    let good = || leaf_params(&["a.example"]);
    let other = CertifiedIssuer::self_signed(ca_params("Other", |_| {}), new_key()).unwrap();
    let namesake = new_root(|_| {});
    let intermediate = new_intermediate(&trusted, |_| {});
    let of_other = new_intermediate(&other, |_| {});
    let expired = new_intermediate(&trusted, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let for_clients = new_intermediate(&trusted, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let no_authority = new_intermediate(&trusted, |params| params.is_ca = IsCa::NoCa);
    let says_it_is_none = new_intermediate(&trusted, |params| params.is_ca = IsCa::ExplicitNoCa);
    let last = new_intermediate(&trusted, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let one_too_many = new_intermediate(&last, |_| {});
    let itself = {
        let key = new_key();
        let certificate = good().self_signed(&key).unwrap();
        PresentedChain {
            chain: vec![certificate.der().to_vec()],
            key,
        }
    };
    for (case, presented) in [
        ("self-signed", itself),
        ("an unknown issuer", PresentedChain::new(good(), &other)),
        (
            "an unknown issuer and its root",
            PresentedChain::new(good(), &other).with_issuer(&other),
        ),
        (
            "an issuer of a trusted name",
            PresentedChain::new(good(), &namesake),
        ),
        (
            "no intermediate",
            PresentedChain::new(good(), &intermediate),
        ),
        (
            "the wrong intermediate",
            PresentedChain::new(good(), &intermediate).with_issuer(&of_other),
        ),
        (
            "an intermediate of an unknown root",
            PresentedChain::new(good(), &of_other)
                .with_issuer(&of_other)
                .with_issuer(&other),
        ),
        (
            "an expired intermediate",
            PresentedChain::new(good(), &expired).with_issuer(&expired),
        ),
        (
            "an intermediate for clients",
            PresentedChain::new(good(), &for_clients).with_issuer(&for_clients),
        ),
        (
            "a leaf for an issuer",
            PresentedChain::new(good(), &no_authority).with_issuer(&no_authority),
        ),
        (
            "an issuer that says it is none",
            PresentedChain::new(good(), &says_it_is_none).with_issuer(&says_it_is_none),
        ),
        (
            "a path that is too long",
            PresentedChain::new(good(), &one_too_many)
                .with_issuer(&one_too_many)
                .with_issuer(&last),
        ),
    ] {
        assert_rejected(case, &trusted, "a.example", presented).await;
    }
}

#[tokio::test]
async fn name_constraints_are_enforced() {
    let root = new_root(|_| {});
    let name = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    let network = GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8));
    let mut address = leaf_params(&[]);
    address.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    for (case, permitted, excluded, host, params) in [
        (
            "not permitted",
            vec![name("b.example")],
            vec![],
            "a.example",
            leaf_params(&["a.example"]),
        ),
        (
            "excluded",
            vec![],
            vec![name("example")],
            "a.example",
            leaf_params(&["a.example"]),
        ),
        (
            "permitted and excluded",
            vec![name("example")],
            vec![name("a.example")],
            "a.example",
            leaf_params(&["a.example"]),
        ),
        (
            "in addition to a permitted name",
            vec![name("a.example")],
            vec![],
            "a.example",
            leaf_params(&["a.example", "b.example"]),
        ),
        (
            "a wildcard wider than permitted",
            vec![name("a.example")],
            vec![],
            "a.example",
            leaf_params(&["*.example"]),
        ),
        (
            "an address outside",
            vec![network],
            vec![],
            "127.0.0.1",
            address,
        ),
    ] {
        let issuer = new_intermediate(&root, |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: excluded,
            });
        });
        let presented = PresentedChain::new(params, &issuer).with_issuer(&issuer);
        assert_rejected(case, &root, host, presented).await;
    }
}

#[tokio::test]
async fn a_forged_or_malformed_certificate_is_rejected() {
    let root = new_root(|_| {});
    let good = || PresentedChain::new(leaf_params(&["a.example"]), &root);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut presented = good();
        change(&mut presented.chain[0]);
        presented
    };
    for (case, presented) in [
        (
            "another's certificate",
            PresentedChain {
                key: new_key(),
                ..good()
            },
        ),
        (
            "a changed signature",
            changed(|der| *der.last_mut().unwrap() ^= 1),
        ),
        (
            "a changed name",
            changed(|der| {
                let at = der.windows(9).position(|at| at == b"a.example").unwrap();
                der[at] = b'b';
            }),
        ),
        ("cut short", changed(|der| der.truncate(der.len() / 2))),
        ("with more after it", changed(|der| der.push(0))),
        ("no certificate", changed(|der| *der = b"nonsense".to_vec())),
        ("an empty one", changed(Vec::clear)),
    ] {
        // The changed name must be rejected for its signature, so the host matches it.
        let host = match case {
            "a changed name" => "b.example",
            _ => "a.example",
        };
        assert_rejected(case, &root, host, presented).await;
    }
    let none = PresentedChain {
        chain: Vec::new(),
        key: new_key(),
    };
    assert_rejected("none at all", &root, "a.example", none).await;
}

#[tokio::test]
async fn a_danger_setting_skips_only_the_check_that_it_names() {
    let root = new_root(|_| {});
    let other = CertifiedIssuer::self_signed(ca_params("Other", |_| {}), new_key()).unwrap();
    let wrong_name = || PresentedChain::new(leaf_params(&["b.example"]), &root);
    let unknown = || PresentedChain::new(leaf_params(&["a.example"]), &other);
    let stolen = || PresentedChain {
        key: new_key(),
        ..PresentedChain::new(leaf_params(&["a.example"]), &root)
    };
    type Switch = fn(&mut TlsConfig);
    let any: Switch = |config| config.accept_any_certificate = true;
    let name: Switch = |config| config.accept_any_host_name = true;
    for (case, switch, presented, passes) in [
        ("any: a wrong name", any, wrong_name(), true),
        ("any: an unknown issuer", any, unknown(), true),
        ("any: a key that is not its own", any, stolen(), false),
        ("name: a wrong name", name, wrong_name(), true),
        ("name: an unknown issuer", name, unknown(), false),
        ("name: a key that is not its own", name, stolen(), false),
    ] {
        let server = tls_server(presented);
        let client = trusting_client(&root, switch);
        let result = send_get(&client, "a.example", server.port).await;
        assert_eq!(result.is_ok(), passes, "{case}");
    }
}
