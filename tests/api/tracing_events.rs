//! What is written to the log, and what is shown of credentials anywhere: nothing.
//!
//! One subscriber serves all tests of this file, and each looks only at what is its own.

use crate::support::own_process::{self, test_path};
use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use fanout::{ErrorKind, Fetcher, Host, Mock, MockResponse, Request, RequestBuilder, Retry};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Instrument, Metadata, Subscriber, info_span};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

/// All the text, as a user would see it at TRACE.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Text {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A span or event with the names of the spans it is in, outermost first.
#[derive(Clone, Debug)]
struct Note {
    target: String,
    within: Vec<String>,
    fields: String,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Note>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Notes {
    fn add(&self, metadata: &Metadata<'_>, within: Vec<String>, record: impl FnOnce(&mut Fields)) {
        let mut fields = Fields(String::new());
        record(&mut fields);
        self.0.lock().unwrap().push(Note {
            target: metadata.target().to_owned(),
            within,
            fields: fields.0,
        });
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let within = span
            .scope()
            .from_root()
            .map(|span| span.name().to_owned())
            .collect();
        self.add(attributes.metadata(), within, |fields| {
            attributes.record(fields);
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context
            .event_scope(event)
            .into_iter()
            .flat_map(Scope::from_root);
        let within = scope.map(|span| span.name().to_owned()).collect();
        self.add(event.metadata(), within, |fields| event.record(fields));
    }
}

fn log() -> &'static (Text, Notes) {
    static LOG: OnceLock<(Text, Notes)> = OnceLock::new();
    LOG.get_or_init(|| {
        let (text, notes) = (Text::default(), Notes::default());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(text.clone())
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false);
        let subscriber = Registry::default().with(lines).with(notes.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        (text, notes)
    })
}

/// What was noted within a span of this name, or with it.
fn notes_within(name: &str, target: &str) -> Vec<Note> {
    let notes = log().1.0.lock().unwrap();
    let meant = |note: &&Note| {
        note.target == target && note.within.first().is_some_and(|first| first == name)
    };
    notes.iter().filter(meant).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_span_of_the_callers_and_an_attempt_an_event_in_it() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            a_request_is_a_span_of_the_callers_and_an_attempt_an_event_in_it
        ));
    }
    log();
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

    let requests = notes_within("a_callers_batch", "fanout::request");
    assert_eq!(requests.len(), 2);
    for (request, url) in requests.iter().zip(urls) {
        assert_eq!(request.within, ["a_callers_batch", "request"]);
        assert!(
            request.fields.contains("method=GET") && request.fields.contains(url),
            "{request:?}"
        );
    }
    let attempts = notes_within("a_callers_batch", "fanout::attempt");
    assert_eq!(attempts.len(), 4);
    for attempt in &attempts {
        assert_eq!(attempt.within, ["a_callers_batch", "request"]);
    }
    let of_the_second: Vec<_> = attempts
        .iter()
        .filter(|attempt| !attempt.fields.contains("outcome=200"))
        .collect();
    assert!(
        of_the_second[0].fields.contains("attempt=1 outcome=500"),
        "{of_the_second:?}"
    );
    assert!(
        of_the_second[0].fields.contains("retry_in="),
        "{of_the_second:?}"
    );
    assert!(
        of_the_second[1]
            .fields
            .contains("attempt=2 outcome=connection closed"),
        "{of_the_second:?}"
    );
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt.fields.contains("attempt=3 outcome=200"))
    );
}

#[tokio::test]
async fn a_fetch_and_a_transport_are_inside_the_callers_span() {
    if !own_process::is_child() {
        return own_process::run(test_path!(
            a_fetch_and_a_transport_are_inside_the_callers_span
        ));
    }
    log();
    let answer = MockResponse::from_fn(|_| {
        tracing::info!(target: "the_transport", "called");
        MockResponse::status(200)
    });
    let fetcher = Fetcher::builder()
        .transport(Mock::new().fallback(answer))
        .build()
        .unwrap();
    let fetch = fetcher.fetch("http://a.example/");
    tokio::spawn(fetch.instrument(info_span!("a_callers_fetch")))
        .await
        .unwrap()
        .unwrap();
    for target in ["fanout::request", "fanout::attempt", "the_transport"] {
        let notes = notes_within("a_callers_fetch", target);
        assert_eq!(notes.len(), 1, "{target}");
        assert_eq!(notes[0].within, ["a_callers_fetch", "request"]);
    }
}

/// In plain, in base64 as it is in `user:…`, and percent-encoded.
const SECRETS: [&str; 4] = ["hunter2", "dXNlcjpodW50ZXIy", "hunter%32", "%68unter2"];
const NO_SECRET: &str = "user:hunter2";

fn check(text: &str) {
    for secret in SECRETS {
        if let Some(at) = text.find(secret) {
            panic!(
                "{secret} is in: {}",
                &text[at.saturating_sub(200)..at + secret.len()]
            );
        }
    }
}

fn check_debug(value: &dyn Debug) {
    check(&format!("{value:?}"));
    check(&format!("{value:#?}"));
}

fn check_error(error: &fanout::Error) {
    check_debug(error);
    check(error.url().unwrap_or_default());
    let mut level: Option<&dyn StdError> = Some(error);
    while let Some(error) = level {
        check(&error.to_string());
        check_debug(&error);
        level = error.source();
    }
}

fn check_both(value: &(impl Debug + fmt::Display)) {
    check_debug(value);
    check(&value.to_string());
}

fn requests_with_secrets() -> Vec<Request> {
    let mut marked = http::HeaderValue::from_static("hunter2");
    marked.set_sensitive(true);
    let valid = |host: &str| {
        let url = format!("http://{host}.example/");
        vec![
            Request::get(format!("http://{NO_SECRET}@{host}.example/")),
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
        Request::get(format!("ftp://{NO_SECRET}@a.example/")),
        Request::get(format!("http://{NO_SECRET}@a example/")),
        Request::get(format!("http://{NO_SECRET}/@a.example:99999/")),
        Request::get(format!("{NO_SECRET}@a.example")),
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
async fn a_credential_is_never_shown() {
    if !own_process::is_child() {
        return own_process::run(test_path!(a_credential_is_never_shown));
    }
    log();
    let echo = MockResponse::from_fn(|request| {
        let mut answer = MockResponse::status(401)
            .header("set-cookie", "session=hunter2")
            .body(request.body().clone());
        if let Some(value) = request.headers().get("authorization") {
            answer = answer.header("authorization", value.clone());
        }
        answer
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
    check_debug(&host);
    check_debug(&Host::new().basic_auth("user", "hunter2"));
    let builder = Fetcher::builder()
        .transport(mock.clone())
        .retry(Retry::default().max_retries(1))
        .default_header("x-api-key", "hunter2")
        .host("http://a.example", host);
    check_debug(&builder);
    let fetcher = builder.build().unwrap();
    check_debug(&fetcher);

    let requests = requests_with_secrets();
    for request in &requests {
        check_both(request);
        check(request.url_str());
    }
    let mut done = fetcher.as_completed(&requests);
    while let Some(completed) = done.next().await {
        check_debug(&completed);
        match completed.result {
            Ok(response) => {
                check_debug(&response);
                check(response.url().as_str());
                if let Err(error) = response.error_for_status() {
                    check_error(&error);
                }
            }
            Err(error) => check_error(&error),
        }
    }
    check_debug(&mock);
    check_debug(&mock.requests());
    assert!(mock.request_count() > 70, "{mock:?}");
    let log = log().0.0.lock().unwrap();
    let log = String::from_utf8(log.clone()).unwrap();
    assert!(log.contains("http://closed.example/") && log.contains("fanout::attempt"));
    check(&log);
}

#[test]
fn the_mistakes_of_a_builder_show_no_credential() {
    let mistakes = [
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
    for builder in mistakes {
        check_debug(&builder);
        check_error(&builder.build().unwrap_err());
    }
}
