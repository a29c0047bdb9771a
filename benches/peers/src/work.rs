//! The URLs to fetch, and the results.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, USER_AGENT};
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, Runtime};

use crate::usage::{Used, peak};

/// The headers that fanout sends by default besides `Host`. The other clients send them too.
pub const HEADERS: [(HeaderName, &str); 3] = [
    (USER_AGENT, "bench/1.0"),
    (ACCEPT, "*/*"),
    (ACCEPT_ENCODING, "gzip, deflate, br"),
];

#[derive(Clone)]
pub struct Work {
    pub client: String,
    pub keep: bool,
    /// Whether to use HTTP/2 without TLS, which is not negotiated.
    pub prior_knowledge: bool,
    pub in_flight: usize,
    pub requests: usize,
    pub certificate: Vec<u8>,
    hosts: usize,
    scheme: &'static str,
    port_and_path: String,
    current_thread: bool,
}

impl Work {
    pub fn from_args() -> Result<Self, String> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [
            client,
            runtime,
            keep,
            protocol,
            in_flight,
            requests,
            hosts,
            path,
            certificate,
        ] = <[String; 9]>::try_from(args)
            .map_err(|args| format!("nine arguments, not {args:?}"))?;
        let number = |text: &str| {
            text.parse::<usize>()
                .map_err(|error| format!("{text}: {error}"))
        };
        let scheme = match protocol.as_str() {
            "h1" | "h2c" => "http",
            "tls" | "h2" => "https",
            other => return Err(format!("there is no protocol {other:?}")),
        };
        Ok(Self {
            client,
            keep: keep == "kept",
            prior_knowledge: protocol == "h2c",
            in_flight: number(&in_flight)?,
            requests: number(&requests)?,
            certificate: std::fs::read(&certificate)
                .map_err(|error| format!("{certificate}: {error}"))?,
            hosts: number(&hosts)?,
            scheme,
            port_and_path: path,
            current_thread: runtime == "current-thread",
        })
    }

    pub fn runtime(&self) -> Runtime {
        let mut builder = if self.current_thread {
            Builder::new_current_thread()
        } else {
            Builder::new_multi_thread()
        };
        builder.enable_all().build().expect("a runtime")
    }

    /// Returns the URLs, alternating between the hosts.
    pub fn urls(&self) -> impl Iterator<Item = String> + Send + 'static {
        let Self {
            hosts,
            scheme,
            requests,
            ..
        } = *self;
        let port_and_path = self.port_and_path.clone();
        (0..requests).map(move |n| {
            let host = n % hosts;
            format!(
                "{scheme}://127.0.{}.{}:{port_and_path}",
                host / 250,
                host % 250 + 1
            )
        })
    }
}

/// The parts of a response that a user would keep.
pub type Answer = (StatusCode, HeaderMap, Bytes);

/// The results, kept or dropped as they complete.
pub struct Tally<R> {
    kept: Option<Vec<R>>,
    good: usize,
    bytes: usize,
}

impl<R> Tally<R> {
    pub fn new(work: &Work) -> Self {
        Self {
            kept: work.keep.then(Vec::new),
            good: 0,
            bytes: 0,
        }
    }

    pub fn add(&mut self, result: R, good: bool, bytes: usize) {
        self.good += usize::from(good);
        self.bytes += bytes;
        if let Some(kept) = &mut self.kept {
            kept.push(result);
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.good += other.good;
        self.bytes += other.bytes;
        if let (Some(kept), Some(more)) = (&mut self.kept, other.kept) {
            kept.extend(more);
        }
    }
}

impl Tally<Answer> {
    pub fn add_answer(&mut self, answer: Answer) {
        let (good, bytes) = (answer.0 == StatusCode::OK, answer.2.len());
        self.add(answer, good, bytes);
    }
}

/// Reports the cost while the results still exist.
pub trait Report: Send {
    fn report(&self, used: &Used) -> String;
}

impl<R: Send> Report for Tally<R> {
    fn report(&self, used: &Used) -> String {
        format!(
            r#"{{"good": {}, "bytes": {}, "user": {}, "system": {}, "wall": {}, "peak": {}}}"#,
            self.good,
            self.bytes,
            used.user.as_secs_f64(),
            used.system.as_secs_f64(),
            used.wall.as_secs_f64(),
            peak(),
        )
    }
}
