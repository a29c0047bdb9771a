//! The proxies that the environment names.

use std::ffi::OsString;
use std::sync::Arc;

use super::no_proxy::NoProxy;
use super::{Inner, Proxies, Proxy, ProxyScope, ProxyServer};
use crate::credentials::InvalidReason;

impl Proxies {
    /// Those of `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower case or else in upper case.
    ///
    /// This machine itself is always asked directly.
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
        let Some((name, text)) = first_set(name, variable)? else {
            continue;
        };
        let server = ProxyServer::parse(&text)
            .map_err(|reason| format!("the environment's {name}: {reason}"))?;
        let no_proxy = match &no_proxy {
            Some(known) => NoProxy::clone(known),
            None => no_proxy.insert(no_proxy_from_env(variable)?).clone(),
        };
        list.push(Proxy(Arc::new(Inner {
            scope,
            no_proxy,
            server,
        })));
    }
    Ok(list)
}

fn no_proxy_from_env(
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<NoProxy, InvalidReason> {
    let listed = first_set("no_proxy", variable)?.map(|(_, list)| NoProxy::parse(&list));
    let mut no_proxy = listed.unwrap_or_default();
    no_proxy.localhost = true;
    Ok(no_proxy)
}

/// The value of a variable that is set and not empty, with the name under which it was.
fn first_set(
    name: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, InvalidReason> {
    let upper = name.to_ascii_uppercase();
    // A CGI program is given a request's header `Proxy` by this very name.
    let is_forged = upper == "HTTP_PROXY" && variable("REQUEST_METHOD").is_some();
    for name in [name, &upper] {
        if is_forged && name == upper {
            continue;
        }
        match variable(name).map(OsString::into_string) {
            Some(Ok(text)) if text.trim().is_empty() => {}
            Some(Ok(text)) => return Ok(Some((name.to_owned(), text))),
            Some(Err(_)) => return Err(format!("the environment's {name} is not text").into()),
            None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::ProxyChoice;
    use super::*;
    use crate::ErrorKind;

    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn found(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let server = proxies.server_for(&url, &ProxyChoice::Default).unwrap();
        server.map(|server| server.host.to_string())
    }

    #[test]
    fn an_environment_without_proxies_gives_none() {
        assert!(proxies(&[]).is_empty());
        assert!(proxies(&[("http_proxy", " "), ("no_proxy", "*")]).is_empty());
    }

    #[test]
    fn each_scheme_has_its_own_and_then_that_for_all() {
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
            assert_eq!(found(&environment, url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn lower_case_goes_before_upper_case() {
        let environment = proxies(&[("HTTPS_PROXY", "a.example"), ("https_proxy", "b.example")]);
        assert_eq!(
            found(&environment, "https://x.example/").as_deref(),
            Some("b.example")
        );
    }

    #[test]
    fn what_a_request_to_a_cgi_program_says_is_no_proxy() {
        let forged = [("HTTP_PROXY", "evil.example"), ("REQUEST_METHOD", "GET")];
        let forged: &'static [_] = Box::leak(Box::new(forged));
        assert!(proxies(forged).is_empty());
        let lower = proxies(&[("http_proxy", "a.example"), ("REQUEST_METHOD", "GET")]);
        assert!(!lower.is_empty());
    }

    #[test]
    fn an_environment_that_makes_no_sense_stops_all_but_this_machines_requests() {
        let broken = proxies(&[("HTTPS_PROXY", "ftp://user:s3cr3t@proxy.example")]);
        assert_eq!(found(&broken, "http://localhost/"), None);
        let url = Url::parse("http://x.example/").unwrap();
        let Err(error) = broken.server_for(&url, &ProxyChoice::Default) else {
            panic!("it is to be refused");
        };
        assert_eq!(error.kind(), ErrorKind::ProxyRefused);
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"));
        assert_eq!(
            broken.check_environment().unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }
}
