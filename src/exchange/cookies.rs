//! The cookies that servers set, kept by site.
//!
//! Each site has a store of its own, so that to find what goes with a request takes no longer for a million sites than for
//! one, and no cookie can reach another site whatever it says of its domain. A site is the public suffix and one label
//! more; a host that has none of those above it is a site by itself.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cookie_store::{Cookie, CookieStore};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use url::Url;

/// As browsers have it; RFC 6265 §6.1 asks for at least as much.
const MOST_BYTES: usize = 4096;
const MOST_OF_A_SITE: usize = 180;

type Sites = HashMap<Box<str>, CookieStore>;

/// By default it keeps nothing.
#[derive(Default)]
pub(crate) struct Jar(Option<Mutex<Sites>>);

impl Jar {
    pub(crate) fn new(keeps: bool) -> Self {
        Self(keeps.then(Mutex::default))
    }

    /// An empty one that keeps cookies if this one does.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.0.is_some())
    }

    /// Adds what goes with a request to `url`, unless it has cookies of its own.
    pub(super) fn add(&self, headers: &mut HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if headers.contains_key(COOKIE) {
            return;
        }
        let text = {
            let sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            match sites.get(site(url)) {
                Some(store) => written(store, url),
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
    pub(super) fn keep(&self, headers: &HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if !headers.contains_key(SET_COOKIE) {
            return;
        }
        let set: Vec<Cookie<'static>> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| admitted(value, url))
            .collect();
        if set.is_empty() {
            return;
        }
        let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
        let store = sites.entry(site(url).into()).or_default();
        for cookie in set {
            insert(store, cookie, url);
        }
    }
}

/// The cookies are secrets, and so are the sites where they were got.
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Jar({})",
            if self.0.is_some() { "keeps" } else { "none" }
        )
    }
}

fn site(url: &Url) -> &str {
    let by_name = url.domain().and_then(psl::domain_str);
    by_name.unwrap_or_else(|| url.host_str().unwrap_or_default())
}

/// Longer paths come first (RFC 6265 §5.4).
fn written(store: &CookieStore, url: &Url) -> String {
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
fn admitted(value: &HeaderValue, url: &Url) -> Option<Cookie<'static>> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    if text.len() > MOST_BYTES {
        return None;
    }
    let cookie = Cookie::parse(text, url).ok()?.into_owned();
    let is_secure = cookie.secure() == Some(true);
    if is_secure && url.scheme() != "https" {
        return None;
    }
    let domain = cookie.domain().filter(|domain| !domain.is_empty());
    if domain.is_some_and(|domain| !may_cover(domain, url)) {
        return None;
    }
    let name = cookie.name();
    let keeps_its_word = match () {
        () if starts(name, "__Secure-") => is_secure,
        () if starts(name, "__Host-") => {
            is_secure && domain.is_none() && cookie.path() == Some("/")
        }
        () => true,
    };
    keeps_its_word.then_some(cookie)
}

fn starts(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether a host may set a cookie for this domain as far as sites go: none for all of a public suffix, but for one that
/// is a host itself.
fn may_cover(domain: &str, url: &Url) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    url.host_str() == Some(&domain)
        || (url.domain().is_some() && psl::domain_str(&domain) == Some(site(url)))
}

fn insert(store: &mut CookieStore, cookie: Cookie<'static>, url: &Url) {
    // What was set over https is not to be overwritten without.
    let is_guarded = url.scheme() != "https"
        && store
            .iter_unexpired()
            .any(|kept| kept.name() == cookie.name() && kept.secure() == Some(true));
    if is_guarded {
        return;
    }
    let is_new = store.iter_any().all(|kept| {
        kept.name() != cookie.name() || kept.path != cookie.path || kept.domain != cookie.domain
    });
    if is_new && !has_room(store) {
        return;
    }
    // One whose domain is not the host's, or above it, is refused here.
    let _ = store.insert(cookie, url);
}

/// Makes room, if it must, by forgetting what has expired.
fn has_room(store: &mut CookieStore) -> bool {
    if store.iter_any().count() < MOST_OF_A_SITE {
        return true;
    }
    let alive: Vec<_> = store
        .iter_unexpired()
        .cloned()
        .map(Ok::<_, fmt::Error>)
        .collect();
    if let Ok(alive) = CookieStore::from_cookies(alive, false) {
        *store = alive;
    }
    store.iter_any().count() < MOST_OF_A_SITE
}
