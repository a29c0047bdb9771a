//! A request: method, URL, headers, body, and the settings for sending it.

mod builder;
mod check;
mod into_request;
mod parse_url;
mod url_or_text;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::body::Body;
use crate::body_progress::BodyProgress;
use crate::credentials::{self, InvalidReason, RedactedHeaders};
use crate::limits::Priority;
use crate::proxy::ProxyChoice;
use crate::redacted_url::RedactedUrl;
use crate::redirect_policy::RedirectPolicy;
pub use builder::RequestBuilder;
pub use into_request::IntoRequest;
use parse_url::{parse_url, require_http_scheme};
pub(crate) use url_or_text::{UrlOrInvalidText, origin};

/// An HTTP request: method, URL, headers, body and per-request settings.
///
/// The constructors, such as [`Request::get`], return a [`RequestBuilder`], which has the setters.
/// [`RequestBuilder::build`] returns the finished `Request`, which has the getters;
/// [`into_builder`](Self::into_builder) turns a `Request` into a builder again. Fetches and batches
/// accept requests and builders.
///
/// Building a request never fails. The first error (an invalid URL, a header with a line break, a
/// value that cannot be serialized) is kept in the request. Fetching that request returns
/// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) as the result of that one input,
/// and nothing is sent. Only `http` and `https` URLs are valid. Whitespace and line breaks around a
/// URL are removed.
///
/// A clone shares the URL and the body. `Debug` and `Display` never show a credential. Of the
/// query, they show the names of the parameters and not the values; [`url_str`](Self::url_str)
/// returns the whole URL.
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
///     .idempotent()
///     .build();
/// assert_eq!(request.method(), "POST");
/// assert_eq!(request.url_str(), "https://api.example/search?page=2");
/// assert_eq!(request.headers()["accept"], "application/json");
/// ```
#[derive(Clone)]
#[must_use = "a request does nothing until it is passed to a Fetcher"]
pub struct Request {
    url_or_invalid_text: UrlOrInvalidText,
    method: Method,
    body: Body,
    is_marked_idempotent: bool,
    priority: Priority,
    /// `None` if all extras have their defaults. The box keeps `Request` small, because a batch
    /// moves its requests often.
    extras: Option<Box<RequestExtras>>,
}

/// The parts of a request that most requests of a batch leave unset.
#[derive(Clone, Default)]
struct RequestExtras {
    headers: HeaderMap,
    save_path: Option<Arc<Path>>,
    decodes_content: Option<bool>,
    attempt_timeout: Option<Duration>,
    max_redirects: Option<u32>,
    redirect_policy: Option<RedirectPolicy>,
    proxy_choice: ProxyChoice,
    body_progress: Option<BodyProgress>,
    /// The costs that the request states, by the names of the budgets.
    costs: Vec<(Cow<'static, str>, u64)>,
    /// Why the request is invalid: the first error of its builder.
    invalid_reason: Option<InvalidReason>,
}

static DEFAULT_EXTRAS: LazyLock<RequestExtras> = LazyLock::new(RequestExtras::default);

impl Request {
    /// Starts a request with `method`. `CONNECT` is not supported.
    ///
    /// Userinfo (`user:password@`) is removed from the URL and sent as basic authorization.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let options = http::Method::OPTIONS;
    /// let request = Request::new(options, "https://user:pass@a.example/").build();
    /// assert_eq!(request.url_str(), "https://a.example/");
    /// assert!(request.headers().contains_key("authorization"));
    /// ```
    #[allow(clippy::new_ret_no_self)]
    pub fn new(method: Method, url: impl AsRef<str>) -> RequestBuilder {
        RequestBuilder::from(Self::from_text(method, url.as_ref()))
    }

    /// Starts a `GET` request.
    pub fn get(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::GET, url)
    }

    /// Starts a `HEAD` request.
    pub fn head(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::HEAD, url)
    }

    /// Starts a `POST` request.
    pub fn post(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::POST, url)
    }

    /// Starts a `PUT` request.
    pub fn put(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::PUT, url)
    }

    /// Starts a `PATCH` request.
    pub fn patch(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::PATCH, url)
    }

    /// Starts a `DELETE` request.
    pub fn delete(url: impl AsRef<str>) -> RequestBuilder {
        Self::new(Method::DELETE, url)
    }

    /// Turns the request into a builder, which can change it.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let first_page = Request::get("https://a.example/list").build();
    /// let second_page = first_page.clone().into_builder().query([("page", 2)]).build();
    /// assert_eq!(first_page.url_str(), "https://a.example/list");
    /// assert_eq!(second_page.url_str(), "https://a.example/list?page=2");
    /// ```
    pub fn into_builder(self) -> RequestBuilder {
        RequestBuilder::from(self)
    }

    /// The request method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URL, without userinfo. `None` if the request was made from text that is not an `http`
    /// or `https` URL.
    pub fn url(&self) -> Option<&Url> {
        self.url_or_invalid_text.url().map(|url| &**url)
    }

    /// The URL as text, or the invalid text that was passed as a URL. The text never contains
    /// userinfo.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// assert_eq!(Request::get("http://a.example").build().url_str(), "http://a.example/");
    /// assert_eq!(Request::get("not a url").build().url_str(), "not a url");
    /// ```
    pub fn url_str(&self) -> &str {
        self.url_or_invalid_text.as_str()
    }

    /// The headers set on this request.
    ///
    /// When the request is sent, other headers are added: those of the [`Host`](crate::Host)
    /// settings, default headers, `Host`, `User-Agent`, `Accept` and `Accept-Encoding`.
    pub fn headers(&self) -> &HeaderMap {
        &self.extras().headers
    }

    /// The request body. Default: empty.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The limit on the wire time of one attempt, set with [`RequestBuilder::timeout`]. `None`
    /// means no limit.
    pub fn timeout(&self) -> Option<Duration> {
        self.extras().attempt_timeout
    }

    /// The number of redirects to follow, set with [`RequestBuilder::max_redirects`]. `None` means
    /// the limit of the Fetcher.
    pub fn max_redirects(&self) -> Option<u32> {
        self.extras().max_redirects
    }

    /// The redirect policy, set with [`RequestBuilder::redirect_policy`]. `None` means the policy
    /// of the Fetcher.
    pub fn redirect_policy(&self) -> Option<&RedirectPolicy> {
        self.extras().redirect_policy.as_ref()
    }

    /// The priority of the request within its batch, set with [`RequestBuilder::priority`].
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The cost of the request on the budgets with this name, set with [`RequestBuilder::cost`].
    /// `None` means the [default cost](crate::Budget::default_cost) of each budget.
    pub fn cost(&self, budget_name: &str) -> Option<u64> {
        let costs = &self.extras.as_ref()?.costs;
        let stated = costs.iter().find(|(name, _)| name == budget_name);
        stated.map(|&(_, units)| units)
    }

    /// Whether sending the request twice is safe.
    ///
    /// True for the methods that RFC 9110 §9.2.2 defines as idempotent, for a request with an
    /// `Idempotency-Key` header, and for a request marked with [`RequestBuilder::idempotent`].
    pub fn is_idempotent(&self) -> bool {
        self.is_marked_idempotent
            || self.method.is_idempotent()
            || self.headers().contains_key("idempotency-key")
    }

    /// Whether a setter of the builder has made the request invalid.
    pub(crate) fn is_invalid(&self) -> bool {
        self.extras().invalid_reason.is_some()
    }

    /// Whether the content codings of the response body are decoded, set with
    /// [`RequestBuilder::decode_content`] or implied by [`RequestBuilder::save_to`]. `None` means
    /// the setting of the Fetcher.
    pub fn decodes_content(&self) -> Option<bool> {
        let extras = self.extras.as_ref()?;
        let is_saved = extras.save_path.is_some();
        extras.decodes_content.or(is_saved.then_some(false))
    }

    /// Whether the body of a response that is not saved to a file is decoded. `None` means the
    /// setting of the Fetcher.
    pub(crate) fn decodes_unsaved_content(&self) -> Option<bool> {
        self.extras.as_ref()?.decodes_content
    }

    /// The progress of the response body, set with [`RequestBuilder::body_progress`].
    pub fn body_progress(&self) -> Option<&BodyProgress> {
        self.extras.as_ref()?.body_progress.as_ref()
    }

    pub(crate) fn save_path(&self) -> Option<&Arc<Path>> {
        self.extras().save_path.as_ref()
    }

    pub(crate) fn proxy_choice(&self) -> &ProxyChoice {
        &self.extras().proxy_choice
    }

    pub(crate) fn url_or_invalid_text(&self) -> &UrlOrInvalidText {
        &self.url_or_invalid_text
    }

    pub(crate) fn shared_url(&self) -> Option<&Arc<Url>> {
        self.url_or_invalid_text.url()
    }

    /// The request that follows a redirect of this request to `url`.
    ///
    /// If `changes_method_to_get`, the method becomes GET, and the body and its headers are dropped
    /// (RFC 9110 §15.4). If `is_cross_origin`, the `Host` header and every header that carries
    /// credentials are dropped.
    pub(crate) fn redirected(
        &self,
        url: Url,
        changes_method_to_get: bool,
        is_cross_origin: bool,
    ) -> Self {
        let mut next = self.clone();
        if changes_method_to_get {
            next.method = Method::GET;
            next.body = Body::default();
        }
        if let Some(extras) = &mut next.extras {
            if changes_method_to_get {
                for name in &CONTENT_HEADERS {
                    extras.headers.remove(name);
                }
            }
            if is_cross_origin {
                credentials::remove_credential_headers(&mut extras.headers);
                extras.headers.remove(header::HOST);
            }
        }
        match require_http_scheme(&url, url.as_str()) {
            Ok(()) => next.url_or_invalid_text = UrlOrInvalidText::Url(Arc::new(url)),
            Err(reason) => {
                next.url_or_invalid_text = UrlOrInvalidText::InvalidText(
                    credentials::mask_possible_user_info(url.as_str()).into(),
                );
                next.set_invalid(reason);
            }
        }
        next
    }

    /// The same request without its [`save_to`](RequestBuilder::save_to) path. The request for the
    /// next page of a list must not overwrite the file of the previous page.
    pub(crate) fn without_save_path(mut self) -> Self {
        if let Some(extras) = &mut self.extras {
            extras.save_path = None;
        }
        self
    }

    /// The same request without the fragment of its URL, which is not sent.
    pub(crate) fn without_fragment(mut self) -> Self {
        if let UrlOrInvalidText::Url(url) = &mut self.url_or_invalid_text
            && url.fragment().is_some()
        {
            Arc::make_mut(url).set_fragment(None);
        }
        self
    }

    /// A request for the URL in `text`. If `text` is not a URL, the request is invalid.
    fn from_text(method: Method, text: &str) -> Self {
        match parse_url(text) {
            Ok(url) => Self::from_valid_url(method, url),
            Err(reason) => Self::from_invalid_text(method, text, reason),
        }
    }

    /// A `GET` request for a parsed URL. If its scheme is not `http` or `https`, the request is
    /// invalid.
    fn from_url(url: Url) -> Self {
        match require_http_scheme(&url, url.as_str()) {
            Ok(()) => Self::from_valid_url(Method::GET, url),
            Err(reason) => Self::from_invalid_text(Method::GET, url.as_str(), reason),
        }
    }

    #[inline]
    fn from_valid_url(method: Method, mut url: Url) -> Self {
        let authorization = credentials::take_user_info_as_authorization(&mut url);
        let mut request =
            Self::with_url_or_invalid_text(method, UrlOrInvalidText::Url(Arc::new(url)));
        match authorization {
            Some(Ok(value)) => request.insert_header(header::AUTHORIZATION, value),
            Some(Err(reason)) => request.set_invalid(reason),
            None => {}
        }
        request
    }

    fn from_invalid_text(method: Method, text: &str, reason: InvalidReason) -> Self {
        let text = credentials::mask_possible_user_info(text);
        let mut request =
            Self::with_url_or_invalid_text(method, UrlOrInvalidText::InvalidText(text.into()));
        request.set_invalid(reason);
        request
    }

    fn with_url_or_invalid_text(method: Method, url_or_invalid_text: UrlOrInvalidText) -> Self {
        Self {
            url_or_invalid_text,
            method,
            body: Body::default(),
            is_marked_idempotent: false,
            priority: Priority::default(),
            extras: None,
        }
    }

    fn extras(&self) -> &RequestExtras {
        match &self.extras {
            Some(extras) => extras,
            None => &DEFAULT_EXTRAS,
        }
    }

    fn extras_mut(&mut self) -> &mut RequestExtras {
        self.extras.get_or_insert_default()
    }

    fn insert_header(&mut self, name: HeaderName, value: HeaderValue) {
        if self.extras_mut().headers.try_insert(name, value).is_err() {
            self.set_invalid(TOO_MANY_HEADERS_REASON);
        }
    }

    /// Makes the request invalid for `reason`, unless it is already invalid: only the first reason
    /// is kept.
    fn set_invalid(&mut self, reason: impl Into<InvalidReason>) {
        let first_reason = &mut self.extras_mut().invalid_reason;
        first_reason.get_or_insert_with(|| reason.into());
    }
}

/// The headers that describe a body. They are removed when a redirect drops the body of a request.
const CONTENT_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::TRANSFER_ENCODING,
];

const TOO_MANY_HEADERS_REASON: &str = "it has too many headers";

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url_or_invalid_text)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extras = self.extras();
        let mut debug = f.debug_struct("Request");
        debug
            .field("method", &self.method)
            .field("url", &RedactedUrl(self.url_str()))
            .field("headers", &RedactedHeaders(&extras.headers))
            .field("body", &self.body);
        if let Some(path) = &extras.save_path {
            debug.field("save_to", path);
        }
        if let Some(decodes_content) = extras.decodes_content {
            debug.field("decode_content", &decodes_content);
        }
        if let Some(timeout) = extras.attempt_timeout {
            debug.field("timeout", &timeout);
        }
        if self.is_marked_idempotent {
            debug.field("idempotent", &true);
        }
        if self.priority != Priority::default() {
            debug.field("priority", &self.priority);
        }
        if !extras.costs.is_empty() {
            debug.field("costs", &extras.costs);
        }
        if let Some(reason) = &extras.invalid_reason {
            debug.field("invalid", reason);
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests;
