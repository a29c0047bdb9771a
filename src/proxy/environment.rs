//! Proxies from environment variables.
//!
//! This is own code because `hyper_util::client::proxy::matcher` ignores an invalid variable and
//! then connects directly. It fails the test
//! `an_invalid_variable_fails_all_requests_but_those_to_localhost`.

use std::ffi::OsString;

use super::no_proxy::NoProxy;
use super::selection::Proxies;
use super::server::ProxyServer;
use super::{Proxy, ProxyScope};
use crate::credentials::InvalidReason;

impl Proxies {
    /// Reads the proxies from the environment variables `http_proxy`, `https_proxy`, `all_proxy`
    /// and `no_proxy`.
    ///
    /// A variable with a lower-case name takes precedence over one with an upper-case name.
    /// Requests to localhost are always direct.
    pub(crate) fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        match parse_proxies(&variable) {
            Ok(list) => Self {
                list,
                environment_error: None,
            },
            Err(reason) => Self {
                list: Vec::new(),
                environment_error: Some(reason),
            },
        }
    }
}

fn parse_proxies(
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Proxy>, InvalidReason> {
    let mut list = Vec::new();
    let mut no_proxy = None;
    for (name, scope) in [
        ("http_proxy", ProxyScope::Http),
        ("https_proxy", ProxyScope::Https),
        ("all_proxy", ProxyScope::All),
    ] {
        let Some((name, url)) = first_set_variable(name, variable)? else {
            continue;
        };
        let server = ProxyServer::parse(&url)
            .map_err(|reason| format!("the environment variable {name}: {reason}"))?;
        let no_proxy = match &no_proxy {
            Some(parsed) => NoProxy::clone(parsed),
            None => no_proxy.insert(no_proxy_from_env(variable)?).clone(),
        };
        list.push(Proxy::from_parts(scope, no_proxy, server));
    }
    Ok(list)
}

fn no_proxy_from_env(
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<NoProxy, InvalidReason> {
    let hosts = first_set_variable("no_proxy", variable)?.map(|(_, hosts)| NoProxy::parse(&hosts));
    let mut no_proxy = hosts.unwrap_or_default();
    no_proxy.matches_localhost = true;
    Ok(no_proxy)
}

/// Returns the name and value of a variable that is set and not blank. Tries `name` first, and
/// `name` in upper case second.
fn first_set_variable(
    name: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, InvalidReason> {
    let upper = name.to_ascii_uppercase();
    // A CGI server puts the request header `Proxy` into HTTP_PROXY (CVE-2016-5385, "httpoxy").
    let is_forgeable = upper == "HTTP_PROXY" && variable("REQUEST_METHOD").is_some();
    for name in [name, &upper] {
        if is_forgeable && name == upper {
            continue;
        }
        match variable(name).map(OsString::into_string) {
            Some(Ok(text)) if text.trim().is_empty() => {}
            Some(Ok(text)) => return Ok(Some((name.to_owned(), text))),
            Some(Err(_)) => {
                return Err(format!("the environment variable {name} is not valid Unicode").into());
            }
            None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::selection::ProxyChoice;
    use super::*;
    use crate::error::ErrorKind;

    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn proxy_host_for(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let server = proxies.proxy_for(&url, &ProxyChoice::Default).unwrap();
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
            ("HTTP_PROXY", "a.example:3128"),
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
    fn http_proxy_in_upper_case_is_ignored_in_a_cgi_program() {
        let forged = [("HTTP_PROXY", "evil.example"), ("REQUEST_METHOD", "GET")];
        let forged: &'static [_] = Box::leak(Box::new(forged));
        assert!(proxies(forged).is_empty());
        let lower = proxies(&[("http_proxy", "a.example"), ("REQUEST_METHOD", "GET")]);
        assert!(!lower.is_empty());
    }

    #[test]
    fn an_invalid_variable_fails_all_requests_but_those_to_localhost() {
        let invalid = proxies(&[("HTTPS_PROXY", "ftp://user:s3cr3t@proxy.example")]);
        assert_eq!(proxy_host_for(&invalid, "http://localhost/"), None);
        let url = Url::parse("http://x.example/").unwrap();
        let Err(error) = invalid.proxy_for(&url, &ProxyChoice::Default) else {
            panic!("the request must fail");
        };
        assert_eq!(error.kind(), ErrorKind::ProxyRefused);
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"));
        assert_eq!(
            invalid.check_environment().unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }
}
