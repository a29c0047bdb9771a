//! Stores the cookies (RFC 6265) that servers set, and sends them with later requests.
//!
//! Each site has its own store. Finding the cookies of a request therefore takes constant time for
//! any number of sites, and no `Domain` attribute can send a cookie to another site. A site is a
//! registrable domain: a public suffix and one more label. A host without a registrable domain,
//! such as an IP address, is a site of its own.
//!
//! The crate `cookie_store` is not used, because it cannot implement RFC 6265: it keeps cookies in
//! hash maps without their creation times, which determine the order of the header (§5.4) and the
//! eviction (§5.3); it reads four date formats and not the algorithm of §5.1.1; and its cookies are
//! `str`, but a cookie is a sequence of bytes.

mod cookie_date;
mod set_cookie;
mod site_cookies;

use std::collections::HashMap;
use std::fmt;
use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use url::{Host, Url};

use crate::host_name::is_localhost_or_subdomain;
use set_cookie::Cookie;
use site_cookies::SiteCookies;

/// The maximum memory of one generation of sites (`recent_sites` or `previous_sites`). RFC 6265
/// §6.1 requires clients to keep at least 3000 cookies of 4 KiB.
const MAX_GENERATION_BYTES: usize = 16 << 20;
/// The estimated memory of a site, in addition to its name and its cookies.
const SITE_OVERHEAD_BYTES: usize = 64;

/// The cookies of one Fetcher. `None` disables cookies, which is the default: no cookie is stored
/// or sent.
#[derive(Default)]
pub(crate) struct CookieJar(Option<Mutex<CookiesBySite>>);

impl CookieJar {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self(is_enabled.then(Mutex::default))
    }

    /// Creates an empty jar, which is enabled if `self` is enabled.
    pub(crate) fn to_empty_jar(&self) -> Self {
        Self::new(self.0.is_some())
    }

    /// Adds the `Cookie` header for a request to `url`, unless the request already has that header.
    pub(super) fn add_cookie_header(&self, headers: &mut HeaderMap, url: &Url) {
        let Some(sites) = &self.0 else { return };
        if headers.contains_key(COOKIE) {
            return;
        }
        let cookies = {
            let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            let operation_count = sites.increment_operation_count();
            match sites.site_cookies_mut(site_of_url(url)) {
                Some(cookies) => {
                    cookies.cookie_header_value(url, unix_seconds_now(), operation_count)
                }
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
        let now = unix_seconds_now();
        let values = headers.get_all(SET_COOKIE).iter();
        let cookies: Vec<Cookie> = values
            .filter_map(|value| Cookie::parse_set_cookie(value.as_bytes(), url, now))
            .collect();
        if !cookies.is_empty() {
            let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            sites.store_site_cookies(cookies, url, now);
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

/// The cookies of all sites, in two generations of bounded memory.
///
/// New and recently used sites are in `recent_sites`. When `recent_sites` is full, it replaces
/// `previous_sites`. This drops the sites that have not been used for the longest time.
#[derive(Default)]
struct CookiesBySite {
    recent_sites: HashMap<Box<str>, SiteCookies>,
    previous_sites: HashMap<Box<str>, SiteCookies>,
    recent_sites_bytes: usize,
    operation_count: u64,
}

impl CookiesBySite {
    fn increment_operation_count(&mut self) -> u64 {
        self.operation_count += 1;
        self.operation_count
    }

    /// Returns the cookies of a site and marks the site as used.
    fn site_cookies_mut(&mut self, site: &str) -> Option<&mut SiteCookies> {
        if let Some((name, cookies)) = self.previous_sites.remove_entry(site) {
            self.insert_recent_site(name, cookies);
        }
        self.recent_sites.get_mut(site)
    }

    /// Adds a site that is not in `recent_sites`.
    fn insert_recent_site(&mut self, name: Box<str>, cookies: SiteCookies) {
        let bytes = site_memory_bytes(&name, &cookies);
        if self.recent_sites_bytes + bytes > MAX_GENERATION_BYTES {
            self.previous_sites = take(&mut self.recent_sites);
            self.recent_sites_bytes = 0;
        }
        self.recent_sites_bytes += bytes;
        self.recent_sites.insert(name, cookies);
    }

    /// Stores the cookies that a response from `url` sets.
    fn store_site_cookies(&mut self, cookies: Vec<Cookie>, url: &Url, now: i64) {
        let site = site_of_url(url);
        // The site is removed and inserted again, because the memory of its cookies changes.
        let (name, mut stored) = match self.recent_sites.remove_entry(site) {
            Some((name, stored)) => {
                self.recent_sites_bytes -= site_memory_bytes(&name, &stored);
                (name, stored)
            }
            None => {
                let entry = self.previous_sites.remove_entry(site);
                entry.unwrap_or_else(|| (site.into(), SiteCookies::default()))
            }
        };
        for cookie in cookies {
            let operation_count = self.increment_operation_count();
            stored.store_cookie(cookie, url, now, operation_count);
        }
        if !stored.is_empty() {
            self.insert_recent_site(name, stored);
        }
    }
}

fn site_memory_bytes(name: &str, cookies: &SiteCookies) -> usize {
    name.len() + cookies.memory_bytes() + SITE_OVERHEAD_BYTES
}

/// Returns the registrable domain of `url`, or its host if it has no registrable domain.
fn site_of_url(url: &Url) -> &str {
    let registrable_domain = url.domain().and_then(psl::domain_str);
    registrable_domain.unwrap_or_else(|| url.host_str().unwrap_or_default())
}

/// Whether requests to `url` cannot be read on the network, so that `Secure` cookies may be set and
/// sent. Loopback addresses are secure, as in browsers: their requests do not leave the machine.
fn is_secure_channel(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => is_localhost_or_subdomain(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || is_loopback
}

/// The wall-clock time in seconds since the Unix epoch.
fn unix_seconds_now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |duration| duration.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_cookie(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn sent_to(jar: &CookieJar, url: &Url) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        jar.add_cookie_header(&mut headers, url);
        headers.remove(COOKIE)
    }

    #[test]
    fn memory_of_many_sites_is_bounded_and_used_sites_are_kept() {
        let jar = CookieJar::new(true);
        let url = |n: usize| Url::parse(&format!("https://site{n}.com/")).unwrap();
        let value = format!("a={}", "x".repeat(3_000));
        let count = 4 * MAX_GENERATION_BYTES / value.len();
        for n in 0..count {
            jar.store_cookies(&set_cookie(&value), &url(n));
            if n % 1_000 == 0 {
                assert!(sent_to(&jar, &url(0)).is_some(), "{n}");
            }
        }
        let sites = jar.0.as_ref().unwrap().lock().unwrap();
        let memory = |sites: &HashMap<Box<str>, SiteCookies>| -> usize {
            sites
                .iter()
                .map(|(name, cookies)| site_memory_bytes(name, cookies))
                .sum()
        };
        assert_eq!(memory(&sites.recent_sites), sites.recent_sites_bytes);
        assert!(sites.recent_sites_bytes <= MAX_GENERATION_BYTES);
        assert!(memory(&sites.previous_sites) <= MAX_GENERATION_BYTES);
        assert!(sites.recent_sites.len() + sites.previous_sites.len() >= 3_000);
        drop(sites);
        assert!(sent_to(&jar, &url(count - 1)).is_some());
        assert!(sent_to(&jar, &url(1)).is_none());
    }

    #[test]
    fn site_without_cookies_takes_no_memory() {
        let jar = CookieJar::new(true);
        let url = Url::parse("https://a.com/").unwrap();
        jar.store_cookies(&set_cookie("a=1"), &url);
        jar.store_cookies(&set_cookie("a=; Max-Age=0"), &url);
        let sites = jar.0.as_ref().unwrap().lock().unwrap();
        assert!(sites.recent_sites.is_empty() && sites.previous_sites.is_empty());
        assert_eq!(sites.recent_sites_bytes, 0);
    }

    #[test]
    fn values_that_are_not_utf_8_are_sent_as_they_were_set() {
        let jar = CookieJar::new(true);
        let url = Url::parse("http://a.com/").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_bytes(b"a=caf\xe9").unwrap());
        jar.store_cookies(&headers, &url);
        assert_eq!(sent_to(&jar, &url).unwrap().as_bytes(), b"a=caf\xe9");
    }
}
