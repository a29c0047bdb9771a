//! Proxies from environment variables.
//!
//! `hyper_util::client::proxy::matcher` is not used, because it ignores an invalid variable and
//! then connects directly, which fails the test
//! `invalid_variable_fails_only_the_requests_that_would_use_it`.

use std::ffi::OsString;

use super::no_proxy::NoProxy;
use super::selection::{Proxies, ProxyEntry};
use super::server::ProxyServer;
use super::{ProxiedSchemes, ProxiedUrls, Proxy};
use crate::credentials::InvalidReason;

impl Proxies {
    /// Reads the proxies from the environment variables `http_proxy`, `https_proxy`, `all_proxy`
    /// and `no_proxy`.
    ///
    /// A variable with a lower-case name takes precedence over the variable with the upper-case
    /// name. As in curl, `HTTP_PROXY` is ignored. Requests to localhost are always direct.
    pub(crate) fn from_env() -> Self {
        Self::from_variable_lookup(|name| std::env::var_os(name))
    }

    fn from_variable_lookup(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let proxy_variables = [
            ("http_proxy", ProxiedSchemes::OnlyHttp),
            ("https_proxy", ProxiedSchemes::OnlyHttps),
            ("all_proxy", ProxiedSchemes::HttpAndHttps),
        ]
        .map(|(name, schemes)| Some((schemes, lower_or_upper_case_variable(name, &variable)?)));
        if proxy_variables.iter().all(Option::is_none) {
            return Self::default();
        }
        let no_proxy = no_proxy_from_env(&variable);
        let entry = |(schemes, (name, url)): (ProxiedSchemes, (String, OsString))| {
            let no_proxy = no_proxy.clone();
            entry_from_variable(ProxiedUrls { schemes, no_proxy }, &name, url)
        };
        Self {
            entries: proxy_variables.into_iter().flatten().map(entry).collect(),
        }
    }
}

fn entry_from_variable(
    proxied_urls: ProxiedUrls,
    variable_name: &str,
    url: OsString,
) -> ProxyEntry {
    let server = match url.to_str() {
        Some(url) => ProxyServer::parse_proxy_url(url),
        None => Err(InvalidReason::from("the value is not valid Unicode")),
    };
    match server {
        Ok(server) => ProxyEntry::ValidProxy(Proxy::from_server(proxied_urls, server)),
        Err(reason) => ProxyEntry::InvalidVariable {
            proxied_urls,
            reason: format!("the environment variable {variable_name}: {reason}").into(),
        },
    }
}

/// Reads `no_proxy`. Invalid entries are ignored, also those that are not valid Unicode.
fn no_proxy_from_env(variable: &impl Fn(&str) -> Option<OsString>) -> NoProxy {
    let hosts = lower_or_upper_case_variable("no_proxy", variable);
    let mut no_proxy = match hosts {
        Some((_, hosts)) => NoProxy::parse_list(&hosts.to_string_lossy()),
        None => NoProxy::default(),
    };
    no_proxy.matches_localhost = true;
    no_proxy
}

/// Returns the name and value of the variable `name` or, if that one is unset or blank, of the
/// variable with the upper-case name.
fn lower_or_upper_case_variable(
    name: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Option<(String, OsString)> {
    let upper = name.to_ascii_uppercase();
    [name.to_owned(), upper]
        .into_iter()
        // `HTTP_PROXY` is ignored, because a CGI server sets it to the value of the request header
        // `Proxy` (CVE-2016-5385, "httpoxy").
        .filter(|name| name != "HTTP_PROXY")
        .filter_map(|name| variable(&name).map(|value| (name, value)))
        .find(|(_, value)| !value.to_string_lossy().trim().is_empty())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::selection::ProxyChoice;
    use super::*;
    use crate::error::ErrorKind;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variable_lookup(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn proxy_host_for(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let server = proxies
            .select_proxy(&url, &ProxyChoice::FetcherProxies)
            .unwrap();
        server.map(|proxy| proxy.server().host.to_string())
    }

    #[test]
    fn unset_and_blank_variables_give_no_proxies() {
        assert!(proxies(&[]).is_empty());
        assert!(proxies(&[("http_proxy", " "), ("no_proxy", "*")]).is_empty());
    }

    #[test]
    fn the_variable_of_the_scheme_precedes_all_proxy() {
        let environment = proxies(&[
            ("http_proxy", "a.example:3128"),
            ("ALL_PROXY", "socks5h://b.example"),
            ("NO_PROXY", "direct.example"),
        ]);
        for (url, host) in [
            ("http://x.example/", Some("a.example")),
            ("https://x.example/", Some("b.example")),
            ("http://direct.example/", None),
            ("https://direct.example/", None),
            ("http://localhost:8000/", None),
            ("https://127.0.0.1/", None),
        ] {
            assert_eq!(proxy_host_for(&environment, url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn lower_case_precedes_upper_case() {
        let environment = proxies(&[("HTTPS_PROXY", "a.example"), ("https_proxy", "b.example")]);
        assert_eq!(
            proxy_host_for(&environment, "https://x.example/").as_deref(),
            Some("b.example")
        );
    }

    #[test]
    fn http_proxy_in_upper_case_is_ignored() {
        assert!(proxies(&[("HTTP_PROXY", "evil.example")]).is_empty());
        assert!(proxies(&[("HTTP_PROXY", "evil.example"), ("REQUEST_METHOD", "GET")]).is_empty());
        let environment = proxies(&[("HTTP_PROXY", "evil.example"), ("ALL_PROXY", "a.example")]);
        assert_eq!(
            proxy_host_for(&environment, "http://x.example/").as_deref(),
            Some("a.example")
        );
        let lower = proxies(&[("http_proxy", "a.example"), ("REQUEST_METHOD", "GET")]);
        assert!(!lower.is_empty());
    }

    #[test]
    fn path_of_a_proxy_url_is_ignored() {
        let environment = proxies(&[("ALL_PROXY", "http://a.example:3128/path/")]);
        assert_eq!(
            proxy_host_for(&environment, "http://x.example/").as_deref(),
            Some("a.example")
        );
    }

    #[test]
    fn invalid_variable_fails_only_the_requests_that_would_use_it() {
        let good = ("http_proxy", "http://a.example");
        let direct = ("no_proxy", ".direct.example");
        let environments: [(&[_], _, _); 4] = [
            (
                &[("ALL_PROXY", "socks://user:s3cr3t@b.example"), good, direct],
                Ok(Some("a.example")),
                Err("ALL_PROXY"),
            ),
            (
                &[("https_proxy", "http://user:12/s3cr3t@b.example"), direct],
                Ok(None),
                Err("https_proxy"),
            ),
            (
                &[
                    ("HTTPS_PROXY", "http://b.example:99999"),
                    ("all_proxy", "http://a.example"),
                    direct,
                ],
                Ok(Some("a.example")),
                Err("HTTPS_PROXY"),
            ),
            (
                &[("all_proxy", "ftp://b.example"), direct],
                Err("all_proxy"),
                Err("all_proxy"),
            ),
        ];
        for (variables, http, https) in environments {
            let environment = proxies(variables);
            for (url, expected) in [
                ("http://x.example/", http),
                ("https://x.example/", https),
                ("http://sub.direct.example/", Ok(None)),
                ("https://sub.direct.example/", Ok(None)),
                ("http://localhost/", Ok(None)),
                ("https://app.localhost/", Ok(None)),
                ("https://[::1]/", Ok(None)),
            ] {
                let url = Url::parse(url).unwrap();
                let proxy = environment.select_proxy(&url, &ProxyChoice::FetcherProxies);
                match (proxy, expected) {
                    (Ok(proxy), Ok(host)) => {
                        let found = proxy.map(|proxy| proxy.server().host.to_string());
                        assert_eq!(found.as_deref(), host, "{variables:?} {url}");
                    }
                    (Err(error), Err(variable)) => {
                        assert_eq!(error.kind(), ErrorKind::ProxyRefused);
                        assert!(error.to_string().contains(variable), "{error}");
                        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
                    }
                    (proxy, _) => panic!("{variables:?} {url} {proxy:?}"),
                }
            }
        }
    }

    #[test]
    fn invalid_variable_does_not_affect_a_request_with_its_own_proxy_or_none() {
        let environment = proxies(&[("ALL_PROXY", "ftp://user:s3cr3t@proxy.example")]);
        let url = Url::parse("http://x.example/").unwrap();
        let own = ProxyChoice::RequestProxy(Proxy::all("http://own.example").unwrap());
        assert!(environment.select_proxy(&url, &own).unwrap().is_some());
        let direct = environment
            .select_proxy(&url, &ProxyChoice::Direct)
            .unwrap();
        assert!(direct.is_none());
    }

    #[cfg(unix)]
    #[test]
    fn variable_that_is_not_unicode_is_invalid_and_such_a_no_proxy_entry_is_ignored() {
        use std::os::unix::ffi::OsStringExt as _;

        let environment = Proxies::from_variable_lookup(|name| match name {
            "https_proxy" => Some(OsString::from_vec(b"http://\xff.example".to_vec())),
            "http_proxy" => Some("http://a.example".into()),
            "no_proxy" => Some(OsString::from_vec(b"\xff.example,b.example".to_vec())),
            _ => None,
        });
        let url = Url::parse("https://x.example/").unwrap();
        let error = environment.select_proxy(&url, &ProxyChoice::FetcherProxies);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ProxyRefused);
        assert_eq!(proxy_host_for(&environment, "https://b.example/"), None);
        assert!(proxy_host_for(&environment, "http://x.example/").is_some());
    }
}
