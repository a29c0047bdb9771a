//! The redirect policy: which redirects of a request are followed.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;
use url::Url;

use crate::error::{Error, ErrorKind, Result, panic_message};
use crate::response::Redirect;

/// Decides which redirects are followed, for
/// [`FetcherBuilder::redirect_policy`](crate::FetcherBuilder::redirect_policy) and
/// [`RequestBuilder::redirect_policy`](crate::RequestBuilder::redirect_policy). Default:
/// [`all`](Self::all).
///
/// The policy decides about each redirect to a valid URL, whose status is 301, 302, 303, 307 or
/// 308. The number of redirects is limited separately, by
/// [`max_redirects`](crate::FetcherBuilder::max_redirects). Credentials are removed from a
/// redirect to another origin, whatever the policy.
///
/// ```
/// # fn main() -> fanout::Result<()> {
/// use fanout::{Fetcher, RedirectDecision, RedirectPolicy, Request};
///
/// let fetcher = Fetcher::builder().redirect_policy(RedirectPolicy::same_host()).build()?;
/// let no_login_page = RedirectPolicy::custom(|redirect| {
///     if redirect.target_url().path() == "/login" {
///         RedirectDecision::Fail
///     } else {
///         RedirectDecision::Follow
///     }
/// });
/// let request = Request::get("https://a.example/report").redirect_policy(no_login_page);
/// # let _ = (fetcher, request);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct RedirectPolicy(PolicyRule);

#[derive(Clone, Default)]
enum PolicyRule {
    #[default]
    All,
    None,
    SameHost,
    Custom(Arc<DecideRedirectFn>),
}

type DecideRedirectFn = dyn Fn(&ProposedRedirect<'_>) -> RedirectDecision + Send + Sync;

/// Whether a redirect is followed; the return value of the function of [`RedirectPolicy::custom`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectDecision {
    /// The redirect is followed.
    Follow,
    /// The redirect is not followed: the response that redirects is the result.
    Stop,
    /// The request fails with [`ErrorKind::Redirect`]. The error keeps the response that redirects.
    Fail,
}

/// A redirect about which a [`RedirectPolicy`] decides.
#[derive(Clone, Debug)]
pub struct ProposedRedirect<'a> {
    pub(crate) status: StatusCode,
    pub(crate) url: &'a Url,
    pub(crate) target_url: &'a Url,
    pub(crate) earlier_redirects: &'a [Redirect],
}

impl ProposedRedirect<'_> {
    /// The status of the redirect: 301, 302, 303, 307 or 308.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The URL that responded with the redirect.
    pub fn url(&self) -> &Url {
        self.url
    }

    /// The URL to which the redirect leads, without userinfo.
    pub fn target_url(&self) -> &Url {
        self.target_url
    }

    /// The redirects of the request that were followed before, oldest first.
    pub fn earlier_redirects(&self) -> &[Redirect] {
        self.earlier_redirects
    }
}

impl RedirectPolicy {
    /// Follows all redirects. This is the default.
    pub fn all() -> Self {
        Self(PolicyRule::All)
    }

    /// Follows no redirect: a response that redirects is the result. A `max_redirects` of 0 has the
    /// same effect.
    pub fn none() -> Self {
        Self(PolicyRule::None)
    }

    /// Follows redirects within a host. The scheme and the port may change. A response that
    /// redirects to another host, subdomains included, is the result.
    pub fn same_host() -> Self {
        Self(PolicyRule::SameHost)
    }

    /// Calls a function of the user to decide about each redirect.
    ///
    /// The function is called once for each redirect, when the head of the response has arrived, on
    /// a thread of the runtime. It must not block. If it panics, the request fails with
    /// [`ErrorKind::Panicked`].
    pub fn custom<F>(decide: F) -> Self
    where
        F: Fn(&ProposedRedirect<'_>) -> RedirectDecision + Send + Sync + 'static,
    {
        Self(PolicyRule::Custom(Arc::new(decide)))
    }

    pub(crate) fn follows_all(&self) -> bool {
        matches!(self.0, PolicyRule::All)
    }

    /// Decides about a redirect.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`] if the user's function panics.
    pub(crate) fn decide_redirect(
        &self,
        redirect: &ProposedRedirect<'_>,
    ) -> Result<RedirectDecision> {
        match &self.0 {
            PolicyRule::All => Ok(RedirectDecision::Follow),
            PolicyRule::SameHost if redirect.url.host() == redirect.target_url.host() => {
                Ok(RedirectDecision::Follow)
            }
            PolicyRule::None | PolicyRule::SameHost => Ok(RedirectDecision::Stop),
            PolicyRule::Custom(decide) => catch_unwind(AssertUnwindSafe(|| decide(redirect)))
                .map_err(|panic| {
                    let message = panic_message(&*panic);
                    let detail = format!("in `RedirectPolicy::custom`: {message}");
                    Error::from_kind(ErrorKind::Panicked).with_detail(detail)
                }),
        }
    }
}

impl fmt::Debug for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PolicyRule::All => "All",
            PolicyRule::None => "None",
            PolicyRule::SameHost => "SameHost",
            PolicyRule::Custom(_) => "Custom",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(policy: &RedirectPolicy, url: &str, target: &str) -> RedirectDecision {
        let redirect = ProposedRedirect {
            status: StatusCode::FOUND,
            url: &Url::parse(url).unwrap(),
            target_url: &Url::parse(target).unwrap(),
            earlier_redirects: &[],
        };
        policy.decide_redirect(&redirect).unwrap()
    }

    #[test]
    fn same_host_compares_hosts_and_neither_schemes_nor_ports() {
        for (url, target, is_followed) in [
            ("http://a.example/", "http://a.example/x", true),
            ("http://a.example/", "https://A.example:8443/", true),
            ("https://a.example/", "http://a.example/", true),
            ("http://127.0.0.1:1/", "http://127.0.0.1:2/", true),
            ("http://a.example/", "http://www.a.example/", false),
            ("http://www.a.example/", "http://a.example/", false),
            ("http://a.example/", "http://a.example.b.example/", false),
            ("http://127.0.0.1/", "http://127.0.0.2/", false),
            ("http://127.0.0.1/", "http://localhost/", false),
            ("http://a.example/", "http://a.example./", false),
        ] {
            let decision = decide(&RedirectPolicy::same_host(), url, target);
            assert_eq!(
                decision == RedirectDecision::Follow,
                is_followed,
                "{url} {target}"
            );
            assert_eq!(
                decision == RedirectDecision::Stop,
                !is_followed,
                "{url} {target}"
            );
        }
    }

    #[test]
    fn default_policy_follows_all_and_none_follows_nothing() {
        let (url, target) = ("http://a.example/", "http://b.example/");
        let default_policy = RedirectPolicy::default();
        assert!(default_policy.follows_all() && RedirectPolicy::all().follows_all());
        assert_eq!(
            decide(&default_policy, url, target),
            RedirectDecision::Follow
        );
        assert_eq!(
            decide(&RedirectPolicy::none(), url, url),
            RedirectDecision::Stop
        );
    }
}
