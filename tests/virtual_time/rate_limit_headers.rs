//! A server that enforces a rate limit and reports it in response headers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::get;
use fanout::{Fetcher, FetcherBuilder, Retry};
use tokio::time::{Instant, sleep};

use super::{ms, secs, urls};

const QUOTA: u64 = 100;
const WINDOW_SECS: u64 = 10;

/// A function that returns rate-limit headers for the remaining quota and the seconds until its
/// reset.
type RateLimitHeaders = fn(u64, u64) -> Vec<(&'static str, String)>;

const HEADER_FORMATS: [RateLimitHeaders; 3] = [
    |remaining, reset| {
        vec![
            ("ratelimit-policy", r#""default";q=100;w=10"#.into()),
            ("ratelimit", format!(r#""default";r={remaining};t={reset}"#)),
        ]
    },
    |remaining, reset| {
        vec![
            ("ratelimit-remaining", remaining.to_string()),
            ("ratelimit-reset", reset.to_string()),
        ]
    },
    // The reset is an absolute time on the server's clock.
    |remaining, reset| {
        let date = "Sun, 09 Sep 2001 01:46:40 GMT";
        vec![
            ("date", date.into()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", (1_000_000_000 + reset).to_string()),
        ]
    },
];

/// Returns a builder whose server accepts `QUOTA` requests per window of `WINDOW_SECS` seconds and
/// responds to any others with 429. Each response takes 50 ms.
fn builder_over_limited_server(
    headers_for: RateLimitHeaders,
    rejections: &Arc<AtomicUsize>,
) -> FetcherBuilder {
    let started = Instant::now();
    let window = Arc::new(Mutex::new((0, 0)));
    let rejections = Arc::clone(rejections);
    let handler = move || {
        let elapsed = started.elapsed();
        let number = elapsed.as_secs() / WINDOW_SECS;
        let (is_accepted, remaining) = {
            let mut window = window.lock().unwrap();
            if window.0 < number {
                *window = (number, 0);
            }
            let is_accepted = window.1 < QUOTA;
            window.1 += u64::from(is_accepted);
            (is_accepted, QUOTA - window.1)
        };
        let reset = (secs((number + 1) * WINDOW_SECS) - elapsed).as_millis() as u64;
        let rejections = Arc::clone(&rejections);
        async move {
            sleep(ms(50)).await;
            let mut headers = HeaderMap::new();
            for (name, value) in headers_for(remaining, reset.div_ceil(1000)) {
                headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            if is_accepted {
                return (StatusCode::OK, headers);
            }
            rejections.fetch_add(1, Relaxed);
            (StatusCode::TOO_MANY_REQUESTS, headers)
        }
    };
    Fetcher::builder().transport(Router::new().fallback(get(handler)))
}

#[tokio::test(start_paused = true)]
async fn rate_limit_headers_prevent_rejections() {
    for headers_for in HEADER_FORMATS {
        let rejections = Arc::new(AtomicUsize::new(0));
        let fetcher = builder_over_limited_server(headers_for, &rejections)
            .concurrency_per_host(20)
            .retry(Retry::off())
            .build()
            .unwrap();
        let started = Instant::now();
        for result in fetcher.gather(urls("a", 500)).await {
            assert_eq!(result.unwrap().status(), 200);
        }
        assert_eq!(rejections.load(Relaxed), 0);
        // The 500 requests fill five windows, so the batch ends in the fifth one.
        let elapsed = started.elapsed();
        assert!((secs(40)..secs(51)).contains(&elapsed), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn available_quota_is_used_without_delay() {
    let rejections = Arc::new(AtomicUsize::new(0));
    let fetcher = builder_over_limited_server(HEADER_FORMATS[0], &rejections)
        .concurrency_per_host(20)
        .build()
        .unwrap();
    let started = Instant::now();
    fetcher.gather(urls("a", 100)).await;
    assert_eq!((started.elapsed(), rejections.load(Relaxed)), (ms(250), 0));
}

#[tokio::test(start_paused = true)]
async fn rate_limit_headers_can_be_ignored() {
    let rejections = Arc::new(AtomicUsize::new(0));
    let fetcher = builder_over_limited_server(HEADER_FORMATS[0], &rejections)
        .respect_rate_limit_headers(false)
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    fetcher.gather(urls("a", 300)).await;
    assert_eq!(
        (started.elapsed(), rejections.load(Relaxed)),
        (ms(150), 200)
    );
}
