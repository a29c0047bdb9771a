//! Stores the cookies (RFC 6265) that servers set, and sends them with later requests.
//!
//! Each site has its own store. Finding the cookies of a request thus takes no longer with a
//! million sites than with one, and no `Domain` attribute can send a cookie to another site. A site
//! is a registrable domain: a public suffix and one more label. A host without a registrable
//! domain, such as an IP address, is a site of its own.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cookie_store::{Cookie, CookieStore};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use url::Url;

/// The maximum size of a `Set-Cookie` value. RFC 6265 §6.1 requires clients to accept at least 4096
/// bytes, and browsers accept no more.
const MAX_COOKIE_BYTES: usize = 4096;
/// The maximum number of cookies per site, as in browsers. RFC 6265 §6.1 requires clients to keep
/// at least 50.
const MAX_COOKIES_PER_SITE: usize = 180;

type SiteStores = HashMap<Box<str>, CookieStore>;

/// The cookies of one Fetcher. `None` if cookies are disabled, as they are by default: none are
/// stored or sent.
#[derive(Default)]
pub(crate) struct CookieJar(Option<Mutex<SiteStores>>);

impl CookieJar {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self(is_enabled.then(Mutex::default))
    }

    /// Creates an empty jar that is enabled if this one is.
    pub(crate) fn to_empty(&self) -> Self {
        Self::new(self.0.is_some())
    }

    /// Adds the `Cookie` header for a request to `url`, unless the request already has that header.
    pub(super) fn add_cookie_header(&self, headers: &mut HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if headers.contains_key(COOKIE) {
            return;
        }
        let cookies = {
            let sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            match sites.get(site(url)) {
                Some(store) => cookie_header(store, url),
                None => return,
            }
        };
        if !cookies.is_empty()
            && let Ok(mut value) = HeaderValue::try_from(cookies)
        {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    /// Stores the cookies that a response from `url` sets. Ignores malformed and disallowed
    /// cookies.
    pub(super) fn store_cookies(&self, headers: &HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if !headers.contains_key(SET_COOKIE) {
            return;
        }
        let cookies: Vec<Cookie<'static>> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| parse_acceptable_cookie(value, url))
            .collect();
        if cookies.is_empty() {
            return;
        }
        let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
        let store = sites.entry(site(url).into()).or_default();
        for cookie in cookies {
            insert_cookie(store, cookie, url);
        }
    }
}

/// Shows neither cookies nor sites: both are private.
impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.0.is_some() {
            "enabled"
        } else {
            "disabled"
        };
        write!(f, "CookieJar({state})")
    }
}

/// The registrable domain of a URL, or the host of a URL without one.
fn site(url: &Url) -> &str {
    let registrable_domain = url.domain().and_then(psl::domain_str);
    registrable_domain.unwrap_or_else(|| url.host_str().unwrap_or_default())
}

/// The value of the `Cookie` header. Cookies with longer paths come first (RFC 6265 §5.4).
fn cookie_header(store: &CookieStore, url: &Url) -> String {
    let mut cookies = store.matches(url);
    cookies.retain(|cookie| cookie.secure() != Some(true) || url.scheme() == "https");
    cookies.sort_by_key(|cookie| (Reverse(String::from(&cookie.path).len()), cookie.name()));
    let mut header = String::new();
    for cookie in cookies {
        let (name, value) = cookie.name_value();
        if !header.is_empty() {
            header.push_str("; ");
        }
        if !name.is_empty() {
            header.push_str(name);
            header.push('=');
        }
        header.push_str(value);
    }
    header
}

/// Parses a `Set-Cookie` value. Returns `None` if the value is malformed, too large, or not allowed
/// for `url`.
fn parse_acceptable_cookie(value: &HeaderValue, url: &Url) -> Option<Cookie<'static>> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    if text.len() > MAX_COOKIE_BYTES {
        return None;
    }
    let cookie = Cookie::parse(text, url).ok()?.into_owned();
    let is_secure = cookie.secure() == Some(true);
    if is_secure && url.scheme() != "https" {
        return None;
    }
    let domain = cookie.domain().filter(|domain| !domain.is_empty());
    if domain.is_some_and(|domain| !is_same_site(domain, url)) {
        return None;
    }
    // The requirements of the cookie name prefixes (RFC 6265bis §4.1.3).
    let name = cookie.name();
    let satisfies_prefix = if has_prefix(name, "__Secure-") {
        is_secure
    } else if has_prefix(name, "__Host-") {
        is_secure && domain.is_none() && cookie.path() == Some("/")
    } else {
        true
    };
    satisfies_prefix.then_some(cookie)
}

/// Whether a cookie name starts with an ASCII prefix, in any case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether the `Domain` attribute of a cookie from `url` is within the site of `url`. A public
/// suffix is not, unless it is the host itself.
fn is_same_site(domain: &str, url: &Url) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    url.host_str() == Some(&domain)
        || (url.domain().is_some() && psl::domain_str(&domain) == Some(site(url)))
}

fn insert_cookie(store: &mut CookieStore, cookie: Cookie<'static>, url: &Url) {
    // A response over http must not overwrite a `Secure` cookie.
    let overwrites_secure = url.scheme() != "https"
        && store
            .iter_unexpired()
            .any(|stored| stored.name() == cookie.name() && stored.secure() == Some(true));
    if overwrites_secure {
        return;
    }
    let is_new = store.iter_any().all(|stored| {
        stored.name() != cookie.name()
            || stored.path != cookie.path
            || stored.domain != cookie.domain
    });
    if is_new && !make_room(store) {
        return;
    }
    // The store rejects a domain that is neither the host nor a parent of the host.
    let _ = store.insert(cookie, url);
}

/// Evicts expired cookies if the store is full. Returns whether the store has room for another
/// cookie.
fn make_room(store: &mut CookieStore) -> bool {
    if store.iter_any().count() < MAX_COOKIES_PER_SITE {
        return true;
    }
    let unexpired: Vec<_> = store
        .iter_unexpired()
        .cloned()
        .map(Ok::<_, fmt::Error>)
        .collect();
    if let Ok(unexpired) = CookieStore::from_cookies(unexpired, false) {
        *store = unexpired;
    }
    store.iter_any().count() < MAX_COOKIES_PER_SITE
}
