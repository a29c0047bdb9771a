//! The cookies of one site: storage (RFC 6265 §5.3) and the `Cookie` header (§5.4).

use std::cmp::Reverse;

use url::Url;

use super::is_secure_channel;
use super::set_cookie::Cookie;
use crate::host_name::is_subdomain;

/// The maximum number of cookies per site, as in browsers. RFC 6265 §6.1 requires clients to keep
/// at least 50.
const MAX_COOKIES_PER_SITE: usize = 180;
/// The maximum size of a `Cookie` header. Common servers reject a header line of more than 8 KiB.
const MAX_COOKIE_HEADER_BYTES: usize = 8_000;
/// The estimated memory of a cookie, in addition to its text.
const COOKIE_OVERHEAD_BYTES: usize = size_of::<StoredCookie>() + 32;

#[derive(Default)]
pub(super) struct SiteCookies {
    /// The cookies in order of creation.
    cookies: Vec<StoredCookie>,
}

struct StoredCookie {
    cookie: Cookie,
    /// The number of the jar operation that last set or sent the cookie. Jar operations are
    /// numbered from 1.
    last_used_operation: u64,
}

impl SiteCookies {
    /// The approximate memory of the cookies.
    pub(super) fn memory_bytes(&self) -> usize {
        let text_bytes = |StoredCookie { cookie, .. }: &StoredCookie| {
            cookie.name.len() + cookie.value.len() + cookie.domain.len() + cookie.path.len()
        };
        let text_bytes: usize = self.cookies.iter().map(text_bytes).sum();
        text_bytes + self.cookies.len() * COOKIE_OVERHEAD_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Stores a cookie that a response from `url` sets. The cookie replaces a stored cookie with
    /// the same name, domain and path. An expired cookie removes the stored one. `operation_count`
    /// is the number of this jar operation.
    pub(super) fn store_cookie(
        &mut self,
        cookie: Cookie,
        url: &Url,
        now: i64,
        operation_count: u64,
    ) {
        if !is_secure_channel(url) && self.shadows_secure_cookie(&cookie) {
            return;
        }
        let replaced = self.cookies.iter().position(|stored| {
            let stored = &stored.cookie;
            stored.name == cookie.name
                && stored.domain == cookie.domain
                && stored.is_host_only == cookie.is_host_only
                && stored.path == cookie.path
        });
        let is_expired = cookie.is_expired(now);
        let stored = StoredCookie {
            cookie,
            last_used_operation: operation_count,
        };
        match replaced {
            Some(at) if is_expired => {
                self.cookies.remove(at);
            }
            // A replaced cookie keeps its creation time (RFC 6265 §5.3, step 11).
            Some(at) => self.cookies[at] = stored,
            None if is_expired => {}
            None => {
                self.cookies.push(stored);
                self.evict_surplus_cookies(now);
            }
        }
    }

    /// Whether a cookie would be sent together with a stored `Secure` cookie of the same name. A
    /// response over http must not set such a cookie (RFC 6265bis §5.7).
    fn shadows_secure_cookie(&self, cookie: &Cookie) -> bool {
        self.cookies.iter().any(|stored| {
            let stored = &stored.cookie;
            stored.is_secure
                && stored.name == cookie.name
                && (stored.domain == cookie.domain
                    || is_subdomain(&stored.domain, &cookie.domain)
                    || is_subdomain(&cookie.domain, &stored.domain))
                && path_matches_cookie_path(&cookie.path, &stored.path)
        })
    }

    /// Evicts cookies until at most [`MAX_COOKIES_PER_SITE`] remain: the expired ones, then the
    /// ones that were not used for the longest time (RFC 6265 §5.3).
    fn evict_surplus_cookies(&mut self, now: i64) {
        if self.cookies.len() <= MAX_COOKIES_PER_SITE {
            return;
        }
        self.cookies.retain(|stored| !stored.cookie.is_expired(now));
        while self.cookies.len() > MAX_COOKIES_PER_SITE {
            // If several cookies were last used by the same request, the oldest one is evicted.
            let stored = self.cookies.iter().enumerate();
            let least_recent = stored.min_by_key(|(_, stored)| stored.last_used_operation);
            if let Some((at, _)) = least_recent {
                self.cookies.remove(at);
            }
        }
    }

    /// The value of the `Cookie` header of a request to `url`; empty if no cookie matches.
    ///
    /// Cookies with longer paths come first, and cookies with paths of the same length are in order
    /// of creation (RFC 6265 §5.4). If the cookies do not fit in [`MAX_COOKIE_HEADER_BYTES`], the
    /// oldest ones with the shortest paths are left out.
    pub(super) fn cookie_header_value(
        &mut self,
        url: &Url,
        now: i64,
        operation_count: u64,
    ) -> Vec<u8> {
        let matching = self.cookies.iter_mut().filter(|stored| {
            !stored.cookie.is_expired(now) && is_cookie_sent_to(&stored.cookie, url)
        });
        let mut cookies: Vec<&Cookie> = matching
            .map(|stored| {
                stored.last_used_operation = operation_count;
                &stored.cookie
            })
            .collect();
        // The sort is stable, so cookies with paths of the same length stay in order of creation.
        cookies.sort_by_key(|cookie| Reverse(cookie.path.len()));
        drop_cookies_beyond_header_limit(&mut cookies);
        let pairs = cookies
            .iter()
            .map(|cookie| [&*cookie.name, &*cookie.value].join(&b'='));
        pairs.collect::<Vec<_>>().join(&b"; "[..])
    }
}

/// Removes the cookies that do not fit in the header. `cookies` are in the order of the header.
fn drop_cookies_beyond_header_limit(cookies: &mut Vec<&Cookie>) {
    let pair_size = |cookie: &Cookie| cookie.name.len() + cookie.value.len() + "=; ".len();
    let total_size: usize = cookies.iter().map(|cookie| pair_size(cookie)).sum();
    if total_size <= MAX_COOKIE_HEADER_BYTES {
        return;
    }
    let mut newest_first: Vec<usize> = (0..cookies.len()).collect();
    newest_first.sort_by_key(|at| (Reverse(cookies[*at].path.len()), Reverse(*at)));
    let mut remaining_bytes = MAX_COOKIE_HEADER_BYTES;
    let mut does_fit = vec![false; cookies.len()];
    for at in newest_first {
        if let Some(rest) = remaining_bytes.checked_sub(pair_size(cookies[at])) {
            remaining_bytes = rest;
            does_fit[at] = true;
        }
    }
    let mut does_fit = does_fit.into_iter();
    cookies.retain(|_| does_fit.next() == Some(true));
}

/// Whether a cookie is sent to `url` (RFC 6265 §5.4, step 1).
fn is_cookie_sent_to(cookie: &Cookie, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let matches_domain =
        *host == *cookie.domain || (!cookie.is_host_only && is_subdomain(host, &cookie.domain));
    matches_domain
        && path_matches_cookie_path(url.path().as_bytes(), &cookie.path)
        && (!cookie.is_secure || is_secure_channel(url))
}

/// Whether `path` is `cookie_path` or below it (RFC 6265 §5.1.4).
fn path_matches_cookie_path(path: &[u8], cookie_path: &[u8]) -> bool {
    path.strip_prefix(cookie_path).is_some_and(|rest| {
        rest.is_empty() || cookie_path.ends_with(b"/") || rest.starts_with(b"/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    /// A site with the cookies that `https://www.a.com/` has set, in this order.
    fn site_of_url(cookies: &[&str]) -> SiteCookies {
        let mut site = SiteCookies::default();
        for (count, cookie) in cookies.iter().enumerate() {
            set(&mut site, "https://www.a.com/", cookie, count as u64);
        }
        site
    }

    fn set(site: &mut SiteCookies, url: &str, cookie: &str, operation_count: u64) {
        let url = Url::parse(url).unwrap();
        if let Some(cookie) = Cookie::parse_set_cookie(cookie.as_bytes(), &url, NOW) {
            site.store_cookie(cookie, &url, NOW, operation_count);
        }
    }

    fn header(site: &mut SiteCookies, url: &str, operation_count: u64) -> String {
        let header = site.cookie_header_value(&Url::parse(url).unwrap(), NOW, operation_count);
        String::from_utf8(header).unwrap()
    }

    #[test]
    fn longer_paths_come_first_and_then_older_cookies() {
        for (cookies, expected) in [
            (&["z=1", "a=2"][..], "z=1; a=2"),
            (&["z=1", "a=2", "m=3", "b=4"], "z=1; a=2; m=3; b=4"),
            (&["z=1", "a=2", "z=3"], "z=3; a=2"),
            (&["z=1", "a=2", "z=; Max-Age=0", "z=3"], "a=2; z=3"),
            (
                &["z=1", "a=2; Path=/x", "b=3; Path=/x/y", "c=4; Path=/x"],
                "b=3; a=2; c=4; z=1",
            ),
            (&["a=1; Path=/", "a=2; Path=/x"], "a=2; a=1"),
            (&["a=1", "a=2; Domain=a.com"], "a=1; a=2"),
            (&["a=", "b=\u{e9}"], "a=; b=\u{e9}"),
        ] {
            let mut site = site_of_url(cookies);
            for _ in 0..3 {
                assert_eq!(header(&mut site, "https://www.a.com/x/y/z", 100), expected);
            }
        }
    }

    #[test]
    fn paths_match_whole_segments() {
        for (cookie_path, path, is_match) in [
            ("/", "/", true),
            ("/", "/x", true),
            ("/x", "/x", true),
            ("/x", "/x/", true),
            ("/x", "/x/y", true),
            ("/x/", "/x/y", true),
            ("/x/", "/x", false),
            ("/x", "/xy", false),
            ("/x/y", "/x", false),
            ("/X", "/x", false),
        ] {
            let is_matched = path_matches_cookie_path(path.as_bytes(), cookie_path.as_bytes());
            assert_eq!(is_matched, is_match, "{cookie_path} {path}");
        }
    }

    #[test]
    fn least_recently_used_cookie_is_evicted_for_a_new_one() {
        let names: Vec<String> = (0..MAX_COOKIES_PER_SITE)
            .map(|n| format!("n{n}=1"))
            .collect();
        let mut cookies = site_of_url(&names.iter().map(String::as_str).collect::<Vec<_>>());
        set(&mut cookies, "https://www.a.com/", "sid=1", 1_000);
        let sent = header(&mut cookies, "https://www.a.com/", 1_001);
        assert!(!sent.contains("n0=") && sent.starts_with("n1=1; n2=1"));
        assert!(sent.ends_with("n179=1; sid=1"));

        // A cookie with another path is sent, so the cookies that were not sent are evicted first.
        set(&mut cookies, "https://www.a.com/", "used=1; Path=/x", 1_002);
        set(
            &mut cookies,
            "https://www.a.com/",
            "unused=1; Path=/y",
            1_003,
        );
        header(&mut cookies, "https://www.a.com/x", 1_004);
        set(&mut cookies, "https://www.a.com/", "new=1", 1_005);
        assert!(!header(&mut cookies, "https://www.a.com/y", 1_006).contains("unused"));
        assert!(header(&mut cookies, "https://www.a.com/x", 1_007).contains("used"));
        assert_eq!(cookies.cookies.len(), MAX_COOKIES_PER_SITE);
    }

    #[test]
    fn expired_cookies_are_evicted_first() {
        let mut names = vec!["old=1".to_owned(), "short=1; Max-Age=1".to_owned()];
        names.extend((2..MAX_COOKIES_PER_SITE).map(|n| format!("n{n}=1")));
        let mut cookies = site_of_url(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let url = Url::parse("https://www.a.com/").unwrap();
        let new = Cookie::parse_set_cookie(b"new=1", &url, NOW + 2).unwrap();
        cookies.store_cookie(new, &url, NOW + 2, 1_000);
        let names: Vec<_> = cookies
            .cookies
            .iter()
            .map(|stored| &*stored.cookie.name)
            .collect();
        assert!(names.contains(&&b"old"[..]) && names.contains(&&b"new"[..]));
        assert!(!names.contains(&&b"short"[..]));
    }

    #[test]
    fn header_is_bounded_and_keeps_newest_cookies_in_their_order() {
        let value = "x".repeat(1_000);
        let texts: Vec<String> = (0..20).map(|n| format!("n{n}={value}")).collect();
        let mut cookies = site_of_url(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        set(&mut cookies, "https://www.a.com/", "sid=1", 100);
        let sent = header(&mut cookies, "https://www.a.com/", 101);
        assert!(sent.len() <= MAX_COOKIE_HEADER_BYTES);
        let names: Vec<_> = sent
            .split("; ")
            .filter_map(|pair| pair.split('=').next())
            .collect();
        assert_eq!(
            names,
            ["n13", "n14", "n15", "n16", "n17", "n18", "n19", "sid"]
        );
    }

    #[test]
    fn response_over_http_does_not_shadow_a_secure_cookie() {
        for (cookie, is_ignored) in [
            ("a=evil", true),
            ("a=evil; Domain=a.com", true),
            ("a=evil; Path=/x", true),
            ("a=; Max-Age=0", true),
            ("b=2", false),
        ] {
            let mut cookies = site_of_url(&["a=1; Secure"]);
            set(&mut cookies, "http://www.a.com/", cookie, 1);
            let sent = header(&mut cookies, "https://www.a.com/x", 2);
            assert_eq!(sent == "a=1", is_ignored, "{cookie}");
        }
        let mut cookies = site_of_url(&["a=1; Secure; Path=/login"]);
        set(&mut cookies, "http://www.a.com/", "a=2; Path=/", 1);
        assert_eq!(
            header(&mut cookies, "https://www.a.com/login", 2),
            "a=1; a=2"
        );
    }
}
