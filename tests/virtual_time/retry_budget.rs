//! What bounds the retries of a host, and what costs none; and a user's own word on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fanout::{
    Body, Error, ErrorKind, Mock, MockResponse, Request, Retry, RetryBudget, RetryDecision,
};
use tokio::time::Instant;

use super::{fetcher, ms, over, secs, urls};

const URL: &str = "http://a.example/";

/// No wait, so that nothing comes by itself.
fn at_once() -> Retry {
    Retry::default()
        .base_delay(ms(0))
        .throttled_base_delay(ms(0))
}

#[tokio::test(start_paused = true)]
async fn a_host_that_only_fails_is_sent_a_fifth_more_and_a_hundred() {
    let mock = Mock::new().fallback(500);
    let fetcher = over(&mock).retry(at_once()).build().unwrap();
    let results = fetcher.gather(urls("a", 1_000)).await;
    // The share of the first hundred finds it full.
    assert_eq!(mock.request_count(), 1_000 + 100 + 180);
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap().status() == 500)
    );
    let attempts: usize = results
        .iter()
        .map(|result| result.as_ref().unwrap().attempts().len())
        .sum();
    assert_eq!(attempts, 1_280);
}

#[tokio::test(start_paused = true)]
async fn batches_and_fetches_share_it_and_hosts_do_not() {
    let mock = Mock::new().fallback(500);
    let small = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(1);
    let fetcher = over(&mock)
        .retry(at_once())
        .retry_budget(small)
        .build()
        .unwrap();
    fetcher.gather(urls("a", 3)).await;
    fetcher
        .batch(urls("a", 3))
        .retry(at_once().max_retries(9))
        .gather()
        .await;
    fetcher.fetch(URL).await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10);
    fetcher.fetch("http://b.example/").await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10 + 3);
    tokio::time::sleep(secs(2)).await;
    fetcher.fetch(URL).await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10 + 3 + 3);
}

#[tokio::test(start_paused = true)]
async fn without_it_each_request_has_all_its_retries() {
    let mock = Mock::new().fallback(500);
    let fetcher = over(&mock)
        .retry(at_once())
        .retry_budget(RetryBudget::off());
    fetcher.build().unwrap().gather(urls("a", 500)).await;
    assert_eq!(mock.request_count(), 1_500);
}

#[tokio::test(start_paused = true)]
async fn a_handler_reads_the_answer_that_the_budget_makes_the_last() {
    let mock = Mock::new().fallback(MockResponse::status(500).body("why"));
    let none = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = over(&mock)
        .retry(at_once())
        .retry_budget(none)
        .build()
        .unwrap();
    let mut results = fetcher
        .batch(urls("a", 20))
        .read_with(|mut body| async move {
            let mut text = Vec::new();
            while let Some(chunk) = body.next().await {
                text.extend_from_slice(&chunk?);
            }
            Ok::<_, Error>(text)
        })
        .as_completed();
    let mut count = 0;
    while let Some(completed) = results.next().await {
        assert_eq!(completed.result.unwrap(), b"why");
        count += 1;
    }
    assert_eq!((count, mock.request_count()), (20, 30));
}

async fn attempts(answer: impl Into<MockResponse>, retry: Retry) -> (usize, Duration) {
    let mock = Mock::new().on(URL, answer);
    let started = Instant::now();
    let fetcher = over(&mock).retry(retry).build().unwrap();
    let _ = fetcher.fetch(URL).await;
    (mock.request_count(), started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_costs_no_retry_up_to_a_bound() {
    let later = |status| MockResponse::status(status).header("retry-after", "1");
    assert_eq!(attempts(later(429), at_once()).await, (13, secs(12)));
    assert_eq!(attempts(later(503), at_once()).await, (13, secs(12)));
    assert_eq!(attempts(429, at_once()).await.0, 13);
    assert_eq!(attempts(503, at_once()).await.0, 3);
    assert_eq!(attempts(later(500), at_once()).await.0, 3);
    assert_eq!(
        attempts(429, at_once().max_throttled_attempts(4)).await.0,
        7
    );
    assert_eq!(
        attempts(429, at_once().max_throttled_attempts(0)).await.0,
        3
    );
    assert_eq!(attempts(429, at_once().max_retries(0)).await.0, 1);
    assert_eq!(attempts(429, Retry::off()).await.0, 1);
    assert_eq!(
        attempts(
            MockResponse::status(429).header("retry-after", "301"),
            at_once()
        )
        .await
        .0,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_takes_nothing_out_of_the_budget() {
    let mock = Mock::new()
        .on(
            "http://a.example/busy",
            MockResponse::status(429).header("retry-after", "1"),
        )
        .fallback(500);
    let none = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = over(&mock)
        .retry(at_once())
        .retry_budget(none)
        .build()
        .unwrap();
    fetcher.gather(["http://a.example/busy"; 1]).await;
    assert_eq!(
        mock.request_count(),
        13,
        "ten for nothing, two that are paid"
    );
    fetcher.gather(urls("a", 5)).await;
    assert_eq!(mock.request_count(), 13 + 5 + 8, "which leaves eight");
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_what_is_put_off_grows_with_each() {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let (_, took) = attempts(429, Retry::default()).await;
        // 1, 2, 4, 8 and 16 s, then 20 s seven times over.
        assert!(took <= secs(31 + 7 * 20) + ms(20));
        longest = longest.max(took);
    }
    assert!(
        longest > secs(30),
        "with a wait that did not grow it were 12 s at most"
    );
}

#[tokio::test(start_paused = true)]
async fn a_classifier_adds_retries_and_takes_them_away() {
    let retry = at_once().classify(|outcome, usual| match outcome {
        Ok(response) if response.status() == 404 => RetryDecision::Retry,
        Ok(response) if response.status() == 503 => RetryDecision::Done,
        Err(error) if error.kind() == ErrorKind::Protocol => RetryDecision::RetryAfter(secs(7)),
        _ => usual,
    });
    assert_eq!(attempts(404, retry.clone()).await, (3, secs(0)));
    assert_eq!(attempts(503, retry.clone()).await.0, 1);
    assert_eq!(attempts(500, retry.clone()).await.0, 3);
    assert_eq!(attempts(200, retry.clone()).await.0, 1);
    assert_eq!(
        attempts(ErrorKind::Protocol, retry.clone()).await,
        (3, secs(14))
    );
    assert_eq!(attempts(404, retry.clone().max_retries(0)).await.0, 1);
    assert_eq!(retry, retry.clone());
    assert_ne!(retry, at_once());
}

#[tokio::test(start_paused = true)]
async fn a_classifier_is_told_the_usual_and_where_and_is_asked_once_an_attempt() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let retry = at_once().classify(move |outcome, usual| {
        count.fetch_add(1, Relaxed);
        let expected = match outcome {
            Ok(response) => {
                assert_eq!(response.url().as_str(), URL);
                response.status() == 500
            }
            Err(error) => {
                assert_eq!(error.url(), Some(URL));
                true
            }
        };
        assert_eq!(usual == RetryDecision::Retry, expected);
        usual
    });
    let mock = Mock::new().on(URL, 500).then(ErrorKind::Closed).then(200);
    let handled = over(&mock).retry(retry.clone()).build().unwrap();
    assert_eq!(handled.fetch(URL).await.unwrap().status(), 200);
    assert_eq!(asked.load(Relaxed), 3);
    let mock = Mock::new().on(URL, 500).then(ErrorKind::Closed).then(200);
    let handled = over(&mock).retry(retry).build().unwrap();
    let read = handled
        .batch([URL])
        .read_with(|_| async { Ok::<_, Error>(7) });
    assert_eq!(*read.gather().await[0].as_ref().unwrap(), 7);
    assert_eq!(asked.load(Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_classifiers_word_goes_for_a_post_but_not_for_a_body_that_is_spent() {
    let always = at_once().classify(|_, _| RetryDecision::Retry);
    let post = |retry: &Retry| {
        let mock = Mock::new().on(URL, 503);
        (over(&mock).retry(retry.clone()).build().unwrap(), mock)
    };
    let (fetcher, mock) = post(&always);
    fetcher.fetch(Request::post(URL).body("x")).await.unwrap();
    assert_eq!(mock.request_count(), 3);
    let (fetcher, mock) = post(&always);
    let once = once_only();
    fetcher
        .fetch(Request::post(URL).body(Body::stream(once)))
        .await
        .unwrap();
    assert_eq!(mock.request_count(), 1);
}

/// A body of one piece, that is sent once.
fn once_only()
-> impl futures_core::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static {
    struct Once(bool);
    impl futures_core::Stream for Once {
        type Item = Result<bytes::Bytes, std::io::Error>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            let piece = (!std::mem::replace(&mut self.0, true)).then(|| Ok("x".into()));
            std::task::Poll::Ready(piece)
        }
    }
    Once(false)
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_ends_its_item_and_no_other() {
    let retry = at_once().classify(|outcome, usual| match outcome {
        Ok(response) if response.status() == 418 => panic!("a teapot"),
        _ => usual,
    });
    let mock = Mock::new().on(URL, 418).fallback(200);
    let fetcher = over(&mock).retry(retry).build().unwrap();
    let results = fetcher
        .gather(["http://a.example/1", URL, "http://a.example/2"])
        .await;
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Panicked);
    assert!(results[0].is_ok() && results[2].is_ok());
    let handled = fetcher
        .batch([URL])
        .read_with(|_| async { Ok::<_, Error>(7) });
    let error = handled.gather().await.remove(0).unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Panicked, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_classifier_is_not_asked_what_ended_otherwise() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let retry = Retry::default().classify(move |_, _| {
        count.fetch_add(1, Relaxed);
        RetryDecision::Retry
    });
    let mock = Mock::new().fallback(MockResponse::hang());
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 5)).retry(retry).deadline(secs(1));
    for result in batch.gather().await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Deadline);
    }
    assert_eq!(asked.load(Relaxed), 0);
}
