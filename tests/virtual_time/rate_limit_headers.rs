//! A server that enforces a limit, and says so.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::get;
use fanout::{Fetcher, FetcherBuilder, Retry};
use tokio::time::{Instant, sleep};

use super::{ms, secs, urls};

const QUOTA: u64 = 100;
const WINDOW: u64 = 10;

/// How it says what it allows, of what remains and the seconds to the reset.
type Says = fn(u64, u64) -> Vec<(&'static str, String)>;

const FORMS: [Says; 3] = [
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
    // By the server's own clock.
    |remaining, reset| {
        let at = "Sun, 09 Sep 2001 01:46:40 GMT";
        vec![
            ("date", at.into()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", (1_000_000_000 + reset).to_string()),
        ]
    },
];

/// A hundred in each window of ten seconds, and 429 for more; each takes 50 ms.
fn limited(says: Says, refused: &Arc<AtomicUsize>) -> FetcherBuilder {
    let began = Instant::now();
    let window = Arc::new(Mutex::new((0, 0)));
    let refused = Arc::clone(refused);
    let answer = move || {
        let at = began.elapsed();
        let number = at.as_secs() / WINDOW;
        let may = {
            let mut window = window.lock().unwrap();
            if window.0 < number {
                *window = (number, 0);
            }
            let may = window.1 < QUOTA;
            window.1 += u64::from(may);
            (may, QUOTA - window.1)
        };
        let reset = (secs((number + 1) * WINDOW) - at).as_millis() as u64;
        let refused = Arc::clone(&refused);
        async move {
            sleep(ms(50)).await;
            let mut headers = HeaderMap::new();
            for (name, value) in says(may.1, reset.div_ceil(1000)) {
                headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            if may.0 {
                return (StatusCode::OK, headers);
            }
            refused.fetch_add(1, Relaxed);
            (StatusCode::TOO_MANY_REQUESTS, headers)
        }
    };
    Fetcher::builder().transport(Router::new().fallback(get(answer)))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_what_it_allows_never_has_to_refuse() {
    for says in FORMS {
        let refused = Arc::new(AtomicUsize::new(0));
        let fetcher = limited(says, &refused)
            .concurrency_per_host(20)
            .retry(Retry::off())
            .build()
            .unwrap();
        let began = Instant::now();
        for result in fetcher.gather(urls("a", 500)).await {
            assert_eq!(result.unwrap().status(), 200);
        }
        assert_eq!(refused.load(Relaxed), 0);
        // Five windows are full, and the last of the five is where it ends.
        let took = began.elapsed();
        assert!((secs(40)..secs(51)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_allows_is_had_at_once() {
    let refused = Arc::new(AtomicUsize::new(0));
    let fetcher = limited(FORMS[0], &refused)
        .concurrency_per_host(20)
        .build()
        .unwrap();
    let began = Instant::now();
    fetcher.gather(urls("a", 100)).await;
    assert_eq!((began.elapsed(), refused.load(Relaxed)), (ms(250), 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_may_be_passed_over() {
    let refused = Arc::new(AtomicUsize::new(0));
    let fetcher = limited(FORMS[0], &refused)
        .respect_rate_limit_headers(false)
        .retry(Retry::off())
        .build()
        .unwrap();
    let began = Instant::now();
    fetcher.gather(urls("a", 300)).await;
    assert_eq!((began.elapsed(), refused.load(Relaxed)), (ms(150), 200));
}
