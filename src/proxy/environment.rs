//! The proxies that the environment names.

use std::ffi::OsString;
use std::sync::Arc;

use super::bypass::Bypass;
use super::{Covers, Inner, Proxies, Proxy, Server};
use crate::credentials::Reason;

impl Proxies {
    /// Those of `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower case or else in upper case.
    ///
    /// This machine itself is always asked directly.
    pub(crate) fn of_environment() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        match list(&variable) {
            Ok(list) => Self { list, broken: None },
            Err(reason) => Self {
                list: Vec::new(),
                broken: Some(reason),
            },
        }
    }
}

fn list(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<Proxy>, Reason> {
    let mut list = Vec::new();
    let mut except = None;
    for (name, covers) in [
        ("http_proxy", Covers::Http),
        ("https_proxy", Covers::Https),
        ("all_proxy", Covers::All),
    ] {
        let Some((name, text)) = text(name, variable)? else {
            continue;
        };
        let server =
            Server::parse(&text).map_err(|reason| format!("the environment's {name}: {reason}"))?;
        let except = match &except {
            Some(known) => Bypass::clone(known),
            None => except.insert(bypass(variable)?).clone(),
        };
        list.push(Proxy(Arc::new(Inner {
            covers,
            except,
            server,
        })));
    }
    Ok(list)
}

fn bypass(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Bypass, Reason> {
    let listed = text("no_proxy", variable)?.map(|(_, list)| Bypass::parse(&list));
    let mut bypass = listed.unwrap_or_default();
    bypass.local = true;
    Ok(bypass)
}

/// The value of a variable that is set and not empty, with the name under which it was.
fn text(
    name: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, Reason> {
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

    use super::super::Via;
    use super::*;
    use crate::ErrorKind;

    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        Proxies::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn found(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let server = proxies.server_for(&url, &Via::AsFetcher).unwrap();
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
        let Err(error) = broken.server_for(&url, &Via::AsFetcher) else {
            panic!("it is to be refused");
        };
        assert_eq!(error.kind(), ErrorKind::ProxyRefused);
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"));
        assert_eq!(
            broken.check().unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }
}
