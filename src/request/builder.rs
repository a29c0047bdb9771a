//! The setters of a request.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Request, TOO_MANY_HEADERS_REASON, UrlOrInvalidText};
use crate::body::Body;
use crate::body_progress::BodyProgress;
use crate::credentials::{self, InvalidReason};
use crate::limits::Priority;
use crate::proxy::{Proxy, ProxyChoice};
use crate::redirect_policy::RedirectPolicy;

/// Builds a [`Request`]. [`Request::get`] and the other constructors of `Request` return a builder.
///
/// A fetch or a batch accepts a builder where it accepts a request, so calling
/// [`build`](Self::build) is needed only to read the request or to store it.
///
/// Setters do not fail. The first error is kept, and fetching the request returns the error as
/// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest).
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
/// use fanout::Request;
///
/// let created = fetcher
///     .fetch(Request::post("https://api.example/items").body("a new item").idempotent())
///     .await?;
/// println!("{}", created.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a request does nothing until it is passed to a Fetcher"]
pub struct RequestBuilder {
    request: Request,
}

impl RequestBuilder {
    /// Returns the finished request. `build` never fails: if a value is invalid, fetching the
    /// request returns the error.
    pub fn build(self) -> Request {
        self.request
    }

    /// Sets the header `name` to `value`, replacing all previous values of that name.
    ///
    /// The values of `Authorization`, `Proxy-Authorization` and `Cookie` are marked sensitive.
    /// `Proxy-Authorization` is sent only if the URL is an `http` URL, and only to an HTTP
    /// [`Proxy`].
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match credentials::parse_header_name_and_value(name, value) {
            Ok((name, value)) => self.insert_header(name, value),
            Err(reason) => self.with_invalid_reason(reason),
        }
    }

    /// Sets every header of `headers`, replacing all previous values of those names.
    ///
    /// If a name has several values in `headers`, all of them are kept.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        let mut current = None;
        for (name, mut value) in headers {
            // If a name has several values, `HeaderMap` yields `Some(name)` with the first one and
            // `None` with the others.
            let is_first = name.is_some();
            current = name.or(current);
            let Some(name) = &current else { continue };
            credentials::mark_sensitive_if_credential(name, &mut value);
            let own_headers = &mut self.request.extras_mut().headers;
            let fits = if is_first {
                own_headers.try_insert(name, value).is_ok()
            } else {
                own_headers.try_append(name, value).is_ok()
            };
            if !fits {
                return self.with_invalid_reason(TOO_MANY_HEADERS_REASON);
            }
        }
        self
    }

    fn insert_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.request.insert_header(name, value);
        self
    }

    /// Sets `Authorization` to the bearer token `token` (RFC 6750). Default: none.
    ///
    /// A token that is empty or contains a space or a control character makes the request invalid.
    pub fn bearer_auth(self, token: impl AsRef<str>) -> Self {
        self.set_authorization_header(credentials::bearer_authorization(token.as_ref()))
    }

    /// Sets `Authorization` to a user name and password (basic authentication, RFC 7617). Default:
    /// none.
    ///
    /// A user name that contains a colon makes the request invalid.
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        self.set_authorization_header(credentials::basic_authorization(user, password))
    }

    fn set_authorization_header(self, value: Result<HeaderValue, InvalidReason>) -> Self {
        match value {
            Ok(value) => self.insert_header(header::AUTHORIZATION, value),
            Err(reason) => self.with_invalid_reason(reason),
        }
    }

    /// Appends name-value pairs to the query of the URL, encoded as
    /// `application/x-www-form-urlencoded`.
    pub fn query<K, V>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: fmt::Display,
    {
        let query = match form_urlencoded_pairs(pairs) {
            Ok(query) => query,
            Err(reason) => return self.with_invalid_reason(reason),
        };
        if let UrlOrInvalidText::Url(url) = &mut self.request.url_or_invalid_text
            && !query.is_empty()
        {
            let query = match url.query() {
                Some(existing) if !existing.is_empty() => format!("{existing}&{query}"),
                _ => query,
            };
            Arc::make_mut(url).set_query(Some(&query));
        }
        self
    }

    /// Sets the body: bytes, text or any other [`Body`]. Default: empty.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.request.body = body.into();
        self
    }

    /// Sets the body to name-value pairs, encoded as an HTML form. Sets `Content-Type` to
    /// `application/x-www-form-urlencoded` unless the request already has a `Content-Type`.
    pub fn form<K, V>(self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: fmt::Display,
    {
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        match form_urlencoded_pairs(pairs) {
            Ok(body) => self.with_default_content_type(content_type).body(body),
            Err(reason) => self.with_invalid_reason(reason),
        }
    }

    /// Sets `Content-Type` to `value` unless the request already has a `Content-Type`.
    pub(crate) fn with_default_content_type(self, value: HeaderValue) -> Self {
        if self.request.headers().contains_key(header::CONTENT_TYPE) {
            return self;
        }
        self.insert_header(header::CONTENT_TYPE, value)
    }

    /// Writes the body of a 2xx response to the file `path` instead of keeping it in memory. An
    /// existing file is replaced. Default: bodies are kept in memory.
    ///
    /// The body goes to a part file in the same directory, which must exist. The part file is
    /// renamed to `path` when the body is complete, so `path` never holds a partial body.
    ///
    /// The file holds the bytes as the server sent them: the request accepts only the content
    /// coding `identity`, and if the server applies another coding, the body is not decoded. With
    /// [`decode_content(true)`](Self::decode_content), the request accepts other codings, and the
    /// file holds the decoded bytes.
    ///
    /// The [`Response`](crate::Response) has an empty body, and
    /// [`saved_to`](crate::Response::saved_to) returns the path. The body of a response with
    /// another status is kept in memory. [`max_body_size`](crate::FetcherBuilder::max_body_size)
    /// does not apply to the file. After the response head, only
    /// [`Timeouts::body_idle`](crate::Timeouts::body_idle) and the deadline of the batch apply.
    ///
    /// # Resuming
    ///
    /// A retry resumes the download: it requests only the rest, with `Range` and `If-Range` (RFC
    /// 9110 §13.1.5). To be resumed, a download needs a `GET` request without `Range` and a
    /// response with the status 200 and a strong validator: a strong `ETag`, or a `Last-Modified`
    /// that is older than `Date` (RFC 9110 §8.8). A body with a content coding needs an `ETag`, and
    /// a decoded body cannot be resumed. If the body has changed, or the server does not support
    /// ranges, the download starts over. The response to a resumed download has the head of the
    /// whole body: the status 200 and the complete `Content-Length` (RFC 9110 §15.3.7.3).
    ///
    /// If an attempt has enlarged the file, the retries so far no longer count towards
    /// [`max_retries`](crate::Retry::max_retries). This rule applies up to 100 times per request.
    ///
    /// The part file is named `path` with the suffix `.part`. A second file with the suffix
    /// `.part-info` holds the validator and a hash of the URL, but no credentials. Both files stay
    /// if the request fails or is cancelled, or if the process is killed, and the next request for
    /// the same URL and path resumes the download. A killed process loses the data that it received
    /// in the last second, at most 256 KiB. Both files are deleted if the status is 404 or 410.
    ///
    /// The part file has a random name, `.fanout-*.part`, if the download cannot be resumed, if
    /// another download of this process to the same `path` is running, or if a file of another
    /// program has the name of the part file. If another process downloads to the same `path`, that
    /// process takes over the part file, and the download of this process starts over. A part file
    /// that is a link, or belongs to another user, is not used.
    ///
    /// # Errors
    ///
    /// The request fails with [`ErrorKind::Save`](crate::ErrorKind::Save) if the file cannot be
    /// written. It fails with [`ErrorKind::Truncated`](crate::ErrorKind::Truncated) if the length
    /// of the file is not the total that `Content-Length` or `Content-Range` announces, or if the
    /// server sends only a part of the body (206) to a request without `Range`. A request that
    /// fails with `Truncated` is retried.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) {
    /// use fanout::Request;
    ///
    /// let pages = (1..=3).map(|n| {
    ///     Request::get(format!("https://a.example/{n}.pdf")).save_to(format!("{n}.pdf"))
    /// });
    /// for response in fetcher.gather(pages).await.into_iter().flatten() {
    ///     println!("{} {:?}", response.status(), response.saved_to());
    /// }
    /// # }
    /// ```
    pub fn save_to(mut self, path: impl AsRef<Path>) -> Self {
        self.request.extras_mut().save_path = Some(Arc::from(path.as_ref()));
        self
    }

    /// Sets whether the content codings (`Content-Encoding`) of the response body are decoded.
    /// Default: `false` if [`save_to`](Self::save_to) is set; otherwise, the setting of the
    /// Fetcher, [`FetcherBuilder::decode_content`](crate::FetcherBuilder::decode_content).
    ///
    /// With `true`, the request accepts the codings of the enabled features, unless the request has
    /// a `Range`. With `false`, the request accepts only `identity`, and the body is returned as
    /// received. If `Accept-Encoding` is set on the request, for its origin or as a default header,
    /// that value is sent instead.
    ///
    /// A value set here applies to every response of the request. Without a value, `save_to`
    /// disables decoding of the saved body only: the body of any other response, such as a 404,
    /// follows the Fetcher's setting.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// // The response is JSON, which the server compresses: the file has the text.
    /// let request = Request::get("https://a.example/items.json")
    ///     .save_to("items.json")
    ///     .decode_content(true);
    /// assert_eq!(request.build().decodes_content(), Some(true));
    /// ```
    pub fn decode_content(mut self, enabled: bool) -> Self {
        self.request.extras_mut().decodes_content = Some(enabled);
        self
    }

    /// Publishes in `progress` how much of the response body has arrived, for a progress bar of one
    /// large file.
    ///
    /// The bodies of redirect responses are not included. See [`BodyProgress`] for an example.
    pub fn body_progress(mut self, progress: &BodyProgress) -> Self {
        self.request.extras_mut().body_progress = Some(progress.clone());
        self
    }

    /// Limits the wire time of one attempt: connecting, sending, waiting for the response head and
    /// reading the body. Default: the Fetcher's
    /// [`request_timeout`](crate::FetcherBuilder::request_timeout), which is unlimited by default.
    ///
    /// An attempt that exceeds the limit fails with
    /// [`ErrorKind::RequestTimeout`](crate::ErrorKind::RequestTimeout). Time that the request is
    /// queued does not count. A timeout of zero makes the request invalid.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if timeout.is_zero() {
            return self.with_invalid_reason("the timeout is zero");
        }
        self.request.extras_mut().attempt_timeout = Some(timeout);
        self
    }

    /// Marks the request as idempotent, that is, safe to send twice. An idempotent request may be
    /// retried although the server may have processed it. Default: the request is idempotent if its
    /// method is.
    ///
    /// `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT` and `DELETE` are idempotent by definition (RFC 9110
    /// §9.2.2). A request with an `Idempotency-Key` header counts as idempotent too.
    pub fn idempotent(mut self) -> Self {
        self.request.is_marked_idempotent = true;
        self
    }

    /// Sets the priority of this request among the requests of its batch. Default:
    /// [`Priority::Normal`].
    ///
    /// ```
    /// use fanout::{Priority, Request};
    ///
    /// let front_page = Request::get("https://example.com/").priority(Priority::High);
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.request.priority = priority;
        self
    }

    /// States the cost of this request on the budgets named `budget_name`. Default: 1 on a budget
    /// named `requests` and 0 on any other, or the [default cost](crate::Budget::default_cost) of
    /// the budget.
    ///
    /// The cost is an estimate, which [`Budget::settle`](crate::Budget::settle) corrects. It is
    /// charged for each attempt and each redirect. If a name is set twice, the last cost counts.
    /// Budgets that do not apply to the request are ignored, so that a redirect may leave the host
    /// that has the budget.
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let request = Request::post("https://api.example/chat").body("Hello").cost("tokens", 1_800);
    /// assert_eq!(request.build().cost("tokens"), Some(1_800));
    /// ```
    pub fn cost(mut self, budget_name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        let (budget_name, costs) = (budget_name.into(), &mut self.request.extras_mut().costs);
        match costs.iter_mut().find(|(name, _)| *name == budget_name) {
            Some((_, cost)) => *cost = units,
            None => costs.push((budget_name, units)),
        }
        self
    }

    /// Sends the request through `proxy`. If `proxy` does not apply to the URL, the proxies of the
    /// Fetcher are used. With `None`, the request is sent directly. Default: the proxies of the
    /// Fetcher.
    ///
    /// Redirects of the request use the same proxy setting.
    ///
    /// ```
    /// use fanout::{Proxy, Request};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let proxy = Proxy::all("http://proxy.example:3128")?;
    /// let proxied = Request::get("https://a.example/").proxy(proxy);
    /// let direct = Request::get("https://b.example/").proxy(None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn proxy(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        let proxy_choice = proxy
            .into()
            .map_or(ProxyChoice::Direct, ProxyChoice::RequestProxy);
        self.request.extras_mut().proxy_choice = proxy_choice;
        self
    }

    /// Sets the maximum number of redirects of this request that are followed. With 0, the redirect
    /// response is the result. Default: the setting of the Fetcher, 10 redirects unless changed.
    pub fn max_redirects(mut self, max_redirects: u32) -> Self {
        self.request.extras_mut().max_redirects = Some(max_redirects);
        self
    }

    /// Sets which redirects of this request are followed. Default: the setting of the Fetcher,
    /// which is [`RedirectPolicy::all`] unless changed.
    ///
    /// ```
    /// use fanout::{RedirectPolicy, Request};
    ///
    /// let request = Request::get("https://a.example/").redirect_policy(RedirectPolicy::none());
    /// ```
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.request.extras_mut().redirect_policy = Some(policy);
        self
    }

    /// Makes the request invalid for `reason`, unless it is already invalid: only the first reason
    /// is kept.
    pub(crate) fn with_invalid_reason(mut self, reason: impl Into<InvalidReason>) -> Self {
        self.request.set_invalid(reason);
        self
    }
}

impl From<Request> for RequestBuilder {
    fn from(request: Request) -> Self {
        Self { request }
    }
}

impl From<RequestBuilder> for Request {
    fn from(builder: RequestBuilder) -> Self {
        builder.build()
    }
}

/// Shows the values set so far.
impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestBuilder")
            .field(&self.request)
            .finish()
    }
}

fn form_urlencoded_pairs<K, V>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<String, InvalidReason>
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
