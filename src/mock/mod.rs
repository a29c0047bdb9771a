//! A transport for tests that answers by URL.

mod body;
#[cfg(feature = "json")]
mod json;
mod pattern;
mod request;
mod request_log;
mod response;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

pub use request::MockRequest;
pub use response::MockResponse;

use crate::{Body, Error};
use body::MockBody;
use pattern::Pattern;
use request_log::{InFlightGuard, RequestLog};

/// A transport for tests: it answers by URL, fails as it is told, and remembers what it was asked.
///
/// Give it to [`FetcherBuilder::transport`](crate::FetcherBuilder::transport). It stands where the network would, so
/// limits, retries, timeouts and the schedule are the real ones. The first rule that matches a request answers it; what
/// no rule matches is answered 404, with a body that says so, or as [`fallback`](Self::fallback) has it. A clone shares
/// the rules and the record, so keep one to ask afterwards.
///
/// Its delays are on tokio's clock, as is all of this crate. In a test with `start_paused = true` back-offs, rates and
/// timeouts take no time, and each comes at an exact instant.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use fanout::{MockResponse, ErrorKind, Fetcher, Mock};
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
/// A test of the manners, which takes two seconds of tokio's time and none of yours:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use std::time::Duration;
/// use fanout::{MockResponse, Fetcher, Mock};
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
    shared: Arc<Mutex<MockState>>,
    /// The connection this clone is making.
    connect_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Default)]
struct MockState {
    rules: Vec<Rule>,
    fallback: Option<MockResponse>,
    connect_delay: Duration,
    log: RequestLog,
}

struct Rule {
    pattern: Pattern,
    /// Given in turn; the last one for ever.
    responses: Vec<MockResponse>,
    served: usize,
}

impl Mock {
    /// Knows no URL yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            connect_timer: None,
        }
    }

    /// Answers requests for a URL: with a status, a text, an [`ErrorKind`](crate::ErrorKind), or any [`MockResponse`].
    ///
    /// The query is part of the URL. A `*` stands for any text, also for none and for slashes. A method before the URL,
    /// as in `"POST http://api.example/orders"`, leaves requests with other methods to other rules. Of several rules that
    /// match, the first answers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Mock, Request};
    ///
    /// let mock = Mock::new()
    ///     .on("http://api.example/items/7", "the seventh")
    ///     .on("DELETE http://api.example/items/*", 204)
    ///     .on("http://api.example/items*", "some item, or a search for one");
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://api.example/items/7").await?.text(), "the seventh");
    /// assert_eq!(fetcher.fetch(Request::delete("http://api.example/items/8")).await?.status(), 204);
    /// assert_eq!(fetcher.fetch("http://api.example/items?q=8").await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the pattern has no `*` and is not a URL, or its method is none.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    #[track_caller]
    pub fn on(self, pattern: impl AsRef<str>, response: impl Into<MockResponse>) -> Self {
        let rule = Rule {
            pattern: Pattern::parse(pattern.as_ref()),
            responses: vec![response.into()],
            served: 0,
        };
        self.lock().rules.push(rule);
        self
    }

    /// The next answer for the URL named last. The last one of a sequence is given for ever.
    ///
    /// # Panics
    ///
    /// If no URL was named with [`on`](Self::on).
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    #[track_caller]
    pub fn then(self, response: impl Into<MockResponse>) -> Self {
        let mut shared = self.lock();
        let Some(rule) = shared.rules.last_mut() else {
            drop(shared);
            panic!("`then` goes on from an `on`, and there is none");
        };
        rule.responses.push(response.into());
        drop(shared);
        self
    }

    /// Answers what no rule matches. Default: 404, with a body that names the method and the URL.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn fallback(self, response: impl Into<MockResponse>) -> Self {
        self.lock().fallback = Some(response.into());
        self
    }

    /// How long each connection takes to come about. Default: no time.
    ///
    /// It counts as connecting, so that [`Timeouts::connect`](crate::Timeouts::connect) bounds it. No connection is kept:
    /// each request makes one.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn connect_delay(self, delay: Duration) -> Self {
        self.lock().connect_delay = delay;
        self
    }

    /// Remembers the latest so many requests. Default: all, at some hundred bytes each.
    ///
    /// What it no longer remembers is missing from [`requests`](Self::requests), [`request_count_to`](Self::request_count_to) and
    /// [`max_in_flight_to`](Self::max_in_flight_to); [`request_count`](Self::request_count) and
    /// [`max_in_flight`](Self::max_in_flight) count it still.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn max_recorded_requests(self, requests: usize) -> Self {
        self.lock().log.set_max_entries(requests);
        self
    }

    /// The requests received, each attempt by itself, in the order they came.
    #[must_use]
    pub fn requests(&self) -> Vec<MockRequest> {
        self.lock().log.requests().cloned().collect()
    }

    /// How many requests were received that match the pattern, each attempt by itself.
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) does.
    #[must_use]
    #[track_caller]
    pub fn request_count_to(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = Pattern::parse(pattern.as_ref());
        let shared = self.lock();
        shared
            .log
            .requests()
            .filter(|request| pattern.matches(request))
            .count()
    }

    /// How many requests were received, each attempt by itself.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.lock().log.request_count()
    }

    /// How many requests are being answered now: received, and neither read to the end nor given up.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().log.in_flight()
    }

    /// The most requests that were ever in flight at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.lock().log.max_in_flight()
    }

    /// The most requests matching the pattern that were ever in flight at once, as to one host.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use std::time::Duration;
    /// use fanout::{MockResponse, Fetcher, Mock};
    ///
    /// let mock = Mock::new().fallback(MockResponse::text("x").delay(Duration::from_millis(100)));
    /// let fetcher = Fetcher::builder().transport(mock.clone()).concurrency_per_host(2).build()?;
    /// fetcher.gather((0..20).map(|n| format!("http://{}.example/{n}", ["a", "b"][n % 2]))).await;
    /// assert_eq!(mock.max_in_flight_to("http://a.example/*"), 2);
    /// assert_eq!(mock.max_in_flight(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) does.
    #[must_use]
    #[track_caller]
    pub fn max_in_flight_to(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = Pattern::parse(pattern.as_ref());
        self.lock()
            .log
            .max_in_flight_matching(|request| pattern.matches(request))
    }

    fn lock(&self) -> MutexGuard<'_, MockState> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<MockState>) -> MutexGuard<'_, MockState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockState {
    fn response_to(&mut self, request: &MockRequest) -> MockResponse {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.pattern.matches(request));
        match (rule, &self.fallback) {
            (Some(rule), _) => rule.next_response(),
            (None, Some(response)) => response.clone(),
            (None, None) => MockResponse::not_found(request),
        }
    }
}

impl Rule {
    fn next_response(&mut self) -> MockResponse {
        let index = self.served.min(self.responses.len() - 1);
        self.served += 1;
        self.responses[index].clone()
    }
}

impl Service<http::Request<Body>> for Mock {
    type Response =
        http::Response<Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    /// Connects.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let delay = self.lock().connect_delay;
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
        let shared = Arc::clone(&self.shared);
        if request.body().as_bytes().is_some() {
            return respond(&shared, MockRequest::new(request));
        }
        Box::pin(async move {
            let request = MockRequest::new(buffer_body(request).await?);
            respond(&shared, request).await
        })
    }
}

type ResponseFuture = <Mock as Service<http::Request<Body>>>::Future;

fn respond(shared: &Arc<Mutex<MockState>>, request: MockRequest) -> ResponseFuture {
    let mut state = lock(shared);
    let response = state.response_to(&request);
    let request_id = state.log.enter(request.clone());
    drop(state);
    let in_flight = InFlightGuard::new(shared, request_id);
    Box::pin(async move {
        let (head, body) = response.produce(&request).await?.into_parts();
        let body: Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>> =
            Box::pin(MockBody::new(body, in_flight));
        Ok(http::Response::from_parts(head, body))
    })
}

/// A server has read the whole body before it answers.
async fn buffer_body(request: http::Request<Body>) -> Result<http::Request<Body>, Error> {
    let (head, mut body) = request.into_parts();
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(http::Request::from_parts(head, whole.into()))
}

/// The clone is not connecting.
impl Clone for Mock {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
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
        let shared = self.lock();
        let patterns: Vec<_> = shared.rules.iter().map(|rule| &rule.pattern).collect();
        f.debug_struct("Mock")
            .field("on", &patterns)
            .field("total", &shared.log.request_count())
            .field("in_flight", &shared.log.in_flight())
            .finish_non_exhaustive()
    }
}
