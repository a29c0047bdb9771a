//! The address filter, and names with changing or unreachable addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use super::*;
use crate::builder::FetcherBuilder;
use crate::fetcher::Fetcher;
use crate::limits::Retry;
use crate::resolve::Resolve;

const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A loopback address that stands for a private address.
const BLOCKED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const OK_AND_CLOSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn filtered_builder() -> FetcherBuilder {
    Fetcher::builder()
        .address_filter(|address| address == ALLOWED)
        .no_proxy()
        .dns_cache_ttl(Duration::ZERO)
}

/// A resolver that returns each list of addresses once, in order, and then repeats the last list.
fn sequential_resolver(address_lists: &[&[Ipv4Addr]]) -> impl Resolve + use<> {
    let address_lists: Vec<Vec<IpAddr>> = address_lists
        .iter()
        .map(|addresses| addresses.iter().copied().map(IpAddr::V4).collect())
        .collect();
    let next = Mutex::new(0);
    move |_: String| {
        let mut next = next.lock().unwrap();
        let addresses = address_lists[*next].clone();
        *next = (*next + 1).min(address_lists.len() - 1);
        async move { Ok(addresses) }
    }
}

/// Starts a server that responds with `response` on the allowed address, and one on the blocked
/// address with the same port.
fn allowed_and_blocked_servers(response: &'static str) -> (Server, Option<Server>) {
    let allowed = Server::responding(response);
    let blocked = (BLOCKED, allowed.port).into();
    // Some systems have only one loopback address.
    let exists = TcpListener::bind(blocked).is_ok();
    (allowed, exists.then(|| Server::on(blocked, |_, _| {})))
}

fn got_no_connection(blocked: Option<&Server>) -> bool {
    blocked.is_none_or(|server| server.accepted() == 0)
}

#[tokio::test]
async fn a_name_that_changes_to_a_blocked_address_is_rejected() {
    let (allowed, blocked) = allowed_and_blocked_servers(OK_AND_CLOSE);
    let fetcher = filtered_builder()
        .resolver(sequential_resolver(&[&[ALLOWED], &[BLOCKED]]))
        .build()
        .unwrap();
    let url = format!("http://rebinds.example:{}/", allowed.port);
    assert_eq!(fetcher.fetch(&url).await.unwrap().text(), "ok");
    for _ in 0..3 {
        let error = fetcher.fetch(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        assert_eq!(error.attempts().len(), 1, "not retried");
        assert!(!error.maybe_sent());
    }
    assert!(got_no_connection(blocked.as_ref()));
}

#[tokio::test]
async fn an_idle_connection_is_reused_after_its_name_changes() {
    let (allowed, blocked) = allowed_and_blocked_servers(OK);
    let fetcher = filtered_builder()
        .resolver(sequential_resolver(&[&[ALLOWED], &[BLOCKED]]))
        .build()
        .unwrap();
    let url = format!("http://rebinds.example:{}/", allowed.port);
    for _ in 0..3 {
        assert_eq!(fetcher.fetch(&url).await.unwrap().text(), "ok");
    }
    assert_eq!(allowed.accepted(), 1);
    assert!(got_no_connection(blocked.as_ref()));
}

#[tokio::test]
async fn a_retry_checks_the_address_again() {
    let (allowed, blocked) = allowed_and_blocked_servers(
        "HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    let fetcher = filtered_builder()
        .resolver(sequential_resolver(&[&[ALLOWED], &[BLOCKED]]))
        .retry(Retry::default().throttled_base_delay(Duration::from_millis(1)))
        .build()
        .unwrap();
    let url = format!("http://rebinds.example:{}/", allowed.port);
    let error = fetcher.fetch(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert_eq!(error.attempts().len(), 2);
    assert!(error.maybe_sent(), "the first attempt was sent");
    assert!(got_no_connection(blocked.as_ref()));
}

#[tokio::test]
async fn only_allowed_addresses_of_a_name_are_tried() {
    let (allowed, blocked) = allowed_and_blocked_servers(OK_AND_CLOSE);
    let fetcher = filtered_builder()
        .resolver(sequential_resolver(&[&[BLOCKED, ALLOWED, BLOCKED]]))
        .build()
        .unwrap();
    let url = format!("http://mixed.example:{}/", allowed.port);
    for _ in 0..5 {
        assert_eq!(fetcher.fetch(&url).await.unwrap().text(), "ok");
    }
    assert!(got_no_connection(blocked.as_ref()));
}

#[tokio::test]
async fn a_redirect_to_a_blocked_name_or_address_is_rejected() {
    let (allowed, blocked) = allowed_and_blocked_servers(OK);
    for host in [
        "blocked.example",
        "127.0.0.2",
        "0x7f.2",
        "[::1]",
        "2130706434",
    ] {
        let location = format!("http://{host}:{}/", allowed.port);
        let head =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let redirecting = Server::responding(head.leak());
        let fetcher = filtered_builder()
            .resolver(sequential_resolver(&[&[BLOCKED]]))
            .build()
            .unwrap();
        let url = format!("http://127.0.0.1:{}/", redirecting.port);
        let error = fetcher.fetch(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{host}");
        assert_eq!(error.redirects().len(), 1, "{host}");
    }
    assert!(got_no_connection(blocked.as_ref()));
    assert_eq!(allowed.accepted(), 0);
}

#[tokio::test]
async fn every_batch_method_checks_addresses() {
    let server = Server::responding(OK);
    let fetcher = Fetcher::builder()
        .public_addresses_only(true)
        .no_proxy()
        .build()
        .unwrap();
    let urls: Vec<_> = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0"]
        .iter()
        .map(|host| format!("http://{host}:{}/", server.port))
        .collect();
    let mut kinds = Vec::new();
    for result in fetcher.gather(&urls).await {
        kinds.push(result.unwrap_err().kind());
    }
    let mut done = fetcher.as_completed(&urls);
    while let Some(completed) = done.next().await {
        kinds.push(completed.result.unwrap_err().kind());
    }
    let mut done = fetcher.batch(&urls).in_order();
    while let Some(completed) = done.next().await {
        kinds.push(completed.result.unwrap_err().kind());
    }
    assert_eq!(kinds, [ErrorKind::NotAllowed; 12]);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_port_that_is_not_allowed_is_rejected_at_every_hop() {
    let closed = Server::responding(OK);
    let location = format!("http://127.0.0.1:{}/", closed.port);
    let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let server = Server::responding(head.leak());
    let fetcher = Fetcher::builder()
        .allowed_ports([server.port, 443])
        .build()
        .unwrap();
    let redirected = fetcher.fetch(format!("http://127.0.0.1:{}/", server.port));
    for error in [
        fetcher.fetch(location).await.unwrap_err(),
        fetcher.fetch("http://127.0.0.1/").await.unwrap_err(),
        redirected.await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        assert!(error.to_string().contains("port"), "{error}");
    }
    assert_eq!((server.accepted(), closed.accepted()), (1, 0));
}

#[tokio::test]
async fn the_ninth_address_is_used_if_eight_refuse() {
    let server = Server::responding(OK);
    let mut addresses: Vec<_> = (2..10).map(|n| Ipv4Addr::new(127, 0, 0, n)).collect();
    addresses.push(ALLOWED);
    let fetcher = Fetcher::builder()
        .no_proxy()
        .resolver(sequential_resolver(&[&addresses]))
        .build()
        .unwrap();
    let url = format!("http://many.example:{}/", server.port);
    assert_eq!(fetcher.fetch(url).await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_retry_resolves_again_after_a_failed_connect() {
    let (allowed, blocked) = allowed_and_blocked_servers(OK);
    drop(blocked);
    let refusing = Ipv4Addr::new(127, 0, 0, 3);
    let fetcher = Fetcher::builder()
        .no_proxy()
        .resolver(sequential_resolver(&[&[refusing], &[ALLOWED]]))
        .retry(Retry::default().base_delay(Duration::from_millis(1)))
        .build()
        .unwrap();
    let url = format!("http://moved.example:{}/", allowed.port);
    let response = fetcher.fetch(url).await.unwrap();
    assert_eq!(response.attempts().len(), 2);
}

#[tokio::test]
async fn a_missing_host_is_not_retried_and_a_failed_lookup_is() {
    let resolver = |name: String| async move {
        Err(match &*name {
            "absent.example" => std::io::ErrorKind::NotFound.into(),
            _ => std::io::Error::other("the name servers are down"),
        })
    };
    let fetcher = Fetcher::builder()
        .no_proxy()
        .resolver(resolver)
        .retry(Retry::default().base_delay(Duration::from_millis(1)))
        .build()
        .unwrap();
    for (host, kind, attempts) in [
        ("absent.example", ErrorKind::HostNotFound, 1),
        ("unknown.example", ErrorKind::Dns, 3),
    ] {
        let error = fetcher.fetch(format!("http://{host}/")).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (kind, attempts));
        assert!(error.is_connect() && !error.maybe_sent());
    }
}
