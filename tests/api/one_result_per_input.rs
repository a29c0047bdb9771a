//! Every input of a batch has exactly one result, at its own index, for every server fault.

use crate::support::own_process::{self, test_path};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::server::{FaultServer, expected_body, refused_url};
use fanout::{
    Attempt, Breaker, Completed, ErrorKind, Fetcher, Outcome, Request, RequestBuilder, Response,
    Result, RetryBudget,
};
use tokio::runtime::{Builder, Handle};

/// The inputs of a large batch, fewer in a slow debug build.
const LARGE_BATCH: usize = if cfg!(debug_assertions) {
    10_000
} else {
    40_000
};
const SMALL_BATCH: usize = LARGE_BATCH / 10;

/// The timeout of requests that stall. Healthy requests keep the long default timeouts.
const STALL_TIMEOUT: Duration = Duration::from_millis(200);

/// A label of more than 63 bytes, which the resolver rejects without a query (RFC 1035,
/// section 2.3.4).
const UNKNOWN_HOST: &str =
    "http://xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid/";

/// A fault, and the expected error of its input.
struct Fault {
    target: FaultTarget,
    kind: ErrorKind,
    attempts: usize,
    maybe_sent: bool,
}

enum FaultTarget {
    Path(&'static str),
    Stalled(&'static str),
    Url(&'static str),
    RefusedPort,
}

const fn retried_fault(target: FaultTarget, kind: ErrorKind) -> Fault {
    Fault {
        target,
        kind,
        attempts: 3,
        maybe_sent: true,
    }
}

const fn permanent_fault(target: FaultTarget, kind: ErrorKind) -> Fault {
    Fault {
        attempts: 1,
        ..retried_fault(target, kind)
    }
}

const fn unsent_fault(target: FaultTarget, kind: ErrorKind, attempts: usize) -> Fault {
    Fault {
        target,
        kind,
        attempts,
        maybe_sent: false,
    }
}

const FAULTS: [Fault; 17] = [
    unsent_fault(FaultTarget::RefusedPort, ErrorKind::Connect, 3),
    unsent_fault(FaultTarget::Url(UNKNOWN_HOST), ErrorKind::HostNotFound, 1),
    unsent_fault(FaultTarget::Url("not a URL"), ErrorKind::InvalidRequest, 0),
    unsent_fault(
        FaultTarget::Url("ftp://a.example/"),
        ErrorKind::InvalidRequest,
        0,
    ),
    retried_fault(FaultTarget::Path("/reset-before"), ErrorKind::Closed),
    retried_fault(FaultTarget::Path("/close-before"), ErrorKind::Closed),
    retried_fault(FaultTarget::Path("/half-head"), ErrorKind::Closed),
    retried_fault(FaultTarget::Path("/reset-after-head"), ErrorKind::Reset),
    retried_fault(FaultTarget::Path("/truncated"), ErrorKind::Truncated),
    retried_fault(FaultTarget::Path("/truncated-chunks"), ErrorKind::Truncated),
    retried_fault(
        FaultTarget::Stalled("/stall-head"),
        ErrorKind::RequestTimeout,
    ),
    retried_fault(
        FaultTarget::Stalled("/stall-body"),
        ErrorKind::RequestTimeout,
    ),
    permanent_fault(FaultTarget::Path("/malformed"), ErrorKind::Protocol),
    permanent_fault(
        FaultTarget::Path("/length-and-chunked"),
        ErrorKind::Protocol,
    ),
    permanent_fault(FaultTarget::Path("/bytes/5000"), ErrorKind::BodyTooLarge),
    permanent_fault(FaultTarget::Path("/big/9000"), ErrorKind::BodyTooLarge),
    permanent_fault(FaultTarget::Path("/endless"), ErrorKind::BodyTooLarge),
];
const MAX_BODY_SIZE: u64 = 4_000;

/// Returns the fault of an input. One input in ten has a fault; the faults alternate.
fn fault_at(index: usize) -> Option<&'static Fault> {
    (index % 10 == 7).then(|| &FAULTS[index / 10 % FAULTS.len()])
}

/// Every input has its own path, so that the log shows how often it was sent.
fn healthy_path(index: usize) -> String {
    let framing = ["ok", "ok", "ok", "chunked", "ok", "close", "until-close"];
    format!("/{}/{index}", framing[index % framing.len()])
}

struct TestServers {
    server: FaultServer,
    refused: String,
}

impl TestServers {
    fn new() -> Self {
        Self {
            server: FaultServer::start(),
            refused: refused_url(),
        }
    }

    fn input(&self, index: usize) -> RequestBuilder {
        let Some(fault) = fault_at(index) else {
            return Request::get(self.server.url(&healthy_path(index)));
        };
        match fault.target {
            FaultTarget::Path(path) => Request::get(self.server.url(path)),
            FaultTarget::Stalled(path) => {
                Request::get(self.server.url(path)).timeout(STALL_TIMEOUT)
            }
            FaultTarget::Url(url) => Request::get(url),
            FaultTarget::RefusedPort => Request::get(&self.refused),
        }
    }

    fn inputs(&self, count: usize) -> impl Iterator<Item = RequestBuilder> + Send {
        (0..count).map(|index| self.input(index))
    }

    /// Asserts that no healthy request was lost or sent twice.
    fn assert_healthy_paths_received_once(&self, count: usize) {
        let log = self.server.log();
        let mut paths: Vec<&str> = log.iter().map(|entry| entry.path.as_str()).collect();
        paths.sort_unstable();
        for index in (0..count).filter(|&index| fault_at(index).is_none()) {
            let path = healthy_path(index);
            let first = paths.partition_point(|seen| *seen < path.as_str());
            let seen = paths[first..].iter().take_while(|seen| **seen == path);
            assert_eq!(seen.count(), 1, "{path}");
        }
    }
}

fn check(index: usize, result: &Result<Response>) {
    match (fault_at(index), result) {
        (None, Ok(response)) => {
            assert_eq!(response.status(), 200, "input {index}");
            assert_eq!(
                response.bytes()[..],
                expected_body(index as u64),
                "input {index}"
            );
            assert_eq!(response.attempts().len(), 1, "input {index}");
        }
        (Some(fault), Err(error)) => {
            assert_eq!(error.kind(), fault.kind, "input {index}: {error:?}");
            assert_eq!(
                error.maybe_sent(),
                fault.maybe_sent,
                "input {index}: {error:?}"
            );
            let outcomes: Vec<Outcome> = error.attempts().iter().map(Attempt::outcome).collect();
            assert_eq!(
                outcomes,
                vec![Outcome::Error(fault.kind); fault.attempts],
                "input {index}"
            );
        }
        (None, Err(error)) => panic!("input {index} is healthy: {error:?}"),
        (Some(fault), Ok(_)) => panic!("input {index} must fail with {}", fault.kind),
    }
}

/// Checks each result, and that no index occurs twice.
struct SeenIndexes(Vec<bool>);

impl SeenIndexes {
    fn new(count: usize) -> Self {
        Self(vec![false; count])
    }

    fn record(&mut self, completed: &Completed<usize>) {
        assert_eq!(completed.tag, completed.index);
        assert!(
            !std::mem::replace(&mut self.0[completed.index], true),
            "input {} has two results",
            completed.index
        );
        check(completed.index, &completed.result);
    }

    fn is_complete(&self) -> bool {
        self.0.iter().all(|&seen| seen)
    }
}

/// The open descriptors of the process and the live tasks of the runtime.
#[derive(Debug, PartialEq, Eq)]
struct Resources {
    files: usize,
    tasks: usize,
}

impl Resources {
    fn current() -> Self {
        #[cfg(target_os = "linux")]
        let files = crate::support::server::open_files();
        #[cfg(not(target_os = "linux"))]
        let files = 0;
        let tasks = Handle::current().metrics().num_alive_tasks();
        Self { files, tasks }
    }

    /// Waits until the descriptors and tasks are back at these counts. Yields instead of sleeping.
    async fn wait_until_restored(&self) {
        let begun = Instant::now();
        loop {
            let current = Self::current();
            if current == *self {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{current:?} instead of {self:?}"
            );
            tokio::task::yield_now().await;
        }
    }
}

fn on_each_runtime_flavor<F: Future<Output = ()>>(test: impl Fn(Arc<TestServers>, Fetcher) -> F) {
    let mut multi_thread = Builder::new_multi_thread();
    multi_thread.worker_threads(4);
    for mut builder in [Builder::new_current_thread(), multi_thread] {
        let runtime = builder.enable_all().build().expect("a runtime");
        let servers = Arc::new(TestServers::new());
        runtime.block_on(async {
            let initial = Resources::current();
            let fetcher = Fetcher::builder()
                .max_body_size(MAX_BODY_SIZE)
                .breaker(Breaker::off())
                .retry_budget(RetryBudget::off())
                .no_proxy()
                .build()
                .unwrap();
            test(Arc::clone(&servers), fetcher).await;
            servers.server.wait_for_open_connections(0).await;
            initial.wait_until_restored().await;
        });
    }
}

#[test]
fn gather_returns_one_result_per_input_and_leaks_nothing() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            gather_returns_one_result_per_input_and_leaks_nothing
        ));
    }
    on_each_runtime_flavor(|servers, fetcher| async move {
        let results = fetcher.gather(servers.inputs(LARGE_BATCH)).await;
        assert_eq!(results.len(), LARGE_BATCH);
        for (index, result) in results.iter().enumerate() {
            check(index, result);
        }
        servers.assert_healthy_paths_received_once(LARGE_BATCH);
    });
}

#[test]
fn as_completed_yields_one_result_per_input_and_leaks_nothing() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            as_completed_yields_one_result_per_input_and_leaks_nothing
        ));
    }
    on_each_runtime_flavor(|servers, fetcher| async move {
        let mut seen = SeenIndexes::new(SMALL_BATCH);
        let mut results = fetcher.as_completed(servers.inputs(SMALL_BATCH).enumerate());
        while let Some(completed) = results.next().await {
            seen.record(&completed);
        }
        assert!(seen.is_complete());
        servers.assert_healthy_paths_received_once(SMALL_BATCH);
    });
}

#[test]
fn in_order_yields_one_result_per_input_in_order_and_leaks_nothing() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            in_order_yields_one_result_per_input_in_order_and_leaks_nothing
        ));
    }
    on_each_runtime_flavor(|servers, fetcher| async move {
        let mut seen = SeenIndexes::new(SMALL_BATCH);
        let mut results = fetcher
            .batch(servers.inputs(SMALL_BATCH).enumerate())
            .in_order();
        for expected_index in 0..SMALL_BATCH {
            let completed = results.next().await.expect("one result per input");
            assert_eq!(completed.index, expected_index);
            seen.record(&completed);
        }
        assert!(results.next().await.is_none() && seen.is_complete());
        servers.assert_healthy_paths_received_once(SMALL_BATCH);
    });
}
