//! What is asked for: a request, and all that can be made one.

mod parse;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use url::{Position, Url};

use crate::credentials::{self, Reason, Shown};
use crate::proxy::Via;
use crate::{Body, Error, ErrorKind, Proxy, Result};
use parse::{check_scheme, parse};

/// A request: method, URL, headers, body, and what to observe in sending it.
///
/// To build one never fails. The first mistake (a bad URL, a header with a line break in it, JSON
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
///     .bearer("token")
///     .header("accept", "application/json")
///     .form([("q", "crabs & lobsters")])
///     .timeout(Duration::from_secs(5))
///     .idempotent();
/// assert_eq!(request.as_str(), "https://api.example/search?page=2");
/// ```
#[derive(Clone)]
#[must_use = "a request does nothing until a Fetcher is given it"]
pub struct Request {
    target: Target,
    method: Method,
    headers: HeaderMap,
    body: Body,
    save: Option<Arc<Path>>,
    timeout: Option<Duration>,
    max_redirects: Option<u32>,
    idempotent: bool,
    via: Via,
    mistake: Option<Reason>,
}

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
const LONGEST_URL: usize = u16::MAX as usize - 1;

impl Request {
    /// A request with any method but `CONNECT`, which asks for a tunnel and not for an answer.
    ///
    /// User-info in the URL is taken out of it and becomes basic authorization.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let request = Request::new(http::Method::OPTIONS, "https://user:pass@a.example/");
    /// assert_eq!(request.as_str(), "https://a.example/");
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
        match parse(text) {
            Ok(url) => Self::to(method, url),
            Err(reason) => Self::invalid(method, text, reason),
        }
    }

    fn from_url(url: Url) -> Self {
        match check_scheme(&url, url.as_str()) {
            Ok(()) => Self::to(Method::GET, url),
            Err(reason) => Self::invalid(Method::GET, url.as_str(), reason),
        }
    }

    fn to(method: Method, mut url: Url) -> Self {
        let authorization = credentials::take_user_info(&mut url);
        let mut request = Self::bare(method, Target::Url(Arc::new(url)));
        match authorization {
            None => request,
            Some(Ok(value)) => request.set(header::AUTHORIZATION, value),
            Some(Err(reason)) => {
                request.mistake = Some(reason);
                request
            }
        }
    }

    fn invalid(method: Method, text: &str, reason: Reason) -> Self {
        let text = credentials::without_user_info(text);
        let mut request = Self::bare(method, Target::Text(text.into()));
        request.mistake = Some(reason);
        request
    }

    fn bare(method: Method, target: Target) -> Self {
        Self {
            target,
            method,
            headers: HeaderMap::new(),
            body: Body::default(),
            save: None,
            timeout: None,
            max_redirects: None,
            idempotent: false,
            via: Via::default(),
            mistake: None,
        }
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
            Err(reason) => self.mistaken(reason),
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
            credentials::seal(name, &mut value);
            let fits = match first {
                true => self.headers.try_insert(name, value).is_ok(),
                false => self.headers.try_append(name, value).is_ok(),
            };
            if !fits {
                return self.mistaken(TOO_MANY_HEADERS);
            }
        }
        self
    }

    fn set(mut self, name: HeaderName, value: HeaderValue) -> Self {
        match self.headers.try_insert(name, value) {
            Ok(_) => self,
            Err(_) => self.mistaken(TOO_MANY_HEADERS),
        }
    }

    /// Sets `Authorization` to this bearer token.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        self.authorized(credentials::bearer(token.as_ref()))
    }

    /// Sets `Authorization` to this user and password; the user name must hold no colon.
    pub fn basic(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        self.authorized(credentials::basic(user, password))
    }

    fn authorized(self, value: Result<HeaderValue, Reason>) -> Self {
        match value {
            Ok(value) => self.set(header::AUTHORIZATION, value),
            Err(reason) => self.mistaken(reason),
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
            Err(reason) => return self.mistaken(reason),
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
            Err(reason) => self.mistaken(reason),
        }
    }

    pub(crate) fn content_type(self, value: HeaderValue) -> Self {
        if self.headers.contains_key(header::CONTENT_TYPE) {
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
        self.save = Some(Arc::from(path.as_ref()));
        self
    }

    pub(crate) fn save_path(&self) -> Option<&Arc<Path>> {
        self.save.as_ref()
    }

    /// Limits one attempt to this much wire time: connect, send, first byte and body. No limit by
    /// default.
    ///
    /// It ends with [`ErrorKind::RequestTimeout`]. Waiting in the schedule does not count. Zero
    /// makes the request invalid.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if timeout.is_zero() {
            return self.mistaken("the timeout is zero");
        }
        self.timeout = Some(timeout);
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
        self.via = proxy.into().map_or(Via::Direct, Via::Proxy);
        self
    }

    pub(crate) fn via(&self) -> &Via {
        &self.via
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
    /// assert_eq!(Request::get("http://a.example").as_str(), "http://a.example/");
    /// assert_eq!(Request::get("not a url").as_str(), "not a url");
    /// ```
    pub fn as_str(&self) -> &str {
        self.target.as_str()
    }

    /// The headers that were set.
    pub fn header_map(&self) -> &HeaderMap {
        &self.headers
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
    pub fn max_redirects(mut self, most: u32) -> Self {
        self.max_redirects = Some(most);
        self
    }

    pub(crate) fn most_redirects(&self) -> Option<u32> {
        self.max_redirects
    }

    /// The same request to where a redirect points. One that becomes a GET leaves its body behind
    /// (RFC 9110 §15.4), and one that crosses to another origin leaves behind all that is secret.
    pub(crate) fn redirected(&self, to: Url, becomes_get: bool, crosses: bool) -> Self {
        let mut next = self.clone();
        if becomes_get {
            next.method = Method::GET;
            next.body = Body::default();
            for name in OF_CONTENT {
                next.headers.remove(name);
            }
        }
        if crosses {
            credentials::drop_all(&mut next.headers);
            next.headers.remove(header::HOST);
        }
        match check_scheme(&to, to.as_str()) {
            Ok(()) => next.target = Target::Url(Arc::new(to)),
            Err(reason) => {
                next.target = Target::Text(credentials::without_user_info(to.as_str()).into());
                next = next.mistaken(reason);
            }
        }
        next
    }

    /// The same request, its body kept: another's file is not to be overwritten.
    pub(crate) fn unsaved(mut self) -> Self {
        self.save = None;
        self
    }

    /// The wire time that one attempt may take.
    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether to send it a second time can do no harm.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.idempotent
            || self.method.is_idempotent()
            || self.headers.contains_key("idempotency-key")
    }

    /// Remembers the mistake, if it is the first.
    pub(crate) fn mistaken(mut self, reason: impl Into<Reason>) -> Self {
        self.mistake.get_or_insert_with(|| reason.into());
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
        let reason = match (&self.target, &self.mistake) {
            (Target::Url(url), None) => match self.unsendable(url) {
                None => return Ok(url),
                Some(reason) => reason.into(),
            },
            (_, Some(reason)) => reason.clone(),
            (Target::Text(_), None) => "it has no URL".into(),
        };
        let mut error = Error::of(ErrorKind::InvalidRequest).because(reason);
        error.set_url(self.target.clone());
        Err(error)
    }

    /// What cannot be known before the request is whole.
    fn unsendable(&self, url: &Url) -> Option<&'static str> {
        if self.method == Method::CONNECT {
            return Some("the method CONNECT is not supported");
        }
        if url.as_str().len() > LONGEST_URL {
            return Some("the URL is longer than 65,534 bytes");
        }
        if self.headers.get_all(header::HOST).iter().nth(1).is_some() {
            return Some("it has more than one Host");
        }
        // A length that is not the body's would let the peer take part of one request for another.
        let mut stated = self.headers.get_all(header::CONTENT_LENGTH).iter();
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
const OF_CONTENT: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::TRANSFER_ENCODING,
];

const TOO_MANY_HEADERS: &str = "it has too many headers";

fn encoded<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<String, Reason>
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
            .field("url", &self.as_str())
            .field("headers", &Shown(&self.headers))
            .field("body", &self.body);
        if let Some(path) = &self.save {
            debug.field("save_to", path);
        }
        if let Some(timeout) = self.timeout {
            debug.field("timeout", &timeout);
        }
        if self.idempotent {
            debug.field("idempotent", &true);
        }
        if let Some(mistake) = &self.mistake {
            debug.field("mistake", mistake);
        }
        debug.finish()
    }
}

/// What can be fetched: a URL in any form, a [`Request`], or one of these with a tag.
///
/// It never fails: what is not a valid request becomes one that ends with
/// [`ErrorKind::InvalidRequest`]. A pair `(tag, request)` carries the tag through the batch to its
/// result.
///
/// ```
/// use fanout::IntoRequest;
///
/// let ((), request) = "https://a.example/".into_request();
/// assert_eq!(request.method(), "GET");
///
/// let (id, request) = (7, String::from("https://a.example/7")).into_request();
/// assert_eq!((id, request.as_str()), (7, "https://a.example/7"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be fetched",
    label = "neither a URL, nor a request, nor `(tag, one of these)`",
    note = "a URL may be a `&str`, `String`, `Url` or `http::Uri`; a request a `fanout::Request` or `http::Request`"
)]
pub trait IntoRequest {
    /// What is carried along; `()` where there is nothing.
    type Tag;

    /// The tag and the request.
    fn into_request(self) -> (Self::Tag, Request);
}

macro_rules! get_text {
    ($($text:ty),*) => {$(
        impl IntoRequest for $text {
            type Tag = ();

            fn into_request(self) -> ((), Request) {
                ((), Request::get(self))
            }
        }
    )*};
}

get_text!(
    &str,
    &&str,
    String,
    &String,
    &&String,
    Cow<'_, str>,
    &Cow<'_, str>
);

impl IntoRequest for Url {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), Request::from_url(self))
    }
}

impl IntoRequest for &Url {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        self.clone().into_request()
    }
}

impl IntoRequest for Uri {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), Request::get(self.to_string()))
    }
}

impl IntoRequest for &Uri {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), Request::get(self.to_string()))
    }
}

/// The version and the extensions are left behind.
impl<B: Into<Body>> IntoRequest for http::Request<B> {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        let (head, body) = self.into_parts();
        let request = Request::new(head.method, head.uri.to_string());
        ((), request.headers(head.headers).body(body))
    }
}

impl IntoRequest for Request {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self)
    }
}

impl IntoRequest for &Request {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self.clone())
    }
}

impl<T, R: IntoRequest<Tag = ()>> IntoRequest for (T, R) {
    type Tag = T;

    fn into_request(self) -> (T, Request) {
        let (tag, request) = self;
        (tag, request.into_request().1)
    }
}

impl<'a, T, R> IntoRequest for &'a (T, R)
where
    &'a R: IntoRequest<Tag = ()>,
{
    type Tag = &'a T;

    fn into_request(self) -> (&'a T, Request) {
        let (tag, request) = self;
        (tag, request.into_request().1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(request: &Request) -> String {
        let error = request.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(!error.maybe_sent());
        assert_eq!(error.url(), Some(request.as_str()));
        error.to_string()
    }

    fn as_get(input: impl IntoRequest<Tag = ()>) -> Request {
        input.into_request().1
    }

    #[test]
    fn an_invalid_url_keeps_its_text_and_says_why() {
        for (text, why) in [
            ("", "does not begin"),
            ("example.com", "does not begin"),
            ("/path", "does not begin"),
            ("//example.com/", "does not begin"),
            ("example.com:8080/x", "does not begin"),
            ("localhost:8080", "does not begin"),
            ("mailto:joe", "does not begin"),
            ("ftp://example.com/", "\"ftp\" is not supported"),
            ("file:///etc/passwd", "does not begin"),
            ("http://", "empty host"),
            ("https://?x", "empty host"),
            ("http://exa mple.com/", "domain"),
            ("http://a.example:99999/", "port"),
            ("http://a.example/\r\nHost: b.example", "line break"),
            ("http://a.example\n", "line break"),
            ("http://a.example/\0", "NUL"),
        ] {
            let request = Request::get(text);
            assert_eq!(request.as_str(), text);
            assert!(request.url().is_none());
            let reason = reason(&request);
            assert!(reason.contains(why), "{text:?}: {reason}");
            assert!(!reason.contains(['\n', '\r', '\0']));
        }
    }

    #[test]
    fn what_is_wrong_besides_the_url_is_said_too() {
        let post = || Request::post("http://a.example/");
        for (request, why) in [
            (post().header("", "x"), "name of a header"),
            (post().header("a b", "x"), "name of a header"),
            (post().header("x-a", "1\r\nx-b: 2"), "\"x-a\""),
            (post().header("x-a", "\0"), "\"x-a\""),
            (post().bearer(""), "empty"),
            (post().bearer("a\n"), "bearer token"),
            (post().basic("a:b", "c"), "colon"),
            (post().timeout(Duration::ZERO), "timeout is zero"),
            (
                post().header("content-length", 3).body("four"),
                "Content-Length",
            ),
            (
                Request::new(Method::CONNECT, "http://a.example/"),
                "CONNECT",
            ),
            (Request::get("http://a%3Ab:c@a.example/"), "colon"),
            (post().query([("q", "x".repeat(66_000))]), "longer"),
        ] {
            let reason = reason(&request);
            assert!(reason.contains(why), "{reason}");
            assert!(reason.contains("http://a.example/"), "{reason}");
        }
    }

    #[test]
    fn the_first_mistake_is_the_one_reported() {
        let request = Request::get("example.com").header("a b", "x").bearer("");
        assert!(reason(&request).contains("does not begin"));
    }

    #[test]
    fn a_content_length_that_is_right_is_accepted() {
        let request = Request::post("http://a.example/")
            .header("content-length", 4)
            .body("four");
        assert!(request.check().is_ok());
    }

    #[test]
    fn user_info_becomes_basic_authorization_unless_it_is_set() {
        let request = Request::get("http://Aladdin:open%20sesame@a.example/x?y#z");
        assert_eq!(request.as_str(), "http://a.example/x?y#z");
        let value = &request.header_map()["authorization"];
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(value.is_sensitive());

        let request = http::Request::get("http://user:pass@a.example/")
            .header("authorization", "Own")
            .body(())
            .unwrap();
        let request = as_get(request);
        assert_eq!(request.as_str(), "http://a.example/");
        assert_eq!(request.header_map()["authorization"], "Own");
        assert!(request.header_map()["authorization"].is_sensitive());
    }

    #[test]
    fn header_replaces_and_headers_keeps_all_values_of_a_name() {
        let mut map = HeaderMap::new();
        map.append("x-a", HeaderValue::from_static("2"));
        map.append("x-a", HeaderValue::from_static("3"));
        map.append("cookie", HeaderValue::from_static("s=1"));
        let request = Request::get("http://a.example/")
            .header("X-A", "0")
            .header("x-a", "1");
        assert_eq!(request.header_map().get_all("x-a").iter().count(), 1);
        let request = request.header("x-b", 4).headers(map);
        let values: Vec<_> = request.header_map().get_all("x-a").iter().collect();
        assert_eq!(values, ["2", "3"]);
        assert_eq!(request.header_map()["x-b"], "4");
        assert!(request.header_map()["cookie"].is_sensitive());
    }

    #[test]
    fn query_is_appended_before_the_fragment() {
        let none: [(&str, &str); 0] = [];
        for (url, expected) in [
            ("http://a.example", "http://a.example/?a+b=1%262"),
            ("http://a.example/?", "http://a.example/?a+b=1%262"),
            (
                "http://a.example/?x=y#f",
                "http://a.example/?x=y&a+b=1%262#f",
            ),
        ] {
            let request = Request::get(url).query([("a b", "1&2")]).query(none);
            assert_eq!(request.as_str(), expected);
        }
        assert_eq!(
            Request::get("http://a.example").query(none).as_str(),
            "http://a.example/"
        );
    }

    #[test]
    fn a_query_of_a_clone_leaves_the_original_alone() {
        let original = Request::get("http://a.example/");
        let page = original.clone().query([("page", 2)]);
        assert_eq!(original.as_str(), "http://a.example/");
        assert_eq!(page.as_str(), "http://a.example/?page=2");
    }

    #[test]
    fn a_form_is_encoded_and_typed() {
        let request = Request::post("http://a.example/").form([("a", "ä"), ("b", "c d")]);
        assert_eq!(request.content().as_bytes().unwrap(), "a=%C3%A4&b=c+d");
        let kind = &request.header_map()["content-type"];
        assert_eq!(kind, "application/x-www-form-urlencoded");
    }

    #[test]
    fn what_is_safe_to_repeat_follows_rfc_9110_or_the_users_word() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert!(Request::new(method, "http://a.example/").is_repeatable());
        }
        let post = Request::post("http://a.example/");
        assert!(!post.is_repeatable());
        assert!(!Request::patch("http://a.example/").is_repeatable());
        assert!(post.clone().idempotent().is_repeatable());
        assert!(post.header("Idempotency-Key", "7").is_repeatable());
    }

    #[test]
    fn every_form_of_a_url_is_the_same_request() {
        let text = "http://a.example/x";
        let owned = String::from(text);
        let url = Url::parse(text).unwrap();
        let uri: Uri = text.parse().unwrap();
        let (borrowed, request) = (&text, &Request::get(text));
        for request in [
            as_get(text),
            as_get(borrowed),
            as_get(&owned),
            as_get(owned.clone()),
            as_get(Cow::Borrowed(text)),
            as_get(&url),
            as_get(url.clone()),
            as_get(&uri),
            as_get(uri.clone()),
            as_get(Request::get(&url)),
            as_get(request),
            as_get(http::Request::get(text).body(()).unwrap()),
        ] {
            assert_eq!(request.method(), Method::GET);
            assert_eq!(request.check().unwrap().as_str(), text);
        }
    }

    #[test]
    fn tags_travel_by_value_or_by_reference() {
        let pairs = [(1, "http://a.example/1"), (2, "http://a.example/2")];
        let tags: Vec<i32> = pairs.iter().map(|pair| *pair.into_request().0).collect();
        assert_eq!(tags, [1, 2]);
        let (tag, request) = ("one", &pairs[0].1).into_request();
        assert_eq!((tag, request.as_str()), ("one", "http://a.example/1"));
    }

    #[test]
    fn an_http_request_keeps_method_headers_and_body() {
        let request = http::Request::put("http://a.example/")
            .header("x-a", "1")
            .header("x-a", "2")
            .body("text")
            .unwrap();
        let request = as_get(request);
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.header_map().get_all("x-a").iter().count(), 2);
        assert_eq!(request.content().as_bytes().unwrap(), "text");
        assert!(
            as_get(http::Request::get("/path").body(()).unwrap())
                .check()
                .is_err()
        );
    }

    #[test]
    fn the_origin_is_scheme_host_and_port() {
        for (url, expected) in [
            ("http://A.example:80/x?y", "http://a.example"),
            ("https://a.example:444", "https://a.example:444"),
            ("http://[::1]:8/x", "http://[::1]:8"),
        ] {
            assert_eq!(origin(Request::get(url).url().unwrap()), expected);
        }
    }

    #[test]
    fn a_url_given_as_a_value_is_checked_too() {
        let url = Url::parse("ftp://user:s3cr3t@a.example/").unwrap();
        let request = as_get(url);
        assert_eq!(request.as_str(), "ftp://***@a.example/");
        assert!(reason(&request).contains("\"ftp\""));
    }

    #[test]
    fn debug_and_display_hide_credentials_and_show_the_rest() {
        let request = Request::post("http://user:s3cr3t@a.example/")
            .header("x-api-key", "s3cr3t")
            .header("cookie", "s3cr3t")
            .header("accept", "text/html")
            .body("s3cr3t");
        for request in [
            &request,
            &request.clone().bearer("s3cr3t"),
            &request.clone().basic("u", "s3cr3t"),
        ] {
            let shown = format!("{request} {request:?}");
            assert!(
                !shown.contains("s3cr3t") && !shown.contains("czNjcjN0"),
                "{shown}"
            );
            assert!(shown.contains("POST http://a.example/") && shown.contains("text/html"));
        }
    }

    proptest! {
        #[test]
        fn building_never_panics(a in "\\PC*|.*", b in ".*", c in ".*") {
            let request = Request::post(&a)
                .header(&b, &c)
                .bearer(&b)
                .basic(&b, &c)
                .query([(&b, &c)])
                .form([(&b, &c)])
                .body(c);
            let _ = (request.check().is_ok(), format!("{request:?} {request}"));
            let _ = Request::get(format!("http://{a}")).query([(&b, 1)]).check().is_ok();
        }

        #[test]
        fn user_info_is_never_shown(
            scheme in "(http://|https://|HTTP://|http:|//|ftp://|x:|)",
            user in "[a-z%]{0,5}",
            rest in "\\PC{0,10}",
            host in "(a\\.example|[^\\\\/?#@]{0,8}|\\PC{0,8})",
        ) {
            let request = Request::get(format!("{scheme}{user}:S3CR3T{rest}@{host}"));
            let error = request.clone().header("", "").check().unwrap_err();
            let shown = format!("{} {request} {request:?} {error} {error:?}", request.as_str());
            prop_assert!(!shown.contains("S3CR3T") && !shown.contains("s3cr3t"), "{}", shown);
        }

        #[test]
        fn what_passes_the_check_can_be_put_on_the_wire(
            path in "[ -~]{0,30}|\\PC{0,30}",
            query in "[ -~]{0,30}|\\PC{0,30}",
        ) {
            let request = Request::get(format!("http://a.example/{path}")).query([(&query, &query)]);
            if let Ok(url) = request.check() {
                let target = &url[Position::BeforePath..Position::AfterQuery];
                prop_assert!(http::uri::PathAndQuery::try_from(target).is_ok(), "{}", target);
            }
        }
    }
}
