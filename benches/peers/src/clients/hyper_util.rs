use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;

use crate::work::{Answer, HEADERS, Report, Tally, Work};

type Legacy = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

fn client(work: &Work) -> Legacy {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(&work.certificate).expect("a certificate");
    roots.add(certificate).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .http2_only(work.prior_knowledge)
        .build(connector)
}

async fn get(client: Legacy, url: String) -> Answer {
    let url: Uri = url.parse().expect("a URL");
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url;
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    let answer = client.request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, head.headers, body)
}

/// Runs one task per request in flight. Each takes the next URL when it is done, which is the
/// cheapest way to use this client.
pub async fn workers(work: &Work) -> Box<dyn Report> {
    let client = client(work);
    let urls = Arc::new(Mutex::new(work.urls()));
    let mut tasks = JoinSet::new();
    for _ in 0..work.in_flight {
        let (client, urls, mut tally) = (client.clone(), Arc::clone(&urls), Tally::new(work));
        tasks.spawn(async move {
            while let Some(url) = next(&urls) {
                tally.add_answer(get(client.clone(), url).await);
            }
            tally
        });
    }
    let mut tally = Tally::new(work);
    while let Some(part) = tasks.join_next().await {
        tally.merge(part.expect("no panic"));
    }
    Box::new(tally)
}

fn next(urls: &Mutex<impl Iterator<Item = String>>) -> Option<String> {
    urls.lock().expect("no panic").next()
}

pub async fn one_by_one(work: &Work) -> Box<dyn Report> {
    let client = client(work);
    let mut tally = Tally::new(work);
    for url in work.urls() {
        tally.add_answer(get(client.clone(), url).await);
    }
    Box::new(tally)
}
