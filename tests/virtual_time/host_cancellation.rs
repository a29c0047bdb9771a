//! `BatchHandle::cancel_host`: cancels a batch's requests to one host.

use fanout::{ErrorKind, Mock, MockResponse};
use tokio::time::sleep;

use super::batch_control::{Ending, count_outcomes};
use super::{builder, fetcher, ms, responding_after_ms, urls};

#[tokio::test(start_paused = true)]
async fn cancel_host_affects_only_that_host() {
    let inputs = || {
        let both = urls("a", 50).zip(urls("b", 50));
        both.flat_map(|(a, b)| [a, b]).collect::<Vec<_>>()
    };
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        let mock = responding_after_ms(100);
        let batch = fetcher(&mock)
            .batch(inputs())
            .concurrency(10)
            .look_ahead(40);
        let handle = batch.handle();
        let command = async {
            sleep(ms(150)).await;
            assert_eq!(
                handle.cancel_host("a.example").unwrap_err().kind(),
                ErrorKind::InvalidRequest
            );
            handle.cancel_host("http://unused.example").unwrap();
            handle.cancel_host("http://a.example:80/path").unwrap();
        };
        let results = tokio::join!(ending.run(batch), command).0;
        // Each host has five finished requests and five on the wire. Inputs not yet pulled get a
        // result too.
        assert_eq!(count_outcomes(&results), (5 + 50, 5, 40), "{ending:?}");
        assert_eq!(mock.request_count_to("http://a.example/*"), 10);
        assert_eq!(mock.request_count_to("http://b.example/*"), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_host_accepts_limit_by_key() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock)
        .limit_by(|request| {
            let is_even = request.url_str().ends_with(['0', '2', '4', '6', '8']);
            if is_even { "even" } else { "odd" }.to_owned()
        })
        .build()
        .unwrap();
    let batch = fetcher.batch(urls("a", 10));
    batch.handle().cancel_host("even").unwrap();
    assert_eq!(count_outcomes(&batch.gather().await), (5, 0, 5));
}

#[tokio::test(start_paused = true)]
async fn redirect_to_cancelled_host_is_cancelled() {
    let to_b = MockResponse::status(302).header("location", "http://b.example/");
    let mock = Mock::new()
        .on("http://a.example/0", to_b.delay(ms(100)))
        .fallback(MockResponse::text("x").delay(ms(200)));
    let batch = fetcher(&mock).batch(urls("a", 2));
    let handle = batch.handle();
    let command = async {
        sleep(ms(50)).await;
        handle.cancel_host("http://b.example").unwrap();
    };
    let results = tokio::join!(batch.gather(), command).0;
    let redirect_error = results[0].as_ref().unwrap_err();
    assert_eq!(
        (redirect_error.kind(), redirect_error.maybe_sent()),
        (ErrorKind::Cancelled, true)
    );
    assert!(results[1].is_ok());
    assert_eq!(mock.request_count_to("http://b.example/*"), 0);
}
