//! A metered API: it limits the requests and the tokens per period, and rejects others with 429.
//!
//! `POST /v1/completions` takes `{"prompt": …, "max_tokens": …}`. A prompt costs a token per four
//! characters. The completion costs `max_tokens`, less the length of the prompt modulo half of
//! that. The response states the cost in `usage.total_tokens`. `GET /report` returns the
//! [`MeterReport`].
#![allow(dead_code, unreachable_pub)]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// How the API counts what a period admits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Metering {
    /// Windows that follow each other on the clock of the server.
    FixedWindows,
    /// Every window of one period.
    SlidingWindow,
    /// A bucket that is full at the start, and refilled continuously.
    TokenBucket,
}

pub const ALL_METERINGS: [Metering; 3] = [
    Metering::FixedWindows,
    Metering::SlidingWindow,
    Metering::TokenBucket,
];

/// The limits of the API.
#[derive(Copy, Clone, Debug)]
pub struct MeterLimits {
    pub requests: u64,
    pub tokens: u64,
    pub period: Duration,
}

/// The counts of the requests that the API has received so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MeterReport {
    /// All requests, with the rejected ones.
    pub requests: u64,
    /// Responses with the status 429.
    pub rejections: u64,
    /// The tokens of the accepted requests.
    pub tokens: u64,
    /// The accepted requests and their tokens in each fixed window.
    pub windows: Vec<(u64, u64)>,
    /// The most requests accepted in any time of one period.
    pub peak_requests: u64,
    /// The most tokens accepted in any time of one period.
    pub peak_tokens: u64,
}

/// A handle to the API. Clones share the meter.
#[derive(Clone)]
pub struct MeteredApi {
    meter: Arc<Mutex<Meter>>,
    latency: Duration,
    has_limit_headers: bool,
}

impl MeteredApi {
    pub fn new(metering: Metering, limits: MeterLimits) -> Self {
        Self {
            meter: Arc::new(Mutex::new(Meter::new(metering, limits))),
            latency: Duration::ZERO,
            has_limit_headers: false,
        }
    }

    /// Sets the time from the decision on a request to its response. Default: 0 s.
    pub fn latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// Adds `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` to each response.
    pub fn with_limit_headers(self) -> Self {
        Self {
            has_limit_headers: true,
            ..self
        }
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/completions", post(complete))
            .route("/report", get(report))
            .with_state(self.clone())
    }

    /// Serves the API on a free port of 127.0.0.1 and returns its origin.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    pub fn report(&self) -> MeterReport {
        self.meter().report()
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().expect("no panic under the lock")
    }
}

/// The body of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Prompt {
    pub prompt: String,
    pub max_tokens: u64,
}

impl Prompt {
    /// A prompt whose request costs `tokens`.
    pub fn costing(tokens: u64) -> Self {
        Self {
            prompt: String::new(),
            max_tokens: tokens,
        }
    }
}

/// The body of a response.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Completion {
    pub usage: Usage,
}

/// The tokens of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

#[derive(Serialize)]
struct Failure {
    error: FailureDetail,
}

#[derive(Serialize)]
struct FailureDetail {
    code: &'static str,
    message: &'static str,
}

async fn complete(State(api): State<MeteredApi>, Json(prompt): Json<Prompt>) -> Response {
    let characters = prompt.prompt.chars().count() as u64;
    let prompt_tokens = characters.div_ceil(4);
    let completion_tokens = prompt.max_tokens - characters % (prompt.max_tokens / 2).max(1);
    let total_tokens = prompt_tokens + completion_tokens;
    let (accepted, headers) = {
        let mut meter = api.meter();
        let now = meter.started.elapsed();
        let accepted = meter.accept(total_tokens, now);
        let mut headers = HeaderMap::new();
        if api.has_limit_headers {
            headers = meter.limit_headers(now);
        }
        (accepted, headers)
    };
    sleep(api.latency).await;
    match accepted {
        Ok(()) => {
            let usage = Usage {
                prompt_tokens,
                completion_tokens,
                total_tokens,
            };
            (headers, Json(Completion { usage })).into_response()
        }
        Err(wait) => {
            let error = FailureDetail {
                code: "429",
                message: "Rate limit reached",
            };
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let retry_after = [("retry-after", seconds.to_string())];
            let status = StatusCode::TOO_MANY_REQUESTS;
            (status, headers, retry_after, Json(Failure { error })).into_response()
        }
    }
}

async fn report(State(api): State<MeteredApi>) -> Json<MeterReport> {
    Json(api.report())
}

/// Counts what was accepted.
struct Meter {
    metering: Metering,
    limits: MeterLimits,
    started: Instant,
    received: u64,
    rejections: u64,
    /// The accepted requests: the time since the start, and the tokens.
    accepted: Vec<(Duration, u64)>,
    /// The requests and the tokens in the token buckets at the time of the last one.
    buckets: (f64, f64),
    buckets_at: Duration,
}

impl Meter {
    fn new(metering: Metering, limits: MeterLimits) -> Self {
        Self {
            metering,
            limits,
            started: Instant::now(),
            received: 0,
            rejections: 0,
            accepted: Vec::new(),
            buckets: (limits.requests as f64, limits.tokens as f64),
            buckets_at: Duration::ZERO,
        }
    }

    /// Accepts a request, or returns how long it has to wait.
    fn accept(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        self.received += 1;
        let (requests_left, tokens_left) = self.remaining(now);
        if requests_left < 1.0 || tokens_left < tokens as f64 {
            self.rejections += 1;
            return Err(self.wait_for(tokens, now));
        }
        self.accepted.push((now, tokens));
        self.buckets = (requests_left - 1.0, tokens_left - tokens as f64);
        self.buckets_at = now;
        Ok(())
    }

    /// Returns the requests and the tokens that are left.
    fn remaining(&self, now: Duration) -> (f64, f64) {
        let (requests, tokens) = (self.limits.requests as f64, self.limits.tokens as f64);
        let window_start = match self.metering {
            Metering::TokenBucket => {
                let periods =
                    (now - self.buckets_at).as_secs_f64() / self.limits.period.as_secs_f64();
                let refilled = |level: f64, limit: f64| (level + limit * periods).min(limit);
                let (in_requests, in_tokens) = self.buckets;
                return (refilled(in_requests, requests), refilled(in_tokens, tokens));
            }
            Metering::FixedWindows => Some(self.window_start(now)),
            // Requests that are exactly one period old no longer count.
            Metering::SlidingWindow => {
                let start = now.checked_sub(self.limits.period);
                start.map(|start| start + Duration::from_nanos(1))
            }
        };
        let mut left = (requests, tokens);
        for (at, cost) in self.accepted.iter().rev() {
            if window_start.is_some_and(|start| *at < start) {
                break;
            }
            left = (left.0 - 1.0, left.1 - *cost as f64);
        }
        left
    }

    /// Returns how long a request must wait if nothing else is accepted.
    fn wait_for(&self, tokens: u64, now: Duration) -> Duration {
        let MeterLimits {
            requests: max_requests,
            tokens: max_tokens,
            period,
        } = self.limits;
        match self.metering {
            Metering::FixedWindows => self.window_start(now) + period - now,
            Metering::SlidingWindow => {
                let (mut requests, mut used_tokens) = (1, tokens);
                for (at, cost) in self.accepted.iter().rev() {
                    requests += 1;
                    used_tokens += cost;
                    if requests > max_requests || used_tokens > max_tokens {
                        return (*at + period).saturating_sub(now);
                    }
                }
                Duration::ZERO
            }
            Metering::TokenBucket => {
                let (requests_left, tokens_left) = self.remaining(now);
                let of_requests = (1.0 - requests_left) / max_requests as f64;
                let of_tokens = (tokens as f64 - tokens_left) / max_tokens as f64;
                period.mul_f64(of_requests.max(of_tokens).max(0.0))
            }
        }
    }

    fn window_start(&self, now: Duration) -> Duration {
        let into_window = now.as_nanos() % self.limits.period.as_nanos();
        now - Duration::from_nanos(into_window as u64)
    }

    /// Returns the time until the limits are fully available again, if nothing else is accepted.
    fn reset_after(&self, now: Duration) -> Duration {
        match self.metering {
            Metering::FixedWindows => self.window_start(now) + self.limits.period - now,
            Metering::SlidingWindow => {
                let last = self.accepted.last().map_or(now, |(at, _)| *at);
                (last + self.limits.period).saturating_sub(now)
            }
            Metering::TokenBucket => {
                let (requests, tokens) = self.remaining(now);
                let full_requests = 1.0 - requests / self.limits.requests as f64;
                let full_tokens = 1.0 - tokens / self.limits.tokens as f64;
                self.limits
                    .period
                    .mul_f64(full_requests.max(full_tokens).max(0.0))
            }
        }
    }

    /// The headers of OpenAI.
    fn limit_headers(&self, now: Duration) -> HeaderMap {
        let (requests, tokens) = self.remaining(now);
        let mut reset = String::new();
        let millis = self.reset_after(now).as_millis();
        write!(reset, "{millis}ms").expect("a string grows");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (
                "x-ratelimit-limit-requests",
                self.limits.requests.to_string(),
            ),
            ("x-ratelimit-limit-tokens", self.limits.tokens.to_string()),
            (
                "x-ratelimit-remaining-requests",
                requests.floor().to_string(),
            ),
            ("x-ratelimit-remaining-tokens", tokens.floor().to_string()),
            ("x-ratelimit-reset-requests", reset.clone()),
            ("x-ratelimit-reset-tokens", reset),
        ] {
            let value = HeaderValue::from_str(&value).expect("digits");
            headers.insert(HeaderName::from_static(name), value);
        }
        headers
    }

    fn report(&self) -> MeterReport {
        let period = self.limits.period;
        let mut report = MeterReport {
            requests: self.received,
            rejections: self.rejections,
            tokens: self.accepted.iter().map(|(_, tokens)| tokens).sum(),
            ..MeterReport::default()
        };
        for (n, (at, tokens)) in self.accepted.iter().enumerate() {
            let number = (at.as_nanos() / period.as_nanos()) as usize;
            report
                .windows
                .resize(report.windows.len().max(number + 1), (0, 0));
            let window = &mut report.windows[number];
            *window = (window.0 + 1, window.1 + tokens);
            let later = &self.accepted[n..];
            let in_period = &later[..later.partition_point(|(later, _)| *later < *at + period)];
            let tokens_in_period = in_period.iter().map(|(_, tokens)| tokens).sum();
            report.peak_requests = report.peak_requests.max(in_period.len() as u64);
            report.peak_tokens = report.peak_tokens.max(tokens_in_period);
        }
        report
    }
}
