use fanout::{Fetcher, Rate, Response};

use crate::work::{Report, Tally, Work};

fn fetcher(work: &Work) -> Fetcher {
    let builder = Fetcher::builder().add_root_certificates(&work.certificate);
    let builder = if work.prior_knowledge {
        builder.http2_prior_knowledge()
    } else {
        builder
    };
    builder.build().expect("a Fetcher")
}

fn add(tally: &mut Tally<Response>, response: Response) {
    let (good, bytes) = (response.status() == 200, response.bytes().len());
    tally.add(response, good, bytes);
}

pub async fn gather(work: &Work) -> Box<dyn Report> {
    let results = fetcher(work)
        .batch(work.urls())
        .concurrency(work.in_flight)
        .gather()
        .await;
    let mut tally = Tally::new(work);
    for result in results {
        add(&mut tally, result.expect("an answer"));
    }
    Box::new(tally)
}

pub async fn as_completed(work: &Work) -> Box<dyn Report> {
    let fetcher = fetcher(work);
    let mut done = fetcher
        .batch(work.urls())
        .concurrency(work.in_flight)
        .as_completed();
    let mut tally = Tally::new(work);
    while let Some(completed) = done.next().await {
        add(&mut tally, completed.result.expect("an answer"));
    }
    Box::new(tally)
}

pub async fn at_a_rate(work: &Work) -> Box<dyn Report> {
    let fetcher = fetcher(work);
    // Connects first, so that connecting does not affect the arrival times.
    let warm = work.urls().map(|url| url + "warm").take(200);
    fetcher.batch(warm).concurrency(200).gather().await;
    let mut done = fetcher
        .batch(work.urls())
        .concurrency(1_000)
        .rate(Rate::per_second(1_000))
        .as_completed();
    let mut tally = Tally::new(work);
    while let Some(completed) = done.next().await {
        add(&mut tally, completed.result.expect("an answer"));
    }
    Box::new(tally)
}

pub async fn one_by_one(work: &Work) -> Box<dyn Report> {
    let fetcher = fetcher(work);
    let mut tally = Tally::new(work);
    for url in work.urls() {
        add(&mut tally, fetcher.fetch(url).await.expect("an answer"));
    }
    Box::new(tally)
}
