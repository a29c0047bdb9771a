//! Many requests from two runtimes, with faults, cancellations and changing limits, after which
//! results, bytes, descriptors, tasks and memory add up.
#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use fanout::{BatchHandle, ErrorKind, Fetcher, Rate, Response, Result, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};

use crate::settings;
use crate::support::own_process::{self, test_path};
use crate::support::server::open_files;

/// The number of requests. `FANOUT_TORTURE_SOAK=<number>` sets another.
const REQUESTS: u32 = 50_000;
/// The number of requests of the long form.
const LONG_REQUESTS: u32 = 10_000_000;
const REQUESTS_PER_BATCH: u32 = 2_500;
const BODY_LENGTH: usize = 64;
/// The memory that may be added after the first tenth of the requests, in KiB.
const MAX_GROWTH_KIB: usize = 32 * 1024;
/// The real time after which a wait counts as hung.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// The server's reaction to a request. One request in a hundred has a fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Behavior {
    Ok,
    /// RST instead of the first response.
    ResetOnce,
    /// FIN in the first body.
    CutOnce,
    /// 500, then 200.
    FailOnce,
    NotFound,
    /// Every response is malformed.
    Malformed,
}

fn behavior(id: u32) -> Behavior {
    const FAULTS: [Behavior; 5] = [
        Behavior::ResetOnce,
        Behavior::CutOnce,
        Behavior::FailOnce,
        Behavior::NotFound,
        Behavior::Malformed,
    ];
    match id % 100 {
        7 => FAULTS[(id / 100) as usize % FAULTS.len()],
        _ => Behavior::Ok,
    }
}

fn expected_body(id: u32) -> String {
    format!("{id:0BODY_LENGTH$}")
}

/// A minimal HTTP/1.1 server. The path of a request is its number.
#[derive(Clone, Default)]
struct Server {
    requests: Arc<AtomicUsize>,
    failed_once: Arc<Mutex<HashSet<u32>>>,
}

impl Server {
    /// Starts the server on a thread of its own, and returns its origin.
    fn start(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let origin = format!("http://{}", listener.local_addr().expect("a bound socket"));
        let server = self.clone();
        let (started, wait_for_start) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                started.send(()).expect("the test waits");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(server.clone().serve(stream));
                }
            });
        });
        // The descriptors of the runtime are open from here on.
        wait_for_start.recv().expect("the server starts");
        origin
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = [0; 2048];
        let mut length = 0;
        loop {
            match stream.read(&mut buffer[length..]).await {
                Ok(read @ 1..) => length += read,
                _ => return,
            }
            if !buffer[..length].ends_with(b"\r\n\r\n") {
                continue;
            }
            self.requests.fetch_add(1, Relaxed);
            let id = request_id(&buffer[..length]);
            length = 0;
            let (response, closes) = self.respond(id);
            let is_written = stream.write_all(response.as_bytes()).await.is_ok();
            if response.is_empty() {
                let _ = stream.set_zero_linger();
            }
            if closes || !is_written {
                return;
            }
        }
    }

    /// Returns the bytes of a response, and whether the connection is closed after them.
    fn respond(&self, id: u32) -> (String, bool) {
        let body = expected_body(id);
        let ok = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_LENGTH}\r\n\r\n{body}");
        let empty = |status| format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        let is_first = || self.failed_once.lock().expect("not poisoned").insert(id);
        match behavior(id) {
            Behavior::ResetOnce if is_first() => (String::new(), true),
            Behavior::CutOnce if is_first() => (ok[..ok.len() - 20].to_owned(), true),
            Behavior::FailOnce if is_first() => (empty(500), false),
            Behavior::NotFound => (empty(404), false),
            Behavior::Malformed => ("not HTTP\r\n\r\n".to_owned(), true),
            _ => (ok, false),
        }
    }
}

fn request_id(head: &[u8]) -> u32 {
    let digits = head
        .iter()
        .skip("GET /".len())
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |id, digit| 10 * id + u32::from(digit - b'0'))
}

/// The sums of one runtime's requests.
#[derive(Debug, Default)]
struct Totals {
    /// Requests whose result was delivered.
    delivered: usize,
    /// Requests without a result, because their future or their batch was dropped or cancelled.
    dropped: usize,
    /// Delivered results of requests that were cancelled.
    cancelled: usize,
    body_bytes: usize,
    attempts: usize,
}

impl Totals {
    /// Checks the result of the request `id`.
    fn count(&mut self, id: u32, result: &Result<Response>) {
        self.delivered += 1;
        match (result, behavior(id)) {
            (Ok(response), Behavior::NotFound) => {
                assert_eq!(response.status(), 404, "{response:?}");
                self.attempts += response.attempts().len();
            }
            (Ok(response), _) => {
                assert_eq!(response.status(), 200, "{response:?}");
                assert_eq!(response.text(), expected_body(id), "{response:?}");
                self.body_bytes += response.bytes().len();
                self.attempts += response.attempts().len();
            }
            (Err(error), Behavior::Malformed) => {
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
                self.attempts += error.attempts().len();
            }
            (Err(error), _) => panic!("{id}: {error:?}"),
        }
    }

    /// Checks the result of a request whose batch may have been cancelled. If a retry was pending,
    /// the outcome of the last attempt is the result.
    fn count_cancelled(&mut self, id: u32, result: &Result<Response>) {
        let is_cancelled = match (result, behavior(id)) {
            (Err(error), Behavior::ResetOnce | Behavior::CutOnce) => error.maybe_sent(),
            (Ok(response), Behavior::FailOnce) => response.status() == 500,
            (Err(error), _) => error.kind() == ErrorKind::Cancelled,
            (Ok(_), _) => false,
        };
        if is_cancelled || matches!(result, Err(error) if error.kind() == ErrorKind::Cancelled) {
            self.delivered += 1;
            self.cancelled += 1;
        } else {
            self.count(id, result);
        }
    }

    fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.cancelled += other.cancelled;
        self.body_bytes += other.body_bytes;
        self.attempts += other.attempts;
    }
}

/// Sends the requests `ids`, in batches whose kinds take turns.
async fn send_all(fetcher: Fetcher, origin: String, ids: std::ops::Range<u32>) -> Totals {
    let mut rng = fastrand::Rng::with_seed(settings::seed() ^ u64::from(ids.start));
    let mut totals = Totals::default();
    let mut first = ids.start;
    while first < ids.end {
        let batch = first..ids.end.min(first + REQUESTS_PER_BATCH);
        first = batch.end;
        match rng.u32(..8) {
            0..3 => gather(&fetcher, &origin, batch, &mut totals).await,
            3 => steer(&fetcher, &origin, batch, &mut rng, &mut totals).await,
            4 => cancel(&fetcher, &origin, batch, &mut rng, &mut totals).await,
            5 => drop_batch(&fetcher, &origin, batch, &mut rng, &mut totals).await,
            _ => fetch_each(&fetcher, &origin, batch, &mut rng, &mut totals).await,
        }
    }
    totals
}

type Ids = std::ops::Range<u32>;

fn inputs(origin: &str, ids: Ids) -> impl Iterator<Item = (u32, String)> + Send + use<> {
    let origin = origin.to_owned();
    ids.map(move |id| (id, format!("{origin}/{id}")))
}

async fn gather(fetcher: &Fetcher, origin: &str, ids: Ids, totals: &mut Totals) {
    let batch = fetcher.batch(inputs(origin, ids.clone()));
    let handle = batch.handle();
    let results = batch.gather().await;
    assert_eq!(results.len(), ids.len());
    let before = totals.body_bytes;
    for (id, result) in ids.clone().zip(&results) {
        totals.count(id, result);
    }
    let progress = handle.progress();
    assert_eq!((progress.completed(), progress.in_flight()), (ids.len(), 0));
    // The bytes of a body that was cut may be counted too.
    let bytes = (totals.body_bytes - before) as u64;
    let cut = ids.clone().filter(|id| behavior(*id) == Behavior::CutOnce);
    let max_bytes = bytes + (cut.count() * BODY_LENGTH) as u64;
    assert!(
        (bytes..=max_bytes).contains(&progress.body_bytes()),
        "{progress}"
    );
}

/// The requests of a batch that have a result.
struct Seen {
    first: u32,
    has_result: Vec<bool>,
}

impl Seen {
    fn new(ids: &Ids) -> Self {
        Self {
            first: ids.start,
            has_result: vec![false; ids.len()],
        }
    }

    fn insert(&mut self, id: u32) {
        let has_result = &mut self.has_result[(id - self.first) as usize];
        assert!(!std::mem::replace(has_result, true), "{id} has two results");
    }

    fn count(&self) -> usize {
        self.has_result
            .iter()
            .filter(|has_result| **has_result)
            .count()
    }
}

/// Pauses and resumes a batch, and changes its limits.
async fn steer(
    fetcher: &Fetcher,
    origin: &str,
    ids: Ids,
    rng: &mut fastrand::Rng,
    totals: &mut Totals,
) {
    let batch = fetcher.batch(inputs(origin, ids.clone()));
    let handle = batch.handle();
    let mut results = batch.as_completed();
    let mut seen = Seen::new(&ids);
    while let Some(completed) = results.next().await {
        seen.insert(completed.tag);
        totals.count(completed.tag, &completed.result);
        if rng.u32(..20) == 0 {
            change_limits(&handle, rng).await;
        }
    }
    assert_eq!(seen.count(), ids.len());
}

async fn change_limits(handle: &BatchHandle, rng: &mut fastrand::Rng) {
    match rng.u32(..4) {
        0 => {
            handle.pause();
            yield_now().await;
            handle.resume();
        }
        1 => handle.set_rate(Rate::per_second(100_000)),
        2 => handle.set_rate(None),
        _ => handle.set_concurrency(rng.usize(1..=100)),
    }
}

/// Cancels a batch after some results. Every input that was pulled has a result.
async fn cancel(
    fetcher: &Fetcher,
    origin: &str,
    ids: Ids,
    rng: &mut fastrand::Rng,
    totals: &mut Totals,
) {
    let batch = fetcher.batch(inputs(origin, ids.clone()));
    let handle = batch.handle();
    let mut results = batch.as_completed();
    let mut seen = Seen::new(&ids);
    let cancelled_after = rng.usize(..ids.len());
    for count in 0.. {
        if count == cancelled_after {
            handle.cancel();
        }
        let Some(completed) = results.next().await else {
            break;
        };
        seen.insert(completed.tag);
        totals.count_cancelled(completed.tag, &completed.result);
    }
    assert_eq!(seen.count(), handle.progress().inputs_pulled());
    totals.dropped += ids.len() - seen.count();
}

/// Drops a batch after some results.
async fn drop_batch(
    fetcher: &Fetcher,
    origin: &str,
    ids: Ids,
    rng: &mut fastrand::Rng,
    totals: &mut Totals,
) {
    let mut results = fetcher.batch(inputs(origin, ids.clone())).in_order();
    let taken = rng.usize(..ids.len());
    for id in ids.clone().take(taken) {
        let completed = results.next().await.expect("a result");
        assert_eq!(completed.tag, id);
        totals.count(id, &completed.result);
    }
    totals.dropped += ids.len() - taken;
}

/// Fetches each request by itself, and drops one in twenty.
async fn fetch_each(
    fetcher: &Fetcher,
    origin: &str,
    ids: Ids,
    rng: &mut fastrand::Rng,
    totals: &mut Totals,
) {
    let mut running = JoinSet::new();
    for (id, url) in inputs(origin, ids) {
        let fetch = fetcher.fetch(url);
        if rng.u32(..20) == 0 {
            totals.dropped += 1;
            running.spawn(poll_a_few_times(fetch, rng.usize(..5)));
        } else {
            running.spawn(async move { Some((id, fetch.await)) });
        }
        while running.len() >= 100 {
            count_fetch(running.join_next().await, totals);
        }
    }
    while let Some(result) = running.join_next().await {
        count_fetch(Some(result), totals);
    }
}

type FetchResult = Option<(u32, Result<Response>)>;

fn count_fetch(
    joined: Option<std::result::Result<FetchResult, tokio::task::JoinError>>,
    totals: &mut Totals,
) {
    if let Some(Ok(Some((id, result)))) = joined {
        totals.count(id, &result);
    }
}

async fn poll_a_few_times(fetch: fanout::Fetch, polls: usize) -> FetchResult {
    let mut fetch = pin!(fetch);
    for _ in 0..polls {
        let is_ready = poll_fn(|cx| Poll::Ready(fetch.as_mut().poll(cx).is_ready())).await;
        if is_ready {
            break;
        }
        yield_now().await;
    }
    None
}

/// The resident memory of this process, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
    value.expect("VmRSS in kB").parse().expect("a number")
}

/// Sends the requests `ids` on two runtimes, half of them on each.
fn send_on(runtimes: &[Runtime; 2], fetcher: &Fetcher, origin: &str, ids: Ids) -> Totals {
    let middle = ids.start + ids.len() as u32 / 2;
    let halves = [ids.start..middle, middle..ids.end];
    let mut totals = Totals::default();
    thread::scope(|scope| {
        let threads = runtimes.iter().zip(halves).map(|(runtime, half)| {
            let sending = send_all(fetcher.clone(), origin.to_owned(), half);
            scope.spawn(move || runtime.block_on(sending))
        });
        let threads: Vec<_> = threads.collect();
        for thread in threads {
            totals.add(&thread.join().expect("no panic"));
        }
    });
    totals
}

/// Runs both runtimes until `condition` holds. Without this, a current-thread runtime does not end
/// the tasks of what was dropped.
fn run_until(runtimes: &[Runtime; 2], condition: impl Fn() -> bool, state: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG_GUARD, "{}", state());
        for runtime in runtimes {
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    }
}

fn check_totals(totals: &Totals, fetcher: &Fetcher, requests: usize, count: usize) {
    let snapshot = fetcher.snapshot();
    let context = format!("{snapshot} {totals:?}");
    let progress = snapshot.progress();
    assert_eq!(totals.delivered + totals.dropped, count, "{context}");
    assert_eq!(
        (snapshot.open_batches(), progress.waiting().total()),
        (0, 0),
        "{context}"
    );
    assert!(
        (totals.delivered..=count).contains(&progress.completed()),
        "{context}"
    );
    // The bytes of cut bodies and of requests without a result may be counted too.
    let faults = count / 100;
    let max_bytes = totals.body_bytes + (totals.dropped + totals.cancelled + faults) * BODY_LENGTH;
    let body_bytes = progress.body_bytes() as usize;
    assert!(
        (totals.body_bytes..=max_bytes).contains(&body_bytes),
        "{body_bytes} {context}"
    );
    // A reset of a reused connection repeats a request within its attempt.
    let max_requests = totals.attempts + totals.dropped + totals.cancelled + faults;
    assert!(
        (totals.attempts..=max_requests).contains(&requests),
        "{requests} {context}"
    );
}

#[test]
fn results_bytes_descriptors_tasks_and_memory_add_up() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            results_bytes_descriptors_tasks_and_memory_add_up
        ));
    }
    let (short, long) = (REQUESTS.into(), LONG_REQUESTS.into());
    let count = settings::runs("FANOUT_TORTURE_SOAK", short, long) as u32;
    let server = Server::default();
    let origin = server.start();
    let (mut current_thread, mut multi_thread) =
        (Builder::new_current_thread(), Builder::new_multi_thread());
    let runtimes = [
        current_thread.enable_all().build().expect("a runtime"),
        multi_thread
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime"),
    ];
    let files_before = open_files();
    let fetcher = Fetcher::builder()
        .no_proxy()
        .retry(Retry::default().base_delay(Duration::from_millis(1)))
        .build()
        .expect("valid settings");
    let mut totals = send_on(&runtimes, &fetcher, &origin, 0..count / 10);
    let memory_before = resident_kib();
    totals.add(&send_on(&runtimes, &fetcher, &origin, count / 10..count));
    let growth = resident_kib().saturating_sub(memory_before);

    let in_flight = || fetcher.snapshot().progress().in_flight();
    run_until(
        &runtimes,
        || in_flight() == 0,
        || fetcher.snapshot().to_string(),
    );
    check_totals(
        &totals,
        &fetcher,
        server.requests.load(Relaxed),
        count as usize,
    );
    assert!(
        growth <= MAX_GROWTH_KIB,
        "{growth} KiB were added to {memory_before} KiB"
    );
    drop(fetcher);
    let tasks = || {
        runtimes
            .each_ref()
            .map(|runtime| runtime.metrics().num_alive_tasks())
    };
    run_until(
        &runtimes,
        || tasks() == [0, 0],
        || format!("{:?} tasks are left", tasks()),
    );
    let files = || format!("{} files are open of {files_before}", open_files());
    run_until(&runtimes, || open_files() <= files_before, files);
    println!("{totals:?}, {growth} KiB added to {memory_before} KiB");
}
