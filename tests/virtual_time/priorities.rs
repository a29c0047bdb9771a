//! Request priorities within a batch.

use fanout::{Mock, MockResponse, Priority, Request, RequestBuilder, Retry};

use super::{all_ok, builder, fetcher, ms, responding_after_ms};

fn request(host: &str, path: usize, priority: Priority) -> RequestBuilder {
    Request::get(format!("http://{host}.example/{path}")).priority(priority)
}

fn request_paths(mock: &Mock) -> Vec<String> {
    let requests = mock.requests();
    let path = |request: &fanout::MockRequest| request.uri().path()[1..].to_owned();
    requests.iter().map(path).collect()
}

#[tokio::test(start_paused = true)]
async fn higher_priority_starts_first_and_results_keep_input_order() {
    let mock = responding_after_ms(10);
    let inputs = (0..9).map(|index| {
        let priority = [Priority::Low, Priority::Normal, Priority::High][index % 3];
        request(["a", "b"][index % 2], index, priority)
    });
    let results = fetcher(&mock).batch(inputs).concurrency(1).gather().await;
    assert!(all_ok(&results));
    let levels: Vec<usize> = request_paths(&mock)
        .iter()
        .map(|path| path.parse::<usize>().unwrap() % 3)
        .collect();
    // All inputs are submitted before the first request starts.
    assert_eq!(levels, [2, 2, 2, 1, 1, 1, 0, 0, 0]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().url().path(), format!("/{index}"));
    }
}

#[tokio::test(start_paused = true)]
async fn retry_and_redirect_keep_priority() {
    let mock = Mock::new()
        .on("http://a.example/0", MockResponse::status(500).delay(ms(1)))
        .then(
            MockResponse::status(302)
                .header("location", "http://b.example/9")
                .delay(ms(1)),
        )
        .fallback(MockResponse::text("x").delay(ms(1)));
    let retry = Retry::default().base_delay(ms(0));
    let fetcher = builder(&mock).retry(retry).build().unwrap();
    let high_priority = request("a", 0, Priority::High);
    let normal_priority = (1..4).map(|index| request("a", index, Priority::Normal));
    let inputs = std::iter::once(high_priority).chain(normal_priority);
    assert!(all_ok(&fetcher.batch(inputs).concurrency(1).gather().await));
    assert_eq!(request_paths(&mock), ["0", "0", "9", "1", "2", "3"]);
}
