//! Parses the value of a `Set-Cookie` header (RFC 6265 §5.2 and the first steps of §5.3).

use url::{Host, Url};

use super::cookie_date::parse_cookie_date;
use super::{is_secure_channel, site_of_url};
use crate::host_name::is_subdomain;

/// The maximum size of a name and its value. RFC 6265 §6.1 requires clients to accept at least 4096
/// bytes, and browsers accept no more.
const MAX_NAME_AND_VALUE_BYTES: usize = 4096;
/// The maximum size of the value of an attribute. An attribute with a longer value is ignored, as
/// in browsers.
const MAX_ATTRIBUTE_VALUE_BYTES: usize = 1024;

/// A cookie. The name, the value and the path are opaque bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cookie {
    pub(super) name: Box<[u8]>,
    pub(super) value: Box<[u8]>,
    pub(super) domain: Box<str>,
    /// Whether the cookie is sent to the host `domain` only and not to the subdomains of `domain`.
    pub(super) is_host_only: bool,
    pub(super) path: Box<[u8]>,
    pub(super) is_secure: bool,
    /// The expiry time in seconds since the Unix epoch. `None` for a session cookie, which never
    /// expires.
    pub(super) expires_at_unix_seconds: Option<i64>,
}

impl Cookie {
    /// Parses a `Set-Cookie` value in a response from `url`. Returns `None` if the value is
    /// malformed, too large, or not allowed for `url`. `now` is in seconds since the Unix epoch.
    pub(super) fn parse_set_cookie(value: &[u8], url: &Url, now: i64) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b';');
        let (name, value) = split_name_and_value(parts.next()?)?;
        if name.is_empty() || name.len() + value.len() > MAX_NAME_AND_VALUE_BYTES {
            return None;
        }
        let attributes = CookieAttributes::parse_attributes(parts);
        if attributes.is_secure && !is_secure_channel(url) {
            return None;
        }
        // A name with such a prefix has requirements (RFC 6265bis §4.1.3).
        let satisfies_prefix = if has_name_prefix(name, b"__Secure-") {
            attributes.is_secure
        } else if has_name_prefix(name, b"__Host-") {
            let is_whole_host =
                attributes.domain_attribute.is_none() && attributes.path_attribute == Some(b"/");
            attributes.is_secure && is_whole_host
        } else {
            true
        };
        if !satisfies_prefix {
            return None;
        }
        let (domain, is_host_only) = cookie_domain_and_host_only(attributes.domain_attribute, url)?;
        let path = match attributes.path_attribute {
            Some(path) if path.starts_with(b"/") => path,
            _ => default_cookie_path(url),
        };
        Some(Self {
            name: name.into(),
            value: value.into(),
            domain,
            is_host_only,
            path: path.into(),
            is_secure: attributes.is_secure,
            expires_at_unix_seconds: attributes.expires_at_unix_seconds(now),
        })
    }

    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.expires_at_unix_seconds
            .is_some_and(|expires_at_unix_seconds| expires_at_unix_seconds <= now)
    }
}

/// The attributes of a cookie. If an attribute is repeated, its last value counts.
#[derive(Default)]
struct CookieAttributes<'a> {
    expires_unix_seconds: Option<i64>,
    max_age_seconds: Option<i64>,
    domain_attribute: Option<&'a [u8]>,
    path_attribute: Option<&'a [u8]>,
    is_secure: bool,
}

impl<'a> CookieAttributes<'a> {
    /// Parses attributes. Unknown and malformed attributes are ignored.
    fn parse_attributes(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut attributes = Self::default();
        for part in parts {
            let (name, value) = split_name_and_value(part).unwrap_or((part.trim_ascii(), b""));
            if value.len() > MAX_ATTRIBUTE_VALUE_BYTES {
                continue;
            }
            match &*name.to_ascii_lowercase() {
                b"expires" => {
                    attributes.expires_unix_seconds =
                        parse_cookie_date(value).or(attributes.expires_unix_seconds);
                }
                b"max-age" => {
                    attributes.max_age_seconds =
                        parse_max_age(value).or(attributes.max_age_seconds);
                }
                b"domain" if !value.is_empty() => attributes.domain_attribute = Some(value),
                b"path" => attributes.path_attribute = Some(value),
                b"secure" => attributes.is_secure = true,
                _ => {}
            }
        }
        attributes
    }

    /// The expiry time. `Max-Age` takes precedence over `Expires` (RFC 6265 §5.3).
    fn expires_at_unix_seconds(&self, now: i64) -> Option<i64> {
        let from_max_age = self
            .max_age_seconds
            .map(|seconds| now.saturating_add(seconds));
        from_max_age.or(self.expires_unix_seconds)
    }
}

/// Parses the value of `Max-Age` (RFC 6265 §5.2.2): digits with an optional minus sign. A number
/// that does not fit becomes the largest or the smallest possible value.
fn parse_max_age(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = std::str::from_utf8(digits)
        .ok()?
        .parse()
        .unwrap_or(i64::MAX);
    Some(if digits.len() < value.len() {
        -seconds
    } else {
        seconds
    })
}

/// Splits `name=value`, and removes the whitespace around the name and the value.
fn split_name_and_value(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = part.iter().position(|byte| *byte == b'=')?;
    Some((part[..equals].trim_ascii(), part[equals + 1..].trim_ascii()))
}

/// Whether a cookie name starts with an ASCII prefix, in upper or lower case.
fn has_name_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns the domain of a cookie from `url`, and whether the cookie is for that host only (RFC
/// 6265 §5.3, steps 4 to 6). Returns `None` if the `Domain` attribute is not the host or a parent
/// domain within the site of the host.
fn cookie_domain_and_host_only(attribute: Option<&[u8]>, url: &Url) -> Option<(Box<str>, bool)> {
    let host = url.host_str()?;
    let Some(attribute) = attribute else {
        return Some((host.into(), true));
    };
    let text = std::str::from_utf8(attribute).ok()?;
    let domain = Host::parse(text.strip_prefix('.').unwrap_or(text)).ok()?;
    let domain = domain.to_string();
    if domain == host {
        // An IP address or a public suffix shares its cookies with no other host.
        let has_site = url
            .domain()
            .is_some_and(|host| psl::domain_str(host).is_some());
        return Some((domain.into(), !has_site));
    }
    let is_within_site = psl::domain_str(&domain).is_some_and(|parent| parent == site_of_url(url));
    (is_within_site && is_subdomain(host, &domain)).then(|| (domain.into(), false))
}

/// The path of a cookie without a `Path` attribute: the directory of the URL (RFC 6265 §5.1.4).
fn default_cookie_path(url: &Url) -> &[u8] {
    let path = url.path();
    match path.rfind('/') {
        None | Some(0) => b"/",
        Some(end) => &path.as_bytes()[..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn parse(value: &str) -> Option<Cookie> {
        parse_from("https://www.a.com/dir/page", value)
    }

    fn parse_from(url: &str, value: &str) -> Option<Cookie> {
        Cookie::parse_set_cookie(value.as_bytes(), &Url::parse(url).unwrap(), NOW)
    }

    #[test]
    fn name_and_value_are_trimmed_opaque_bytes() {
        for (text, name, value) in [
            ("foo=bar", "foo", "bar"),
            ("  A  = BC  ;foo;;;   bar", "A", "BC"),
            ("  A=== BC  ;foo", "A", "== BC"),
            ("z=y, a=b", "z", "y, a=b"),
            ("x=", "x", ""),
            ("aBc=\"zzz \"   ;", "aBc", "\"zzz \""),
            ("aBc=\"zz;pp\" ; ;", "aBc", "\"zz"),
            ("aBc=A\"B ;", "aBc", "A\"B"),
            ("\u{e9}=\u{65e5}", "\u{e9}", "\u{65e5}"),
            ("a=%20\u{e9}", "a", "%20\u{e9}"),
        ] {
            let cookie = parse(text).unwrap();
            assert_eq!(&*cookie.name, name.as_bytes(), "{text:?}");
            assert_eq!(&*cookie.value, value.as_bytes(), "{text:?}");
        }
        let url = Url::parse("http://a.com/").unwrap();
        let latin_1 = Cookie::parse_set_cookie(b"a\xe9=caf\xe9; Path=/\xe9", &url, NOW).unwrap();
        assert_eq!(&*latin_1.value, b"caf\xe9");
        assert_eq!(
            (&*latin_1.name, &*latin_1.path),
            (&b"a\xe9"[..], &b"/\xe9"[..])
        );
    }

    #[test]
    fn value_without_a_name_or_an_equals_sign_is_malformed() {
        for text in [
            "",
            "   ",
            "foo",
            "=",
            "=x",
            "; a=b",
            "BLAHHH; path=/;",
            " =a",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bounded_as_in_browsers() {
        let of_size = |bytes: usize| format!("a={}; Path=/; HttpOnly", "x".repeat(bytes - 1));
        assert!(parse(&of_size(4096)).is_some());
        assert_eq!(parse(&of_size(4097)), None);
        let long_path = format!("a=b; Path=/{}", "x".repeat(1024));
        assert_eq!(&*parse(&long_path).unwrap().path, b"/dir");
    }

    #[test]
    fn expiry_time_is_max_age_or_else_expires() {
        for (attributes, expires_at_unix_seconds) in [
            ("", None),
            ("Max-Age=60", Some(NOW + 60)),
            ("max-age=0", Some(NOW)),
            ("Max-Age=-1", Some(NOW - 1)),
            ("Max-Age=99999999999999999999", Some(i64::MAX)),
            ("Expires=Thu, 01 Jan 1970 00:00:10 GMT", Some(10)),
            (
                "Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=60",
                Some(NOW + 60),
            ),
            (
                "Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:10 GMT",
                Some(NOW + 60),
            ),
            ("Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=", Some(10)),
            (
                "Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=soon",
                Some(10),
            ),
            (
                "Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=+60",
                Some(10),
            ),
            (
                "Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=6 0",
                Some(10),
            ),
            (
                "Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=\"60\"",
                Some(10),
            ),
            ("Max-Age=50,399", None),
            ("Max-Age=60; Max-Age=", Some(NOW + 60)),
            ("Max-Age=60; Max-Age=70", Some(NOW + 70)),
            ("Expires=never", None),
            ("Expires=", None),
        ] {
            let cookie = parse(&format!("a=b; {attributes}")).unwrap();
            assert_eq!(
                cookie.expires_at_unix_seconds, expires_at_unix_seconds,
                "{attributes}"
            );
        }
        assert!(parse("a=b; Max-Age=0").unwrap().is_expired(NOW));
        assert!(!parse("a=b; Max-Age=1").unwrap().is_expired(NOW));
    }

    #[test]
    fn domain_is_the_host_or_a_parent_within_the_site() {
        for (url, attribute, expected) in [
            ("http://www.a.com/", "", Some(("www.a.com", true))),
            ("http://www.a.com/", "Domain=", Some(("www.a.com", true))),
            ("http://www.a.com/", "Domain", Some(("www.a.com", true))),
            ("http://www.a.com/", "Domain=.A.com", Some(("a.com", false))),
            (
                "http://www.a.com/",
                "Domain=www.a.com",
                Some(("www.a.com", false)),
            ),
            (
                "http://www.a.com/",
                "Domain=b.com; Domain=a.com",
                Some(("a.com", false)),
            ),
            (
                "http://www.a.com/",
                "Domain=a.com; Domain=",
                Some(("a.com", false)),
            ),
            ("http://www.a.com/", "Domain=..a.com", None),
            ("http://www.a.com/", "Domain=com", None),
            ("http://www.a.com/", "Domain=x.www.a.com", None),
            ("http://nota.com/", "Domain=a.com", None),
            ("http://me.github.io/", "Domain=github.io", None),
            (
                "http://github.io/",
                "Domain=github.io",
                Some(("github.io", true)),
            ),
            (
                "http://127.0.0.1/",
                "Domain=127.0.0.1",
                Some(("127.0.0.1", true)),
            ),
            ("http://127.0.0.1/", "Domain=0.0.1", None),
            ("http://[::1]/", "Domain=[::1]", Some(("[::1]", true))),
            (
                "http://localhost/",
                "Domain=localhost",
                Some(("localhost", true)),
            ),
            ("http://x.localhost/", "Domain=localhost", None),
            (
                "http://www.b\u{fc}cher.de/",
                "Domain=b\u{fc}cher.de",
                Some(("xn--bcher-kva.de", false)),
            ),
        ] {
            let cookie = parse_from(url, &format!("a=b; {attribute}"));
            let domain = cookie
                .as_ref()
                .map(|cookie| (&*cookie.domain, cookie.is_host_only));
            assert_eq!(domain, expected, "{url} {attribute}");
        }
    }

    #[test]
    fn path_is_the_last_absolute_one_or_the_directory_of_the_url() {
        for (url, attribute, path) in [
            ("http://a.com/dir/page", "", "/dir"),
            ("http://a.com/dir/", "", "/dir"),
            ("http://a.com/dir", "", "/"),
            ("http://a.com", "", "/"),
            ("http://a.com/dir/page", "Path=/x", "/x"),
            ("http://a.com/dir/page", "Path    =   /x   ", "/x"),
            ("http://a.com/dir/page", "Path=x", "/dir"),
            ("http://a.com/dir/page", "Path=\"/x\"", "/dir"),
            ("http://a.com/dir/page", "Path", "/dir"),
            ("http://a.com/dir/page", "Path=/x; Path=/y", "/y"),
            ("http://a.com/dir/page", "Path=/x; Path=", "/dir"),
        ] {
            let cookie = parse_from(url, &format!("a=b; {attribute}")).unwrap();
            assert_eq!(&*cookie.path, path.as_bytes(), "{url} {attribute}");
        }
    }

    #[test]
    fn secure_attribute_requires_https_or_loopback() {
        for attribute in [
            "Secure",
            "seCURe",
            "Secure=",
            "Secure=aaaa",
            "  Secure ",
            "x; Secure",
        ] {
            let text = format!("a=b;{attribute}");
            assert!(
                parse_from("https://a.com/", &text).unwrap().is_secure,
                "{attribute}"
            );
            assert_eq!(parse_from("http://a.com/", &text), None, "{attribute}");
        }
        for attribute in ["\"Secure\"", "Secure qux", "Path=Secure"] {
            let cookie = parse_from("http://a.com/", &format!("a=b; {attribute}")).unwrap();
            assert!(!cookie.is_secure, "{attribute}");
        }
        for url in [
            "http://localhost:8080/",
            "http://app.localhost/",
            "http://localhost./",
            "http://127.0.0.1/",
            "http://127.9.9.9/",
            "http://[::1]/",
        ] {
            assert!(parse_from(url, "a=b; Secure").unwrap().is_secure, "{url}");
        }
        for url in [
            "http://notlocalhost/",
            "http://localhost.a.com/",
            "http://10.0.0.1/",
        ] {
            assert_eq!(parse_from(url, "a=b; Secure"), None, "{url}");
        }
    }

    #[test]
    fn name_prefixes_require_their_attributes() {
        for (text, is_accepted) in [
            ("__Secure-a=b", false),
            ("__Secure-a=b; Secure", true),
            ("__SECURE-a=b", false),
            ("__Host-a=b; Secure", false),
            ("__Host-a=b; Secure; Path=/", true),
            ("__host-a=b; Path=/", false),
            ("__Host-a=b; Secure; Path=/; Domain=a.com", false),
            ("__Host-a=b; Secure; Path=/x", false),
        ] {
            assert_eq!(parse(text).is_some(), is_accepted, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            value in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
            attribute in "(Domain|Path|Max-Age|Expires|secure|=|;|\\.| |[a-z0-9-]){0,20}",
        ) {
            let url = Url::parse("https://www.a.com/x").unwrap();
            let text = [&value[..], b"a=b; ", attribute.as_bytes()].concat();
            let _ = Cookie::parse_set_cookie(&text, &url, NOW);
        }
    }
}
