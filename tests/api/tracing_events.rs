//! Spans and events of `tracing`, and the absence of credentials from logs and `Debug` output.
//!
//! The tests share one subscriber. Each test reads only the records of its own span.

use crate::support::own_process::{self, test_path};
use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use fanout::{
    Budget, ErrorKind, Fetcher, Host, Mock, MockResponse, Request, RequestBuilder, Retry,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Instrument, Metadata, Subscriber, info_span};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

/// The formatted log at level TRACE.
#[derive(Clone, Default)]
struct LogText(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogText {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogText {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A span or event, with the names of its enclosing spans from the outermost.
#[derive(Clone, Debug)]
struct TraceRecord {
    target: String,
    spans: Vec<String>,
    fields: String,
}

#[derive(Clone, Default)]
struct TraceRecords(Arc<Mutex<Vec<TraceRecord>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl TraceRecords {
    fn add(&self, metadata: &Metadata<'_>, spans: Vec<String>, record: impl FnOnce(&mut Fields)) {
        let mut fields = Fields(String::new());
        record(&mut fields);
        self.0.lock().unwrap().push(TraceRecord {
            target: metadata.target().to_owned(),
            spans,
            fields: fields.0,
        });
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceRecords {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let spans = span
            .scope()
            .from_root()
            .map(|span| span.name().to_owned())
            .collect();
        self.add(attributes.metadata(), spans, |fields| {
            attributes.record(fields);
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context
            .event_scope(event)
            .into_iter()
            .flat_map(Scope::from_root);
        let spans = scope.map(|span| span.name().to_owned()).collect();
        self.add(event.metadata(), spans, |fields| event.record(fields));
    }
}

fn shared_log() -> &'static (LogText, TraceRecords) {
    static LOG: OnceLock<(LogText, TraceRecords)> = OnceLock::new();
    LOG.get_or_init(|| {
        let (text, records) = (LogText::default(), TraceRecords::default());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(text.clone())
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false);
        let subscriber = Registry::default().with(lines).with(records.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        (text, records)
    })
}

/// The records of a target whose outermost span has this name.
fn records_within(name: &str, target: &str) -> Vec<TraceRecord> {
    let records = shared_log().1.0.lock().unwrap();
    let matches = |record: &&TraceRecord| {
        record.target == target && record.spans.first().is_some_and(|first| first == name)
    };
    records.iter().filter(matches).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn settled_costs_are_events_within_the_request_span() {
    if !own_process::is_child() {
        return own_process::run(test_path!(settled_costs_are_events_within_the_request_span));
    }
    shared_log();
    let mock = Mock::new().fallback("70");
    let tokens =
        Budget::per_minute("tokens", 4_000).settle(|response| response.text().parse().ok());
    let host = Host::new().budget(tokens);
    let fetcher = Fetcher::builder()
        .transport(mock)
        .host("http://a.example", host)
        .budget(Budget::total("calls", 5).default_cost(1))
        .build()
        .unwrap();
    let request = Request::get("http://a.example/").cost("tokens", 60);
    let fetch = async { fetcher.fetch(request).await };
    fetch
        .instrument(info_span!("a_settled_fetch"))
        .await
        .unwrap();

    let events = records_within("a_settled_fetch", "fanout::budget");
    let fields: Vec<&str> = events.iter().map(|event| event.fields.trim_end()).collect();
    assert_eq!(
        fields,
        [
            "message=cost settled budget=\"tokens\" host=\"http://a.example\" estimated=60 actual=70 \
             level=30 capacity=100 waiting=0",
            "message=cost settled budget=\"calls\" estimated=1 actual=1 level=4 capacity=5 waiting=0",
        ]
    );
    assert!(
        events
            .iter()
            .all(|event| event.spans == ["a_settled_fetch", "request"])
    );
}

#[tokio::test(start_paused = true)]
async fn request_span_is_in_the_callers_span_and_contains_attempt_events() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            request_span_is_in_the_callers_span_and_contains_attempt_events
        ));
    }
    shared_log();
    let mock = Mock::new()
        .on("http://a.example/1", 500)
        .then(ErrorKind::Closed)
        .then(200)
        .fallback(200);
    let fetcher = Fetcher::builder().transport(mock).build().unwrap();
    let urls = ["http://a.example/0", "http://a.example/1"];
    let batch = async { fetcher.gather(urls).await };
    let results = batch.instrument(info_span!("a_callers_batch")).await;
    assert!(results.iter().all(Result::is_ok));

    let requests = records_within("a_callers_batch", "fanout::request");
    assert_eq!(requests.len(), 2);
    for (request, url) in requests.iter().zip(urls) {
        assert_eq!(request.spans, ["a_callers_batch", "request"]);
        assert!(
            request.fields.contains("method=GET") && request.fields.contains(url),
            "{request:?}"
        );
    }
    let attempts = records_within("a_callers_batch", "fanout::attempt");
    assert_eq!(attempts.len(), 4);
    for attempt in &attempts {
        assert_eq!(attempt.spans, ["a_callers_batch", "request"]);
    }
    let failed_attempts: Vec<_> = attempts
        .iter()
        .filter(|attempt| !attempt.fields.contains("outcome=200"))
        .collect();
    assert!(
        failed_attempts[0].fields.contains("attempt=1 outcome=500"),
        "{failed_attempts:?}"
    );
    assert!(
        failed_attempts[0].fields.contains("retry_in="),
        "{failed_attempts:?}"
    );
    assert!(
        failed_attempts[1]
            .fields
            .contains("attempt=2 outcome=connection closed"),
        "{failed_attempts:?}"
    );
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt.fields.contains("attempt=3 outcome=200"))
    );
}

#[tokio::test]
async fn fetch_and_transport_run_in_the_callers_span() {
    if !own_process::is_child() {
        return own_process::run(test_path!(fetch_and_transport_run_in_the_callers_span));
    }
    shared_log();
    let mock_response = MockResponse::from_fn(|_| {
        tracing::info!(target: "the_transport", "called");
        MockResponse::status(200)
    });
    let fetcher = Fetcher::builder()
        .transport(Mock::new().fallback(mock_response))
        .build()
        .unwrap();
    let fetch = fetcher.fetch("http://a.example/");
    tokio::spawn(fetch.instrument(info_span!("a_callers_fetch")))
        .await
        .unwrap()
        .unwrap();
    for target in ["fanout::request", "fanout::attempt", "the_transport"] {
        let records = records_within("a_callers_fetch", target);
        assert_eq!(records.len(), 1, "{target}");
        assert_eq!(records[0].spans, ["a_callers_fetch", "request"]);
    }
}

/// Forms of the secret: plain, base64 of `user:…`, and percent-encoded.
const SECRETS: [&str; 4] = ["hunter2", "dXNlcjpodW50ZXIy", "hunter%32", "%68unter2"];
const USER_INFO: &str = "user:hunter2";

fn assert_no_secret(text: &str) {
    for secret in SECRETS {
        if let Some(at) = text.find(secret) {
            panic!(
                "{secret} is in: {}",
                &text[at.saturating_sub(200)..at + secret.len()]
            );
        }
    }
}

fn assert_no_secret_in_debug(value: &dyn Debug) {
    assert_no_secret(&format!("{value:?}"));
    assert_no_secret(&format!("{value:#?}"));
}

fn assert_no_secret_in_error(error: &fanout::Error) {
    assert_no_secret_in_debug(error);
    assert_no_secret(error.url().unwrap_or_default());
    let mut level: Option<&dyn StdError> = Some(error);
    while let Some(error) = level {
        assert_no_secret(&error.to_string());
        assert_no_secret_in_debug(&error);
        level = error.source();
    }
}

fn assert_no_secret_in_debug_and_display(value: &(impl Debug + fmt::Display)) {
    assert_no_secret_in_debug(value);
    assert_no_secret(&value.to_string());
}

fn requests_with_secrets() -> Vec<Request> {
    let mut marked = http::HeaderValue::from_static("hunter2");
    marked.set_sensitive(true);
    let valid = |host: &str| {
        let url = format!("http://{host}.example/");
        vec![
            Request::get(format!("http://{USER_INFO}@{host}.example/")),
            Request::get(format!("http://user:%68unter%32@{host}.example/")),
            Request::get(format!("http://hunter2@{host}.example/")),
            Request::get(&url).bearer_auth("hunter2"),
            Request::get(&url).basic_auth("user", "hunter2"),
            Request::get(&url).header("authorization", "Digest hunter2"),
            Request::get(&url).header("proxy-authorization", "Basic dXNlcjpodW50ZXIy"),
            Request::get(&url).header("cookie", "session=hunter2"),
            Request::get(&url).header("x-api-key", "hunter2"),
            Request::get(&url).header("x-plain", marked.clone()),
            Request::post(&url).body("password=hunter2"),
            Request::post(&url)
                .form([("password", "hunter2")])
                .idempotent(),
        ]
    };
    let invalid = [
        Request::get(format!("ftp://{USER_INFO}@a.example/")),
        Request::get(format!("http://{USER_INFO}@a example/")),
        Request::get(format!("http://{USER_INFO}/@a.example:99999/")),
        Request::get(format!("{USER_INFO}@a.example")),
        Request::get("http://user:hun\nter2:hunter2@a.example/"),
        Request::get("http://a.example/").bearer_auth("hunter2\n"),
        Request::get("http://a.example/").basic_auth("user:", "hunter2"),
        Request::get("http://a.example/").header("x-api-key", "hunter2\r\n"),
        Request::get("http://a.example/").header("hunter2 ", "x"),
    ];
    ["a", "closed", "connect", "stalled", "panics", "mirror"]
        .into_iter()
        .flat_map(valid)
        .chain(invalid)
        .map(RequestBuilder::build)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn credentials_appear_in_no_log_or_debug_output() {
    if !own_process::is_child() {
        return own_process::run(test_path!(credentials_appear_in_no_log_or_debug_output));
    }
    shared_log();
    let echo = MockResponse::from_fn(|request| {
        let mut mock_response = MockResponse::status(401)
            .header("set-cookie", "session=hunter2")
            .body(request.body().clone());
        if let Some(value) = request.headers().get("authorization") {
            mock_response = mock_response.header("authorization", value.clone());
        }
        mock_response
    });
    let mock = Mock::new()
        .on("http://closed.example/*", ErrorKind::Closed)
        .on("http://connect.example/*", ErrorKind::Connect)
        .on(
            "http://stalled.example/*",
            MockResponse::text("hunter2").stall_body(),
        )
        .on("http://panics.example/*", ErrorKind::Panicked)
        .on("http://mirror.example/*", echo)
        .fallback(MockResponse::text("hunter2").header("set-cookie", "session=hunter2"));
    let host = Host::new()
        .bearer_auth("hunter2")
        .header("x-secret", "hunter2")
        .header("cookie", "a=hunter2");
    assert_no_secret_in_debug(&host);
    assert_no_secret_in_debug(&Host::new().basic_auth("user", "hunter2"));
    let builder = Fetcher::builder()
        .transport(mock.clone())
        .retry(Retry::default().max_retries(1))
        .default_header("x-api-key", "hunter2")
        .host("http://a.example", host);
    assert_no_secret_in_debug(&builder);
    let fetcher = builder.build().unwrap();
    assert_no_secret_in_debug(&fetcher);

    let requests = requests_with_secrets();
    for request in &requests {
        assert_no_secret_in_debug_and_display(request);
        assert_no_secret(request.url_str());
    }
    let mut done = fetcher.as_completed(&requests);
    while let Some(completed) = done.next().await {
        assert_no_secret_in_debug(&completed);
        match completed.result {
            Ok(response) => {
                assert_no_secret_in_debug(&response);
                assert_no_secret(response.url().as_str());
                if let Err(error) = response.error_for_status() {
                    assert_no_secret_in_error(&error);
                }
            }
            Err(error) => assert_no_secret_in_error(&error),
        }
    }
    assert_no_secret_in_debug(&mock);
    assert_no_secret_in_debug(&mock.requests());
    assert!(mock.request_count() > 70, "{mock:?}");
    let log = shared_log().0.0.lock().unwrap();
    let log = String::from_utf8(log.clone()).unwrap();
    assert!(log.contains("http://closed.example/") && log.contains("fanout::attempt"));
    assert_no_secret(&log);
}

#[test]
fn builder_errors_show_no_credential() {
    let invalid_builders = [
        Fetcher::builder().default_header("authorization", "hunter2"),
        Fetcher::builder().default_header("x-key", "hunter2\n"),
        Fetcher::builder().default_header("hunter2 ", "x"),
        Fetcher::builder().user_agent("hunter2\n"),
        Fetcher::builder().host("http://user:hunter2@a.example", Host::new()),
        Fetcher::builder().host("http://user:hunter2@a example", Host::new()),
        Fetcher::builder().host("user:hunter2@a.example", Host::new()),
        Fetcher::builder().host("http://a.example", Host::new().bearer_auth("hunter2\n")),
        Fetcher::builder().host("http://a.example", Host::new().basic_auth("a:", "hunter2")),
        Fetcher::builder().host("http://user:hunter2@a.example/path", Host::new()),
    ];
    for builder in invalid_builders {
        assert_no_secret_in_debug(&builder);
        assert_no_secret_in_error(&builder.build().unwrap_err());
    }
}
