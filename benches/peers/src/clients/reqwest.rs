use futures::StreamExt;
use http::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Client};
use tokio::task::JoinSet;

use crate::work::{Answer, HEADERS, Report, Tally, Work};

fn client(work: &Work) -> Client {
    let certificate = Certificate::from_pem(&work.certificate).expect("a certificate");
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let builder = Client::builder()
        .tls_certs_merge([certificate])
        .default_headers(HeaderMap::from_iter(headers));
    let builder = if work.prior_knowledge {
        builder.http2_prior_knowledge()
    } else {
        builder
    };
    builder.build().expect("a client")
}

async fn get(client: Client, url: String) -> Answer {
    let mut response = client.get(url).send().await.expect("an answer");
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    (status, headers, response.bytes().await.expect("a body"))
}

pub async fn buffered(work: &Work) -> Box<dyn Report> {
    let client = client(work);
    let mut answers = futures::stream::iter(work.urls())
        .map(|url| get(client.clone(), url))
        .buffer_unordered(work.in_flight);
    let mut tally = Tally::new(work);
    while let Some(answer) = answers.next().await {
        tally.add_answer(answer);
    }
    Box::new(tally)
}

pub async fn spawned(work: &Work) -> Box<dyn Report> {
    let client = client(work);
    let mut tally = Tally::new(work);
    let mut tasks = JoinSet::new();
    for url in work.urls() {
        if tasks.len() == work.in_flight
            && let Some(answer) = tasks.join_next().await
        {
            tally.add_answer(answer.expect("no panic"));
        }
        tasks.spawn(get(client.clone(), url));
    }
    while let Some(answer) = tasks.join_next().await {
        tally.add_answer(answer.expect("no panic"));
    }
    Box::new(tally)
}

pub async fn one_by_one(work: &Work) -> Box<dyn Report> {
    let client = client(work);
    let mut tally = Tally::new(work);
    for url in work.urls() {
        tally.add_answer(get(client.clone(), url).await);
    }
    Box::new(tally)
}
