//! Cancelling what of a batch is for one host.

use fanout::{ErrorKind, Mock, MockResponse};
use tokio::time::sleep;

use super::batch_control::{Ending, counted};
use super::{answers_in, fetcher, ms, over, urls};

#[tokio::test(start_paused = true)]
async fn cancelling_a_host_touches_no_other() {
    let inputs = || {
        let both = urls("a", 50).zip(urls("b", 50));
        both.flat_map(|(a, b)| [a, b]).collect::<Vec<_>>()
    };
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        let mock = answers_in(100);
        let batch = fetcher(&mock)
            .batch(inputs())
            .concurrency(10)
            .look_ahead(40);
        let handle = batch.handle();
        let order = async {
            sleep(ms(150)).await;
            assert_eq!(
                handle.cancel_host("a.example").unwrap_err().kind(),
                ErrorKind::InvalidRequest
            );
            handle.cancel_host("http://nobody.example").unwrap();
            handle.cancel_host("http://a.example:80/whatever").unwrap();
        };
        let results = tokio::join!(ending.of(batch), order).0;
        // Five of each were done, and five of each on the wire. Those that were not taken yet are answered, too.
        assert_eq!(counted(&results), (5 + 50, 5, 40), "{ending:?}");
        assert_eq!(mock.request_count_to("http://a.example/*"), 10);
        assert_eq!(mock.request_count_to("http://b.example/*"), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn where_limit_by_says_what_a_host_is_it_is_cancelled_by_that() {
    let mock = answers_in(100);
    let fetcher = over(&mock)
        .limit_by(|request| {
            let is_even = request.url_str().ends_with(['0', '2', '4', '6', '8']);
            if is_even { "even" } else { "odd" }.to_owned()
        })
        .build()
        .unwrap();
    let batch = fetcher.batch(urls("a", 10));
    batch.handle().cancel_host("even").unwrap();
    assert_eq!(counted(&batch.gather().await), (5, 0, 5));
}

#[tokio::test(start_paused = true)]
async fn what_is_led_to_a_cancelled_host_is_cancelled_there() {
    let to_b = MockResponse::status(302).header("location", "http://b.example/");
    let mock = Mock::new()
        .on("http://a.example/0", to_b.delay(ms(100)))
        .fallback(MockResponse::text("x").delay(ms(200)));
    let batch = fetcher(&mock).batch(urls("a", 2));
    let handle = batch.handle();
    let order = async {
        sleep(ms(50)).await;
        handle.cancel_host("http://b.example").unwrap();
    };
    let results = tokio::join!(batch.gather(), order).0;
    let led = results[0].as_ref().unwrap_err();
    assert_eq!((led.kind(), led.maybe_sent()), (ErrorKind::Cancelled, true));
    assert!(results[1].is_ok());
    assert_eq!(mock.request_count_to("http://b.example/*"), 0);
}
