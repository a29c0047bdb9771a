//! Faults at every byte of either direction of a connection, over each protocol.
//!
//! A fault never leads to a hang, a panic, a second result, a short body reported as complete, a
//! second sending of a request that is not safe to repeat, or an error that denies that a request
//! was sent.
//!
//! Changed bytes cannot be detected in general without TLS. For those, the tests check the length
//! and the structure of a body, not its content.

/// Declares one test for each protocol, which calls the function `inject` of the module.
macro_rules! injection_tests {
    ($($name:ident: $protocol:ident, $count:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                inject(Protocol::$protocol, $count).await;
            }
        )*
    };
}

mod downloads;
mod link;
mod origin;
mod requests;
mod streams;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fanout::{Breaker, Fetcher, FetcherBuilder, Retry, Timeouts};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::server::ca_pem;
use link::{Direction, Fault, FaultKind};
use origin::Protocol;

/// The real time after which a case counts as hung. The timeouts of its requests are far shorter.
const HANG_GUARD: Duration = Duration::from_secs(120);

/// The number of cases that run at once.
const CONCURRENT_CASES: usize = 64;

/// On a busy machine, the short connect timeouts of [`timeouts`] could open a circuit breaker.
fn fetcher_builder() -> FetcherBuilder {
    Fetcher::builder()
        .no_proxy()
        .breaker(Breaker::off())
        .add_root_certificates(ca_pem())
        .retry(Retry::default().base_delay(Duration::from_millis(1)))
}

fn fetcher(protocol: Protocol) -> Fetcher {
    let mut builder = fetcher_builder();
    if protocol == Protocol::Http2 {
        builder = builder.http2_prior_knowledge();
    }
    builder.build().expect("valid settings")
}

/// Timeouts that end a stalled request soon, or, for cases without a stall, that a busy machine
/// does not reach.
///
/// An HTTP/2 connection counts as unresponsive after 1 s, and is used again before that.
fn timeouts(protocol: Protocol, fault: FaultKind) -> Timeouts {
    let timeout = match fault {
        FaultKind::Cut | FaultKind::Reset => Duration::from_secs(60),
        _ if protocol.is_http2() => Duration::from_millis(1200),
        FaultKind::Stall | FaultKind::Garbage | FaultKind::BitFlip => Duration::from_millis(400),
    };
    Timeouts::default()
        .connect(timeout)
        .response_head(timeout)
        .body_idle(timeout)
        .total(4 * timeout)
}

/// Every fault at every byte, for a connection that carries this many bytes without a fault.
fn all_faults(to_server: usize, to_client: usize) -> Vec<Fault> {
    let directions = [
        (Direction::ToServer, to_server),
        (Direction::ToClient, to_client),
    ];
    let mut faults = Vec::new();
    for (direction, length) in directions {
        for offset in 0..=length {
            faults.extend(FaultKind::ALL.map(|kind| Fault {
                kind,
                direction,
                offset,
            }));
        }
    }
    faults
}

/// Runs the cases concurrently, each with a hang guard.
async fn run_all<C, F>(cases: Vec<C>, run: impl Fn(C) -> F)
where
    C: std::fmt::Debug + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONCURRENT_CASES));
    let mut running = JoinSet::new();
    for case in cases {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let future = run(case.clone());
        running.spawn(async move {
            let _permit = permit;
            let finished = tokio::time::timeout(HANG_GUARD, future).await;
            finished.unwrap_or_else(|_| panic!("hangs: {case:?}"));
        });
        while let Some(result) = running.try_join_next() {
            check_passed(result);
        }
    }
    while let Some(result) = running.join_next().await {
        check_passed(result);
    }
}

fn check_passed(result: Result<(), tokio::task::JoinError>) {
    result.unwrap_or_else(|error| panic!("with the seed {}: {error}", crate::settings::seed()));
}

async fn assert_idle(fetcher: &Fetcher) {
    assert_eq!(crate::panics::total(), 0, "a task panicked");
    while fetcher.snapshot().open_connections() > fetcher.snapshot().idle_connections() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fetcher.snapshot().progress().in_flight(), 0);
}

fn sample<C>(mut cases: Vec<C>, rng: &mut fastrand::Rng, count: usize) -> Vec<C> {
    if !crate::settings::is_long() {
        rng.shuffle(&mut cases);
        cases.truncate(count);
    }
    cases
}

/// Runs a sample of the cases, `count` of them in the short form, on clones of one Fetcher.
async fn run_sample<C, F>(
    fetcher: &Fetcher,
    cases: Vec<C>,
    rng: &mut fastrand::Rng,
    count: usize,
    run: impl Fn(C, Fetcher) -> F,
) where
    C: std::fmt::Debug + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let cases = sample(cases, rng, count);
    run_all(cases, |case| run(case, fetcher.clone())).await;
    assert_idle(fetcher).await;
}

fn url(protocol: Protocol, port: u16, path: &str) -> String {
    match protocol {
        Protocol::Http1 | Protocol::Http2 => format!("http://127.0.0.1:{port}{path}"),
        Protocol::TlsHttp1 | Protocol::TlsHttp2 => format!("https://127.0.0.1:{port}{path}"),
        Protocol::SocksHttp1 => format!("http://origin.test:{port}{path}"),
        Protocol::ConnectTlsHttp1 => format!("https://localhost:{port}{path}"),
    }
}
