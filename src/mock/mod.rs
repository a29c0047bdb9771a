//! A transport for tests, which selects responses by URL.

mod body;
mod fault;
#[cfg(feature = "json")]
mod json;
mod pattern;
mod request;
mod request_log;
mod response;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use self::body::MockBody;
use self::pattern::RequestPattern;
use self::request_log::RequestLog;
use crate::body::Body;
use crate::error::Error;

pub use self::request::MockRequest;
pub use self::response::MockResponse;

/// A transport for tests: it responds by URL, injects errors and records the received requests.
///
/// Pass a `Mock` to [`FetcherBuilder::transport`](crate::FetcherBuilder::transport). A mock
/// replaces the network only: limits, retries, timeouts and the schedule work as usual. The first
/// rule that matches a request provides the response. A request that matches no rule gets the
/// [`fallback`](Self::fallback), by default a 404. Clones share the rules and the log of requests,
/// so keep a clone to inspect the requests afterwards.
///
/// All delays use tokio's clock. In a test with `start_paused = true`, backoffs, rates and timeouts
/// take no real time and end at exact instants.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use fanout::{ErrorKind, Fetcher, Mock, MockResponse};
///
/// let mock = Mock::new()
///     .on("http://api.example/hello", "hello")
///     .on("http://api.example/flaky", 503).then(ErrorKind::Closed).then("third time lucky")
///     .on("POST http://api.example/orders", MockResponse::status(201).header("location", "/orders/1"))
///     .on("http://down.example/*", ErrorKind::Connect);
/// let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
///
/// let flaky = fetcher.fetch("http://api.example/flaky").await?;
/// assert_eq!(flaky.text(), "third time lucky");
/// assert_eq!(mock.request_count_to("http://api.example/flaky"), 3);
///
/// let down = fetcher.fetch("http://down.example/").await.unwrap_err();
/// assert_eq!(down.kind(), ErrorKind::Connect);
/// assert!(!down.maybe_sent());
/// # Ok(())
/// # }
/// ```
///
/// The following test checks that the Fetcher waits for `Retry-After`. It takes two seconds of
/// tokio's time and no real time:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use std::time::Duration;
/// use fanout::{Fetcher, Mock, MockResponse};
/// use tokio::time::Instant;
///
/// let busy = MockResponse::status(503).header("retry-after", "2");
/// let mock = Mock::new().on("http://api.example/*", busy).then("welcome back");
/// let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
/// let started = Instant::now();
/// assert_eq!(fetcher.fetch("http://api.example/").await?.text(), "welcome back");
/// assert_eq!(mock.requests()[1].received_at() - started, Duration::from_secs(2));
/// # Ok(())
/// # }
/// ```
pub struct Mock {
    shared_state: Arc<Mutex<MockState>>,
    /// The timer of the connection that this clone of the mock is opening. `None` if the clone is
    /// not opening a connection.
    connect_timer: Option<Pin<Box<Sleep>>>,
}

/// The state that all clones of a mock share. The lock of the `MockState` is taken before the lock
/// of the request log.
#[derive(Default)]
struct MockState {
    rules: Vec<Rule>,
    fallback_response: Option<MockResponse>,
    connect_delay: Duration,
    request_log: RequestLog,
}

struct Rule {
    pattern: RequestPattern,
    /// The responses to successive requests, in order. The last response repeats.
    responses: Vec<MockResponse>,
    served_request_count: usize,
}

impl Mock {
    /// Creates a mock without rules, which responds 404 to every request.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared_state: Arc::default(),
            connect_timer: None,
        }
    }

    /// Adds a rule: the response to requests that match `pattern` is `response`.
    ///
    /// The pattern is an absolute URL with its query. A `*` in the pattern matches any text,
    /// including the empty text and slashes. An optional method comes first, as in `"POST
    /// http://api.example/orders"`. Without a method the rule matches all methods. If several rules
    /// match, the rule added first applies.
    ///
    /// # Panics
    ///
    /// Panics if the pattern is neither a URL nor contains a `*`, or if the method in front of the
    /// URL is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Mock, Request};
    ///
    /// let mock = Mock::new()
    ///     .on("http://api.example/items/7", "item seven")
    ///     .on("DELETE http://api.example/items/*", 204)
    ///     .on("http://api.example/items*", "an item or a search");
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://api.example/items/7").await?.text(), "item seven");
    /// assert_eq!(fetcher.fetch(Request::delete("http://api.example/items/8")).await?.status(), 204);
    /// assert_eq!(fetcher.fetch("http://api.example/items?q=8").await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    #[track_caller]
    pub fn on(self, pattern: impl AsRef<str>, response: impl Into<MockResponse>) -> Self {
        let rule = Rule {
            pattern: RequestPattern::parse(pattern.as_ref()),
            responses: vec![response.into()],
            served_request_count: 0,
        };
        self.lock_state().rules.push(rule);
        self
    }

    /// Appends a response to the rule added last. Successive requests get successive responses, and
    /// the last response of a rule repeats.
    ///
    /// # Panics
    ///
    /// Panics if no rule was added with [`on`](Self::on).
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    #[track_caller]
    pub fn then(self, response: impl Into<MockResponse>) -> Self {
        let mut state = self.lock_state();
        let Some(rule) = state.rules.last_mut() else {
            drop(state);
            panic!("`then` needs a rule that `on` has added");
        };
        rule.responses.push(response.into());
        drop(state);
        self
    }

    /// Sets the response to requests that match no rule. Default: a 404 whose body names the method
    /// and the URL.
    ///
    /// Default: a 404 whose body names the method and the URL.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn fallback(self, response: impl Into<MockResponse>) -> Self {
        self.lock_state().fallback_response = Some(response.into());
        self
    }

    /// Sets how long opening a connection takes, on tokio's clock. Default: 0 s.
    ///
    /// The delay counts as connect time, so [`Timeouts::connect`](crate::Timeouts::connect)
    /// applies. A mock keeps no idle connections: every request opens a connection.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn connect_delay(self, delay: Duration) -> Self {
        self.lock_state().connect_delay = delay;
        self
    }

    /// Sets the maximum number of requests in the log, which keeps the latest requests. Default: no
    /// limit. Each request in the log takes a few hundred bytes.
    ///
    /// Requests that were dropped from the log are not in [`requests`](Self::requests), and do not
    /// count in [`request_count_to`](Self::request_count_to) and
    /// [`max_in_flight_to`](Self::max_in_flight_to). They do count in
    /// [`request_count`](Self::request_count) and [`max_in_flight`](Self::max_in_flight).
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn max_recorded_requests(self, max_requests: usize) -> Self {
        self.lock_state()
            .request_log
            .set_max_entry_count(max_requests);
        self
    }

    /// The received requests in the order of arrival. Every attempt and every redirect counts as a
    /// separate request.
    #[must_use]
    pub fn requests(&self) -> Vec<MockRequest> {
        self.request_log().recorded_requests()
    }

    /// The number of received requests that match `pattern`.
    ///
    /// Every attempt and every redirect counts as a separate request. The pattern has the form that
    /// [`on`](Self::on) takes.
    ///
    /// # Panics
    ///
    /// Panics if the pattern is neither a URL nor contains a `*`, or if the method in front of the
    /// URL is invalid.
    #[must_use]
    #[track_caller]
    pub fn request_count_to(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = RequestPattern::parse(pattern.as_ref());
        self.request_log()
            .count_requests_matching(|request| pattern.matches(request))
    }

    /// The number of received requests. Every attempt and every redirect counts as a separate
    /// request.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.request_log().received_request_count()
    }

    /// The number of requests in flight now. A request is in flight from its arrival until its
    /// response has been read to the end or dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.request_log().in_flight_count()
    }

    /// The largest number of requests that were in flight at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.request_log().max_in_flight_count()
    }

    /// The largest number of requests matching `pattern` that were in flight at once.
    ///
    /// The pattern has the form that [`on`](Self::on) takes. A pattern that matches all URLs of one
    /// host gives the largest number of concurrent requests to that host.
    ///
    /// # Panics
    ///
    /// Panics if the pattern is neither a URL nor contains a `*`, or if the method in front of the
    /// URL is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use std::time::Duration;
    /// use fanout::{Fetcher, Mock, MockResponse};
    ///
    /// let mock = Mock::new().fallback(MockResponse::text("x").delay(Duration::from_millis(100)));
    /// let fetcher = Fetcher::builder().transport(mock.clone()).concurrency_per_host(2).build()?;
    /// fetcher.gather((0..20).map(|n| format!("http://{}.example/{n}", ["a", "b"][n % 2]))).await;
    /// assert_eq!(mock.max_in_flight_to("http://a.example/*"), 2);
    /// assert_eq!(mock.max_in_flight(), 4);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_in_flight_to(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = RequestPattern::parse(pattern.as_ref());
        self.request_log()
            .max_in_flight_count_matching(|request| pattern.matches(request))
    }

    fn request_log(&self) -> RequestLog {
        self.lock_state().request_log.clone()
    }

    fn lock_state(&self) -> MutexGuard<'_, MockState> {
        lock_state(&self.shared_state)
    }
}

fn lock_state(state: &Mutex<MockState>) -> MutexGuard<'_, MockState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockState {
    fn select_response(&mut self, request: &MockRequest) -> MockResponse {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.pattern.matches(request));
        match (rule, &self.fallback_response) {
            (Some(rule), _) => rule.next_scripted_response(),
            (None, Some(response)) => response.clone(),
            (None, None) => MockResponse::unmatched_request_response(request),
        }
    }
}

impl Rule {
    fn next_scripted_response(&mut self) -> MockResponse {
        let index = self.served_request_count.min(self.responses.len() - 1);
        self.served_request_count += 1;
        self.responses[index].clone()
    }
}

type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>;
type ResponseFuture = Pin<Box<dyn Future<Output = Result<http::Response<BoxBody>, Error>> + Send>>;

impl Service<http::Request<Body>> for Mock {
    type Response = http::Response<BoxBody>;
    type Error = Error;
    type Future = ResponseFuture;

    /// Waits for the connect delay, the simulated time for opening a connection.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let delay = self.lock_state().connect_delay;
        if delay > Duration::ZERO {
            let connect_timer = self
                .connect_timer
                .get_or_insert_with(|| Box::pin(sleep(delay)));
            ready!(connect_timer.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.connect_timer = None;
        let state = Arc::clone(&self.shared_state);
        if request.body().as_bytes().is_some() {
            return record_and_respond(&state, MockRequest::new(request));
        }
        Box::pin(async move {
            let request = MockRequest::new(read_request_body(request).await?);
            record_and_respond(&state, request).await
        })
    }
}

/// Records the request and returns the future of its response. The state stays locked while the
/// request is recorded and its response is selected, so the log has the order of the responses.
fn record_and_respond(state: &Arc<Mutex<MockState>>, request: MockRequest) -> ResponseFuture {
    let mut state = lock_state(state);
    let response = state.select_response(&request);
    let in_flight = state.request_log.record_arrival(request.clone());
    drop(state);
    Box::pin(async move {
        let (head, body) = response.produce_response(&request).await?.into_parts();
        let body: BoxBody = Box::pin(MockBody::new(body, in_flight));
        Ok(http::Response::from_parts(head, body))
    })
}

/// Reads the whole request body, as a server does before it responds.
async fn read_request_body(request: http::Request<Body>) -> Result<http::Request<Body>, Error> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok(http::Request::from_parts(head, bytes.into()))
}

/// Makes a clone that shares the rules and the request log. The clone is not opening a connection.
impl Clone for Mock {
    fn clone(&self) -> Self {
        Self {
            shared_state: Arc::clone(&self.shared_state),
            connect_timer: None,
        }
    }
}

impl Default for Mock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock_state();
        let patterns: Vec<_> = state.rules.iter().map(|rule| &rule.pattern).collect();
        f.debug_struct("Mock")
            .field("patterns", &patterns)
            .field("request_count", &state.request_log.received_request_count())
            .field("in_flight", &state.request_log.in_flight_count())
            .finish_non_exhaustive()
    }
}
