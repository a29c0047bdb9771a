//! What is asked for: a request, and all that can be made one.

mod into_request;
mod parse_url;

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::{Position, Url};

use crate::credentials::{self, InvalidReason, Redacted};
use crate::limits::Priority;
use crate::proxy::ProxyChoice;
use crate::{Body, Error, ErrorKind, Proxy, Result};
pub use into_request::IntoRequest;
use parse_url::{check_scheme, parse_url};

/// A request: method, URL, headers, body, and what to observe in sending it.
///
/// To build one never fails. The first error (a bad URL, a header with a line break in it, JSON
/// that cannot be serialised) is remembered, and the request ends with
/// [`ErrorKind::InvalidRequest`] and the reason in its own place among the results; nothing of it
/// is sent. Only `http` and `https` URLs are valid.
///
/// A clone shares the URL and the body. Neither `Debug` nor `Display` shows a credential; the query
/// of the URL is shown.
///
/// ```
/// use fanout::Request;
/// use std::time::Duration;
///
/// let request = Request::post("https://api.example/search")
///     .query([("page", 2)])
///     .bearer_auth("token")
///     .header("accept", "application/json")
///     .form([("q", "crabs & lobsters")])
///     .timeout(Duration::from_secs(5))
///     .idempotent();
/// assert_eq!(request.url_str(), "https://api.example/search?page=2");
/// ```
#[derive(Clone)]
#[must_use = "a request does nothing until a Fetcher is given it"]
pub struct Request {
    target: Target,
    method: Method,
    body: Body,
    idempotent: bool,
    priority: Priority,
    /// None: it has none of that. A batch moves its requests about, so they are kept small.
    extras: Option<Box<RequestExtras>>,
}

/// What most requests of a batch have nothing of.
#[derive(Clone, Default)]
struct RequestExtras {
    headers: HeaderMap,
    save: Option<Arc<Path>>,
    timeout: Option<Duration>,
    max_redirects: Option<u32>,
    proxy_choice: ProxyChoice,
    error: Option<InvalidReason>,
}

static NO_EXTRAS: LazyLock<RequestExtras> = LazyLock::new(RequestExtras::default);

/// Where a request goes. Neither form holds user-info.
#[derive(Clone)]
pub(crate) enum Target {
    Url(Arc<Url>),
    /// What was given for a URL and is none.
    Text(Arc<str>),
}

impl Target {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Target::Url(url) => url.as_str(),
            Target::Text(text) => text,
        }
    }
}

impl From<Arc<Url>> for Target {
    fn from(url: Arc<Url>) -> Self {
        Target::Url(url)
    }
}

/// Text that is no URL is quoted and escaped: it may hold anything.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Url(url) => f.write_str(url.as_str()),
            Target::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// "scheme://host\[:port\]": what tells one server from another.
pub(crate) fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

// What the target of a request may have at most in `http::Uri`.
const MAX_URL_LEN: usize = u16::MAX as usize - 1;

impl Request {
    /// A request with any method but `CONNECT`, which asks for a tunnel and not for an answer.
    ///
    /// User-info in the URL is taken out of it and becomes basic authorization.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let request = Request::new(http::Method::OPTIONS, "https://user:pass@a.example/");
    /// assert_eq!(request.url_str(), "https://a.example/");
    /// assert!(request.header_map().contains_key("authorization"));
    /// ```
    pub fn new(method: Method, url: impl AsRef<str>) -> Self {
        Self::parse(method, url.as_ref())
    }

    /// A `GET` request.
    pub fn get(url: impl AsRef<str>) -> Self {
        Self::parse(Method::GET, url.as_ref())
    }

    /// A `HEAD` request.
    pub fn head(url: impl AsRef<str>) -> Self {
        Self::parse(Method::HEAD, url.as_ref())
    }

    /// A `POST` request.
    pub fn post(url: impl AsRef<str>) -> Self {
        Self::parse(Method::POST, url.as_ref())
    }

    /// A `PUT` request.
    pub fn put(url: impl AsRef<str>) -> Self {
        Self::parse(Method::PUT, url.as_ref())
    }

    /// A `PATCH` request.
    pub fn patch(url: impl AsRef<str>) -> Self {
        Self::parse(Method::PATCH, url.as_ref())
    }

    /// A `DELETE` request.
    pub fn delete(url: impl AsRef<str>) -> Self {
        Self::parse(Method::DELETE, url.as_ref())
    }

    fn parse(method: Method, text: &str) -> Self {
        match parse_url(text) {
            Ok(url) => Self::from_parsed(method, url),
            Err(reason) => Self::invalid(method, text, reason),
        }
    }

    fn from_url(url: Url) -> Self {
        match check_scheme(&url, url.as_str()) {
            Ok(()) => Self::from_parsed(Method::GET, url),
            Err(reason) => Self::invalid(Method::GET, url.as_str(), reason),
        }
    }

    fn from_parsed(method: Method, mut url: Url) -> Self {
        let authorization = credentials::take_user_info(&mut url);
        let mut request = Self::empty(method, Target::Url(Arc::new(url)));
        match authorization {
            None => request,
            Some(Ok(value)) => request.set(header::AUTHORIZATION, value),
            Some(Err(reason)) => {
                request.extras_mut().error = Some(reason);
                request
            }
        }
    }

    fn invalid(method: Method, text: &str, reason: InvalidReason) -> Self {
        let text = credentials::without_user_info(text);
        let mut request = Self::empty(method, Target::Text(text.into()));
        request.extras_mut().error = Some(reason);
        request
    }

    fn empty(method: Method, target: Target) -> Self {
        Self {
            target,
            method,
            body: Body::default(),
            idempotent: false,
            priority: Priority::default(),
            extras: None,
        }
    }

    fn extras(&self) -> &RequestExtras {
        match &self.extras {
            Some(extras) => extras,
            None => &NO_EXTRAS,
        }
    }

    fn extras_mut(&mut self) -> &mut RequestExtras {
        self.extras.get_or_insert_default()
    }

    /// Sets a header, replacing what it was.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are marked sensitive. `Proxy-Authorization` is sent to an HTTP
    /// [`Proxy`] with an `http` URL, and nowhere else.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match credentials::header(name, value) {
            Ok((name, value)) => self.set(name, value),
            Err(reason) => self.with_error(reason),
        }
    }

    /// Sets all headers of the map, replacing what those names were; a name with several values
    /// keeps them all.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        let mut current = None;
        for (name, mut value) in headers {
            // A name comes with the first of its values only.
            let first = name.is_some();
            current = name.or(current);
            let Some(name) = &current else { continue };
            credentials::mark_sensitive(name, &mut value);
            let fits = match first {
                true => self.extras_mut().headers.try_insert(name, value).is_ok(),
                false => self.extras_mut().headers.try_append(name, value).is_ok(),
            };
            if !fits {
                return self.with_error(TOO_MANY_HEADERS);
            }
        }
        self
    }

    fn set(mut self, name: HeaderName, value: HeaderValue) -> Self {
        match self.extras_mut().headers.try_insert(name, value) {
            Ok(_) => self,
            Err(_) => self.with_error(TOO_MANY_HEADERS),
        }
    }

    /// Sets `Authorization` to this bearer token.
    pub fn bearer_auth(self, token: impl AsRef<str>) -> Self {
        self.authorized(credentials::bearer_authorization(token.as_ref()))
    }

    /// Sets `Authorization` to this user and password; the user name must hold no colon.
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        self.authorized(credentials::basic_authorization(user, password))
    }

    fn authorized(self, value: Result<HeaderValue, InvalidReason>) -> Self {
        match value {
            Ok(value) => self.set(header::AUTHORIZATION, value),
            Err(reason) => self.with_error(reason),
        }
    }

    /// Appends pairs to the query of the URL, encoded as a form is.
    pub fn query<K, V>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: fmt::Display,
    {
        let query = match encoded(pairs) {
            Ok(query) => query,
            Err(reason) => return self.with_error(reason),
        };
        if let Target::Url(url) = &mut self.target
            && !query.is_empty()
        {
            let query = match url.query() {
                Some(before) if !before.is_empty() => format!("{before}&{query}"),
                _ => query,
            };
            Arc::make_mut(url).set_query(Some(&query));
        }
        self
    }

    /// Sets the body: bytes, text, or any other [`Body`].
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a form, and `Content-Type` to `application/x-www-form-urlencoded` unless it
    /// is set.
    pub fn form<K, V>(self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: fmt::Display,
    {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        match encoded(pairs) {
            Ok(body) => self.content_type(form).body(body),
            Err(reason) => self.with_error(reason),
        }
    }

    pub(crate) fn content_type(self, value: HeaderValue) -> Self {
        if self.extras().headers.contains_key(header::CONTENT_TYPE) {
            return self;
        }
        self.set(header::CONTENT_TYPE, value)
    }

    /// Saves the body of the response to a file, if the status is 2xx. What the file was before is replaced.
    ///
    /// It is written under another name in the same directory, which must exist, and gets its own when it is whole: no
    /// one ever sees half of it. If the item ends in an error, or is cancelled, the other name is removed.
    ///
    /// The [`Response`](crate::Response) has an empty body then, and says [where](crate::Response::saved_to) its body
    /// is; any other status is kept in memory as usual. The body cap does not hold for the file, and once the head has
    /// come no clock does but [`Timeouts::body_idle`](crate::Timeouts::body_idle) and the batch's deadline.
    ///
    /// A retry of a `GET` goes on where the last attempt broke off, if the server lets it: by a `Range` under the
    /// condition (`If-Range`) that the file is still the same, by its strong `ETag` or its `Last-Modified`. Otherwise
    /// it starts over. A file that cannot be written is [`ErrorKind::Save`].
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) {
    /// use fanout::Request;
    ///
    /// let pages = (1..=3).map(|n| Request::get(format!("https://a.example/{n}.pdf")).save_to(format!("{n}.pdf")));
    /// for response in fetcher.gather(pages).await.into_iter().flatten() {
    ///     println!("{} {:?} {:?}", response.status(), response.saved_to(), response.saved_bytes());
    /// }
    /// # }
    /// ```
    pub fn save_to(mut self, path: impl AsRef<Path>) -> Self {
        self.extras_mut().save = Some(Arc::from(path.as_ref()));
        self
    }

    pub(crate) fn save_path(&self) -> Option<&Arc<Path>> {
        self.extras().save.as_ref()
    }

    /// Limits one attempt to this much wire time: connect, send, first byte and body. No limit by
    /// default.
    ///
    /// It ends with [`ErrorKind::RequestTimeout`]. Waiting in the schedule does not count. Zero
    /// makes the request invalid.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if timeout.is_zero() {
            return self.with_error("the timeout is zero");
        }
        self.extras_mut().timeout = Some(timeout);
        self
    }

    /// Says that the request is safe to send twice, whatever its method, so that it may be retried.
    ///
    /// `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT` and `DELETE` are safe by definition, and so is a
    /// request with an `Idempotency-Key`.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Which requests of its batch it goes before, and which after. Default: [`Priority::Normal`].
    ///
    /// ```
    /// use fanout::{Priority, Request};
    ///
    /// let front_page = Request::get("https://example.com/").priority(Priority::High);
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    pub(crate) fn priority_level(&self) -> Priority {
        self.priority
    }

    /// Sends the request through this proxy, if it is for URLs of this kind; `None` sends it directly. Default: as the
    /// Fetcher does.
    ///
    /// Redirects of the request go the same way.
    ///
    /// ```
    /// use fanout::{Proxy, Request};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let request = Request::get("https://a.example/").proxy(Proxy::all("http://proxy.example:3128")?);
    /// let direct = Request::get("https://b.example/").proxy(None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn proxy(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        self.extras_mut().proxy_choice =
            proxy.into().map_or(ProxyChoice::Direct, ProxyChoice::Proxy);
        self
    }

    pub(crate) fn proxy_choice(&self) -> &ProxyChoice {
        &self.extras().proxy_choice
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URL, without user-info; `None` if what was given is not an `http` or `https` URL.
    pub fn url(&self) -> Option<&Url> {
        match &self.target {
            Target::Url(url) => Some(url),
            Target::Text(_) => None,
        }
    }

    /// The text of the URL, or what was given for one; never with user-info.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// assert_eq!(Request::get("http://a.example").url_str(), "http://a.example/");
    /// assert_eq!(Request::get("not a url").url_str(), "not a url");
    /// ```
    pub fn url_str(&self) -> &str {
        self.target.as_str()
    }

    /// The headers that were set.
    pub fn header_map(&self) -> &HeaderMap {
        &self.extras().headers
    }

    /// The body.
    pub fn content(&self) -> &Body {
        &self.body
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How many redirects of this request are followed: 0 makes the first one the result. Default: as
    /// the Fetcher does, which is 10.
    pub fn max_redirects(mut self, max_redirects: u32) -> Self {
        self.extras_mut().max_redirects = Some(max_redirects);
        self
    }

    pub(crate) fn most_redirects(&self) -> Option<u32> {
        self.extras().max_redirects
    }

    /// The same request to where a redirect points. One that becomes a GET leaves its body behind
    /// (RFC 9110 §15.4), and one that crosses to another origin leaves behind all that is secret.
    pub(crate) fn redirected(&self, to: Url, becomes_get: bool, crosses: bool) -> Self {
        let mut next = self.clone();
        if becomes_get {
            next.method = Method::GET;
            next.body = Body::default();
        }
        if let Some(extras) = &mut next.extras {
            let headers = &mut extras.headers;
            for name in CONTENT_HEADERS.iter().filter(|_| becomes_get) {
                headers.remove(name);
            }
            if crosses {
                credentials::remove_credentials(headers);
                headers.remove(header::HOST);
            }
        }
        match check_scheme(&to, to.as_str()) {
            Ok(()) => next.target = Target::Url(Arc::new(to)),
            Err(reason) => {
                next.target = Target::Text(credentials::without_user_info(to.as_str()).into());
                next = next.with_error(reason);
            }
        }
        next
    }

    /// The same request, its body kept: another's file is not to be overwritten.
    pub(crate) fn without_save(mut self) -> Self {
        if let Some(extras) = &mut self.extras {
            extras.save = None;
        }
        self
    }

    /// The wire time that one attempt may take.
    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        self.extras().timeout
    }

    /// Whether to send it a second time can do no harm.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.idempotent
            || self.method.is_idempotent()
            || self.extras().headers.contains_key("idempotency-key")
    }

    /// Remembers the error, if it is the first.
    pub(crate) fn with_error(mut self, reason: impl Into<InvalidReason>) -> Self {
        self.extras_mut().error.get_or_insert_with(|| reason.into());
        self
    }

    /// The URL of a request that [`check`](Self::check) has let pass.
    pub(crate) fn shared_url(&self) -> Option<&Arc<Url>> {
        match &self.target {
            Target::Url(url) => Some(url),
            Target::Text(_) => None,
        }
    }

    /// The URL to send it to, or why it cannot be sent.
    pub(crate) fn check(&self) -> Result<&Arc<Url>> {
        let reason = match (&self.target, &self.extras().error) {
            (Target::Url(url), None) => match self.unsendable(url) {
                None => return Ok(url),
                Some(reason) => reason.into(),
            },
            (_, Some(reason)) => reason.clone(),
            (Target::Text(_), None) => "it has no URL".into(),
        };
        let mut error = Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason);
        error.set_url(self.target.clone());
        Err(error)
    }

    /// What cannot be known before the request is whole.
    fn unsendable(&self, url: &Url) -> Option<&'static str> {
        if self.method == Method::CONNECT {
            return Some("the method CONNECT is not supported");
        }
        if url.as_str().len() > MAX_URL_LEN {
            return Some("the URL is longer than 65,534 bytes");
        }
        // All that follows is of them, and most requests have none.
        if self.extras().headers.is_empty() {
            return None;
        }
        if self
            .extras()
            .headers
            .get_all(header::HOST)
            .iter()
            .nth(1)
            .is_some()
        {
            return Some("it has more than one Host");
        }
        // A length that is not the body's would let the peer take part of one request for another.
        let mut stated = self.extras().headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(length) = self.body.len() else {
            return stated
                .next()
                .map(|_| "Content-Length is stated for a body whose length is not known");
        };
        let agrees = |value: &HeaderValue| {
            value.to_str().ok().and_then(|text| text.parse().ok()) == Some(length)
        };
        (!stated.all(agrees)).then_some("Content-Length is not the length of the body")
    }
}

/// What tells of a body, and goes with it.
const CONTENT_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::TRANSFER_ENCODING,
];

const TOO_MANY_HEADERS: &str = "it has too many headers";

fn encoded<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<String, InvalidReason>
where
    K: AsRef<str>,
    V: fmt::Display,
{
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let mut text = String::new();
    for (key, value) in pairs {
        text.clear();
        write!(text, "{value}").map_err(|_| "a value of the query or form cannot be displayed")?;
        form.append_pair(key.as_ref(), &text);
    }
    Ok(form.finish())
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Request");
        debug
            .field("method", &self.method)
            .field("url", &self.url_str())
            .field("headers", &Redacted(&self.extras().headers))
            .field("body", &self.body);
        if let Some(path) = &self.extras().save {
            debug.field("save_to", path);
        }
        if let Some(timeout) = self.extras().timeout {
            debug.field("timeout", &timeout);
        }
        if self.idempotent {
            debug.field("idempotent", &true);
        }
        if self.priority != Priority::default() {
            debug.field("priority", &self.priority);
        }
        if let Some(error) = &self.extras().error {
            debug.field("error", error);
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests;
