//! Which requests of a batch go first.

use fanout::{Mock, MockResponse, Priority, Request, RequestBuilder, Retry};

use super::{all_ok, answers_in, fetcher, ms, over};

fn request(host: &str, path: usize, priority: Priority) -> RequestBuilder {
    Request::get(format!("http://{host}.example/{path}")).priority(priority)
}

fn paths(mock: &Mock) -> Vec<String> {
    let requests = mock.requests();
    let path = |request: &fanout::MockRequest| request.uri().path()[1..].to_owned();
    requests.iter().map(path).collect()
}

#[tokio::test(start_paused = true)]
async fn higher_ones_of_the_window_start_first_and_every_result_keeps_its_place() {
    let mock = answers_in(10);
    let inputs = (0..9).map(|index| {
        let priority = [Priority::Low, Priority::Normal, Priority::High][index % 3];
        request(["a", "b"][index % 2], index, priority)
    });
    let results = fetcher(&mock).batch(inputs).concurrency(1).gather().await;
    assert!(all_ok(&results));
    let levels: Vec<usize> = paths(&mock)
        .iter()
        .map(|path| path.parse::<usize>().unwrap() % 3)
        .collect();
    // The first chunk is handed in before the first of it starts.
    assert_eq!(levels, [2, 2, 2, 1, 1, 1, 0, 0, 0]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().url().path(), format!("/{index}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_and_a_redirect_keep_it() {
    let mock = Mock::new()
        .on("http://a.example/0", MockResponse::status(500).delay(ms(1)))
        .then(
            MockResponse::status(302)
                .header("location", "http://b.example/9")
                .delay(ms(1)),
        )
        .fallback(MockResponse::text("x").delay(ms(1)));
    let retry = Retry::default().base_delay(ms(0));
    let fetcher = over(&mock).retry(retry).build().unwrap();
    let high = request("a", 0, Priority::High);
    let rest = (1..4).map(|index| request("a", index, Priority::Normal));
    let inputs = std::iter::once(high).chain(rest);
    assert!(all_ok(&fetcher.batch(inputs).concurrency(1).gather().await));
    assert_eq!(paths(&mock), ["0", "0", "9", "1", "2", "3"]);
}
