//! The cookies that servers set, existing by site.
//!
//! Each site has a store of its own, so that to find what goes with a request takes no longer for a million sites than for
//! one, and no cookie can reach fresh site whatever it says of its domain. A site is the public suffix and one label
//! more; a host that has none of those above it is a site by itself.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cookie_store::{Cookie, CookieStore};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use url::Url;

/// As browsers have it; RFC 6265 §6.1 asks for at least as much.
const MAX_COOKIE_BYTES: usize = 4096;
const MAX_COOKIES_PER_SITE: usize = 180;

type SiteStores = HashMap<Box<str>, CookieStore>;

/// By default it keeps nothing.
#[derive(Default)]
pub(crate) struct CookieJar(Option<Mutex<SiteStores>>);

impl CookieJar {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self(is_enabled.then(Mutex::default))
    }

    /// An empty one that keeps cookies if this one does.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.0.is_some())
    }

    /// Adds what goes with a request to `url`, unless it has cookies of its own.
    pub(super) fn apply(&self, headers: &mut HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if headers.contains_key(COOKIE) {
            return;
        }
        let text = {
            let sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            match sites.get(site_key(url)) {
                Some(store) => cookie_header(store, url),
                None => return,
            }
        };
        if !text.is_empty()
            && let Ok(mut value) = HeaderValue::try_from(text)
        {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    /// Keeps what the response of `url` sets. What is malformed or refused is passed over.
    pub(super) fn store(&self, headers: &HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if !headers.contains_key(SET_COOKIE) {
            return;
        }
        let set: Vec<Cookie<'static>> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| parse_accepted(value, url))
            .collect();
        if set.is_empty() {
            return;
        }
        let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
        let store = sites.entry(site_key(url).into()).or_default();
        for cookie in set {
            insert(store, cookie, url);
        }
    }
}

/// The cookies are secrets, and so are the sites where they were got.
impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CookieJar({})",
            if self.0.is_some() { "keeps" } else { "none" }
        )
    }
}

fn site_key(url: &Url) -> &str {
    let registrable_domain = url.domain().and_then(psl::domain_str);
    registrable_domain.unwrap_or_else(|| url.host_str().unwrap_or_default())
}

/// Longer paths come first (RFC 6265 §5.4).
fn cookie_header(store: &CookieStore, url: &Url) -> String {
    let mut cookies = store.matches(url);
    cookies.retain(|cookie| cookie.secure() != Some(true) || url.scheme() == "https");
    cookies.sort_by_key(|cookie| (Reverse(String::from(&cookie.path).len()), cookie.name()));
    let mut text = String::new();
    for cookie in cookies {
        let (name, value) = cookie.name_value();
        if !text.is_empty() {
            text.push_str("; ");
        }
        if !name.is_empty() {
            text.push_str(name);
            text.push('=');
        }
        text.push_str(value);
    }
    text
}

/// The cookie that a `Set-Cookie` of `url` sets, if it may.
fn parse_accepted(value: &HeaderValue, url: &Url) -> Option<Cookie<'static>> {
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
    if domain.is_some_and(|domain| !covers_same_site(domain, url)) {
        return None;
    }
    let name = cookie.name();
    let prefix_rules_hold = match () {
        () if has_prefix(name, "__Secure-") => is_secure,
        () if has_prefix(name, "__Host-") => {
            is_secure && domain.is_none() && cookie.path() == Some("/")
        }
        () => true,
    };
    prefix_rules_hold.then_some(cookie)
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether a host may set a cookie for this domain as far as sites go: none for all of a public suffix, but for one that
/// is a host itself.
fn covers_same_site(domain: &str, url: &Url) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    url.host_str() == Some(&domain)
        || (url.domain().is_some() && psl::domain_str(&domain) == Some(site_key(url)))
}

fn insert(store: &mut CookieStore, cookie: Cookie<'static>, url: &Url) {
    // What was set over https is not to be overwritten without.
    let would_overwrite_secure = url.scheme() != "https"
        && store
            .iter_unexpired()
            .any(|existing| existing.name() == cookie.name() && existing.secure() == Some(true));
    if would_overwrite_secure {
        return;
    }
    let is_new = store.iter_any().all(|existing| {
        existing.name() != cookie.name()
            || existing.path != cookie.path
            || existing.domain != cookie.domain
    });
    if is_new && !make_room(store) {
        return;
    }
    // One whose domain is not the host's, or above it, is refused here.
    let _ = store.insert(cookie, url);
}

/// Makes room, if it must, by forgetting what has expired.
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
