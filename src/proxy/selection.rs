//! Selects the proxy of a request.

use url::Url;

use super::{ProxiedUrls, Proxy};
use crate::credentials::InvalidReason;
use crate::error::{Error, ErrorKind, Result};

/// The proxy setting of one request.
#[derive(Clone, Debug, Default)]
pub(crate) enum ProxyChoice {
    /// Uses the proxies of the Fetcher.
    #[default]
    FetcherProxies,
    /// Uses no proxy.
    Direct,
    /// Uses this proxy if it applies to the URL, and the proxies of the Fetcher otherwise.
    RequestProxy(Proxy),
}

/// The proxies of a Fetcher. A request uses the first proxy that applies to its URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    pub(super) entries: Vec<ProxyEntry>,
}

#[derive(Clone, Debug)]
pub(super) enum ProxyEntry {
    ValidProxy(Proxy),
    /// An environment variable whose value is not a proxy URL. A request that would use this proxy
    /// fails, because a direct connection could expose the request.
    InvalidVariable {
        proxied_urls: ProxiedUrls,
        reason: InvalidReason,
    },
}

impl ProxyEntry {
    fn applies_to_url(&self, url: &Url) -> bool {
        match self {
            ProxyEntry::ValidProxy(proxy) => proxy.applies_to_url(url),
            ProxyEntry::InvalidVariable { proxied_urls, .. } => proxied_urls.contains_url(url),
        }
    }
}

impl Proxies {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the proxy to use for a request to `url`, or `None` to connect directly.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::ProxyRefused`] if the environment variable that would provide the proxy
    /// is invalid.
    pub(crate) fn select_proxy<'a>(
        &'a self,
        url: &Url,
        choice: &'a ProxyChoice,
    ) -> Result<Option<&'a Proxy>, Error> {
        match choice {
            ProxyChoice::Direct => return Ok(None),
            ProxyChoice::RequestProxy(proxy) => {
                if proxy.applies_to_url(url) {
                    return Ok(Some(proxy));
                }
            }
            ProxyChoice::FetcherProxies => {}
        }
        match self.entries.iter().find(|entry| entry.applies_to_url(url)) {
            None => Ok(None),
            Some(ProxyEntry::ValidProxy(proxy)) => Ok(Some(proxy)),
            Some(ProxyEntry::InvalidVariable { reason, .. }) => {
                Err(Error::from_kind(ErrorKind::ProxyRefused).with_detail(reason.clone()))
            }
        }
    }
}

impl From<Vec<Proxy>> for Proxies {
    fn from(list: Vec<Proxy>) -> Self {
        Self {
            entries: list.into_iter().map(ProxyEntry::ValidProxy).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_proxy_then_the_first_matching_proxy_is_used() {
        let proxies = Proxies::from(vec![
            Proxy::https("http://a.example").unwrap(),
            Proxy::all("http://b.example")
                .unwrap()
                .no_proxy("c.example, 10.0.0.0/8"),
        ]);
        let own = ProxyChoice::RequestProxy(Proxy::http("http://own.example").unwrap());
        for (url, choice, host) in [
            (
                "https://x.example/",
                &ProxyChoice::FetcherProxies,
                Some("a.example"),
            ),
            (
                "http://x.example/",
                &ProxyChoice::FetcherProxies,
                Some("b.example"),
            ),
            (
                "https://c.example/",
                &ProxyChoice::FetcherProxies,
                Some("a.example"),
            ),
            ("http://sub.c.example/", &ProxyChoice::FetcherProxies, None),
            ("http://10.1.2.3/", &ProxyChoice::FetcherProxies, None),
            ("http://x.example/", &ProxyChoice::Direct, None),
            ("http://x.example/", &own, Some("own.example")),
            ("https://x.example/", &own, Some("a.example")),
        ] {
            let url = Url::parse(url).unwrap();
            let proxy = proxies.select_proxy(&url, choice).unwrap();
            let found = proxy.map(|proxy| proxy.server().host.to_string());
            assert_eq!(found.as_deref(), host, "{url}");
        }
    }
}
