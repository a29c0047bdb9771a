//! A transport for tests that answers by URL.

mod answer;
mod body;
#[cfg(feature = "json")]
mod json;
mod pattern;
mod received;
mod record;

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

pub use answer::Answer;
pub use received::Received;

use crate::{Body, Error};
use body::AnswerBody;
use pattern::Pattern;
use record::{InFlight, Record};

/// A transport for tests: it answers by URL, fails as it is told, and remembers what it was asked.
///
/// Give it to [`FetcherBuilder::transport`](crate::FetcherBuilder::transport). It stands where the network would, so
/// limits, retries, timeouts and the schedule are the real ones. The first rule that matches a request answers it; what
/// no rule matches is answered 404, with a body that says so, or as [`otherwise`](Self::otherwise) has it. A clone shares
/// the rules and the record, so keep one to ask afterwards.
///
/// Its delays are on tokio's clock, as is all of this crate. In a test with `start_paused = true` back-offs, rates and
/// timeouts take no time, and each comes at an exact instant.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use fanout::{Answer, ErrorKind, Fetcher, Mock};
///
/// let mock = Mock::new()
///     .on("http://api.example/hello", "hello")
///     .on("http://api.example/flaky", 503).then(ErrorKind::Closed).then("third time lucky")
///     .on("POST http://api.example/orders", Answer::status(201).header("location", "/orders/1"))
///     .on("http://down.example/*", ErrorKind::Connect);
/// let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
///
/// let flaky = fetcher.fetch("http://api.example/flaky").await?;
/// assert_eq!(flaky.text(), "third time lucky");
/// assert_eq!(mock.count("http://api.example/flaky"), 3);
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
/// use fanout::{Answer, Fetcher, Mock};
/// use tokio::time::Instant;
///
/// let busy = Answer::status(503).header("retry-after", "2");
/// let mock = Mock::new().on("http://api.example/*", busy).then("welcome back");
/// let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
/// let started = Instant::now();
/// assert_eq!(fetcher.fetch("http://api.example/").await?.text(), "welcome back");
/// assert_eq!(mock.requests()[1].at() - started, Duration::from_secs(2));
/// # Ok(())
/// # }
/// ```
pub struct Mock {
    shared: Arc<Mutex<Shared>>,
    /// The connection this clone is making.
    connecting: Option<Pin<Box<Sleep>>>,
}

#[derive(Default)]
struct Shared {
    rules: Vec<Rule>,
    otherwise: Option<Answer>,
    connect_delay: Duration,
    record: Record,
}

struct Rule {
    pattern: Pattern,
    /// Given in turn; the last one for ever.
    answers: Vec<Answer>,
    given: usize,
}

impl Mock {
    /// Knows no URL yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            connecting: None,
        }
    }

    /// Answers requests for a URL: with a status, a text, an [`ErrorKind`](crate::ErrorKind), or any [`Answer`].
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
    pub fn on(self, pattern: impl AsRef<str>, answer: impl Into<Answer>) -> Self {
        let rule = Rule {
            pattern: Pattern::parse(pattern.as_ref()),
            answers: vec![answer.into()],
            given: 0,
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
    pub fn then(self, answer: impl Into<Answer>) -> Self {
        let mut shared = self.lock();
        let Some(rule) = shared.rules.last_mut() else {
            drop(shared);
            panic!("`then` goes on from an `on`, and there is none");
        };
        rule.answers.push(answer.into());
        drop(shared);
        self
    }

    /// Answers what no rule matches. Default: 404, with a body that names the method and the URL.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn otherwise(self, answer: impl Into<Answer>) -> Self {
        self.lock().otherwise = Some(answer.into());
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
    /// What it no longer remembers is missing from [`requests`](Self::requests), [`count`](Self::count) and
    /// [`most_in_flight_to`](Self::most_in_flight_to); [`total`](Self::total) and
    /// [`most_in_flight`](Self::most_in_flight) count it still.
    #[must_use = "a mock does nothing until a Fetcher is given it"]
    pub fn remember(self, requests: usize) -> Self {
        self.lock().record.keep(requests);
        self
    }

    /// The requests received, each attempt by itself, in the order they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.lock().record.requests().cloned().collect()
    }

    /// How many requests were received that match the pattern, each attempt by itself.
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) does.
    #[must_use]
    #[track_caller]
    pub fn count(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = Pattern::parse(pattern.as_ref());
        let shared = self.lock();
        shared
            .record
            .requests()
            .filter(|received| pattern.matches(received))
            .count()
    }

    /// How many requests were received, each attempt by itself.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lock().record.total()
    }

    /// How many requests are being answered now: received, and neither read to the end nor given up.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().record.in_flight()
    }

    /// The most requests that were ever in flight at once.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.lock().record.most_in_flight()
    }

    /// The most requests matching the pattern that were ever in flight at once, as to one host.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use std::time::Duration;
    /// use fanout::{Answer, Fetcher, Mock};
    ///
    /// let mock = Mock::new().otherwise(Answer::text("x").delay(Duration::from_millis(100)));
    /// let fetcher = Fetcher::builder().transport(mock.clone()).concurrency_per_host(2).build()?;
    /// fetcher.gather((0..20).map(|n| format!("http://{}.example/{n}", ["a", "b"][n % 2]))).await;
    /// assert_eq!(mock.most_in_flight_to("http://a.example/*"), 2);
    /// assert_eq!(mock.most_in_flight(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) does.
    #[must_use]
    #[track_caller]
    pub fn most_in_flight_to(&self, pattern: impl AsRef<str>) -> usize {
        let pattern = Pattern::parse(pattern.as_ref());
        self.lock()
            .record
            .most_in_flight_of(|received| pattern.matches(received))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn answer(&mut self, received: &Received) -> Answer {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.pattern.matches(received));
        match (rule, &self.otherwise) {
            (Some(rule), _) => rule.next(),
            (None, Some(answer)) => answer.clone(),
            (None, None) => Answer::not_found(received),
        }
    }
}

impl Rule {
    fn next(&mut self) -> Answer {
        let turn = self.given.min(self.answers.len() - 1);
        self.given += 1;
        self.answers[turn].clone()
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
            let connecting = self
                .connecting
                .get_or_insert_with(|| Box::pin(sleep(delay)));
            ready!(connecting.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.connecting = None;
        let shared = Arc::clone(&self.shared);
        if request.body().as_bytes().is_some() {
            return answer(&shared, Received::new(request));
        }
        Box::pin(async move {
            let received = Received::new(in_memory(request).await?);
            answer(&shared, received).await
        })
    }
}

type Answering = <Mock as Service<http::Request<Body>>>::Future;

fn answer(shared: &Arc<Mutex<Shared>>, received: Received) -> Answering {
    let mut state = lock(shared);
    let answer = state.answer(&received);
    let number = state.record.enter(received.clone());
    drop(state);
    let in_flight = InFlight::new(shared, number);
    Box::pin(async move {
        let (head, body) = answer.give(&received).await?.into_parts();
        let body: Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>> =
            Box::pin(AnswerBody::new(body, in_flight));
        Ok(http::Response::from_parts(head, body))
    })
}

/// A server has read the whole body before it answers.
async fn in_memory(request: http::Request<Body>) -> Result<http::Request<Body>, Error> {
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
            connecting: None,
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
            .field("total", &shared.record.total())
            .field("in_flight", &shared.record.in_flight())
            .finish_non_exhaustive()
    }
}
