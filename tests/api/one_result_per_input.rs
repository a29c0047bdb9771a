//! Every input of a batch is answered exactly once, at its own index, whatever the servers do.

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

/// In a debug build as many as a test can afford.
const MANY: usize = if cfg!(debug_assertions) {
    10_000
} else {
    40_000
};
const SOME: usize = MANY / 10;

/// What the stalled ones get. The healthy ones have the default timeouts, which no machine is too slow for.
const SHORT: Duration = Duration::from_millis(200);

/// A label of more than 63 bytes, which the system refuses without asking anybody (RFC 1035 §2.3.4).
const UNKNOWN_HOST: &str =
    "http://xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid/";

/// One of the faults, and how its input is answered.
struct Fault {
    at: At,
    kind: ErrorKind,
    attempts: usize,
    maybe_sent: bool,
}

enum At {
    Path(&'static str),
    Stalled(&'static str),
    Url(&'static str),
    RefusedPort,
}

const fn retried(at: At, kind: ErrorKind) -> Fault {
    Fault {
        at,
        kind,
        attempts: 3,
        maybe_sent: true,
    }
}

const fn final_at_once(at: At, kind: ErrorKind) -> Fault {
    Fault {
        attempts: 1,
        ..retried(at, kind)
    }
}

const fn never_sent(at: At, kind: ErrorKind, attempts: usize) -> Fault {
    Fault {
        at,
        kind,
        attempts,
        maybe_sent: false,
    }
}

const FAULTS: [Fault; 17] = [
    never_sent(At::RefusedPort, ErrorKind::Connect, 3),
    never_sent(At::Url(UNKNOWN_HOST), ErrorKind::HostNotFound, 1),
    never_sent(At::Url("not a URL"), ErrorKind::InvalidRequest, 0),
    never_sent(At::Url("ftp://a.example/"), ErrorKind::InvalidRequest, 0),
    retried(At::Path("/reset-before"), ErrorKind::Closed),
    retried(At::Path("/close-before"), ErrorKind::Closed),
    retried(At::Path("/half-head"), ErrorKind::Closed),
    retried(At::Path("/reset-after-head"), ErrorKind::Reset),
    retried(At::Path("/truncated"), ErrorKind::Truncated),
    retried(At::Path("/truncated-chunks"), ErrorKind::Truncated),
    retried(At::Stalled("/stall-head"), ErrorKind::RequestTimeout),
    retried(At::Stalled("/stall-body"), ErrorKind::RequestTimeout),
    final_at_once(At::Path("/malformed"), ErrorKind::Protocol),
    final_at_once(At::Path("/length-and-chunked"), ErrorKind::Protocol),
    final_at_once(At::Path("/bytes/5000"), ErrorKind::BodyTooLarge),
    final_at_once(At::Path("/big/9000"), ErrorKind::BodyTooLarge),
    final_at_once(At::Path("/endless"), ErrorKind::BodyTooLarge),
];
const MAX_BODY_SIZE: u64 = 4_000;

/// One input in ten is a fault, each sort in its turn.
fn fault_of(index: usize) -> Option<&'static Fault> {
    (index % 10 == 7).then(|| &FAULTS[index / 10 % FAULTS.len()])
}

/// The paths differ, so that the log tells how often each input was sent.
fn healthy_path(index: usize) -> String {
    let framing = ["ok", "ok", "ok", "chunked", "ok", "close", "until-close"];
    format!("/{}/{index}", framing[index % framing.len()])
}

struct World {
    server: FaultServer,
    refused: String,
}

impl World {
    fn new() -> Self {
        Self {
            server: FaultServer::start(),
            refused: refused_url(),
        }
    }

    fn input(&self, index: usize) -> RequestBuilder {
        let Some(fault) = fault_of(index) else {
            return Request::get(self.server.url(&healthy_path(index)));
        };
        match fault.at {
            At::Path(path) => Request::get(self.server.url(path)),
            At::Stalled(path) => Request::get(self.server.url(path)).timeout(SHORT),
            At::Url(url) => Request::get(url),
            At::RefusedPort => Request::get(&self.refused),
        }
    }

    fn inputs(&self, count: usize) -> impl Iterator<Item = RequestBuilder> + Send {
        (0..count).map(|index| self.input(index))
    }

    /// No healthy request was lost, and none was sent twice.
    fn has_seen_each_once(&self, count: usize) {
        let log = self.server.log();
        let mut paths: Vec<&str> = log.iter().map(|entry| entry.path.as_str()).collect();
        paths.sort_unstable();
        for index in (0..count).filter(|&index| fault_of(index).is_none()) {
            let path = healthy_path(index);
            let first = paths.partition_point(|seen| *seen < path.as_str());
            let seen = paths[first..].iter().take_while(|seen| **seen == path);
            assert_eq!(seen.count(), 1, "{path}");
        }
    }
}

fn check(index: usize, result: &Result<Response>) {
    match (fault_of(index), result) {
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
        (Some(fault), Ok(_)) => panic!("input {index} is {}, and was answered", fault.kind),
    }
}

/// Takes the results that come one by one, and checks that each index comes once.
struct Seen(Vec<bool>);

impl Seen {
    fn none_of(count: usize) -> Self {
        Self(vec![false; count])
    }

    fn take(&mut self, completed: &Completed<usize>) {
        assert_eq!(completed.tag, completed.index);
        assert!(
            !std::mem::replace(&mut self.0[completed.index], true),
            "input {} was answered twice",
            completed.index
        );
        check(completed.index, &completed.result);
    }

    fn is_all(&self) -> bool {
        self.0.iter().all(|&seen| seen)
    }
}

/// The process's open files and the runtime's tasks.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        #[cfg(target_os = "linux")]
        let files = crate::support::server::open_files();
        #[cfg(not(target_os = "linux"))]
        let files = 0;
        let tasks = Handle::current().metrics().num_alive_tasks();
        Self { files, tasks }
    }

    /// Tasks that were told to end are given the time they need, and no sleep.
    async fn is_restored(&self) {
        let begun = Instant::now();
        loop {
            let held = Self::now();
            if held == *self {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{held:?} instead of {self:?}"
            );
            tokio::task::yield_now().await;
        }
    }
}

fn on_each_runtime<F: Future<Output = ()>>(test: impl Fn(Arc<World>, Fetcher) -> F) {
    let mut several = Builder::new_multi_thread();
    several.worker_threads(4);
    for mut builder in [Builder::new_current_thread(), several] {
        let runtime = builder.enable_all().build().expect("a runtime");
        let world = Arc::new(World::new());
        runtime.block_on(async {
            let held = Held::now();
            let fetcher = Fetcher::builder()
                .max_body_size(MAX_BODY_SIZE)
                .breaker(Breaker::off())
                .retry_budget(RetryBudget::off())
                .no_proxy()
                .build()
                .unwrap();
            test(Arc::clone(&world), fetcher).await;
            world.server.wait_for_open_connections(0).await;
            held.is_restored().await;
        });
    }
}

#[test]
fn gather_answers_every_input_once_at_its_index_and_leaves_nothing_behind() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            gather_answers_every_input_once_at_its_index_and_leaves_nothing_behind
        ));
    }
    on_each_runtime(|world, fetcher| async move {
        let results = fetcher.gather(world.inputs(MANY)).await;
        assert_eq!(results.len(), MANY);
        for (index, result) in results.iter().enumerate() {
            check(index, result);
        }
        world.has_seen_each_once(MANY);
    });
}

#[test]
fn as_completed_answers_every_input_once_and_leaves_nothing_behind() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            as_completed_answers_every_input_once_and_leaves_nothing_behind
        ));
    }
    on_each_runtime(|world, fetcher| async move {
        let mut seen = Seen::none_of(SOME);
        let mut results = fetcher.as_completed(world.inputs(SOME).enumerate());
        while let Some(completed) = results.next().await {
            seen.take(&completed);
        }
        assert!(seen.is_all());
        world.has_seen_each_once(SOME);
    });
}

#[test]
fn in_order_answers_every_input_once_in_its_turn_and_leaves_nothing_behind() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            in_order_answers_every_input_once_in_its_turn_and_leaves_nothing_behind
        ));
    }
    on_each_runtime(|world, fetcher| async move {
        let mut seen = Seen::none_of(SOME);
        let mut results = fetcher.batch(world.inputs(SOME).enumerate()).in_order();
        for turn in 0..SOME {
            let completed = results.next().await.expect("one result each");
            assert_eq!(completed.index, turn);
            seen.take(&completed);
        }
        assert!(results.next().await.is_none() && seen.is_all());
        world.has_seen_each_once(SOME);
    });
}
