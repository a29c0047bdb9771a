//! The request settings of a Fetcher: how its requests are made, apart from limits and retries.

use url::Url;

use super::tokens::TokenCells;
use crate::error::{Error, ErrorKind};
use crate::exchange::ExchangeSettings;
use crate::limits::Budget;
use crate::redirect_policy::RedirectPolicy;

/// How a Fetcher makes requests, apart from limits and retries. Siblings (Fetchers that share an
/// engine) may have different request settings, so each job refers to the settings of its Fetcher.
pub(crate) struct RequestSettings {
    pub(crate) exchange_settings: ExchangeSettings,
    pub(crate) token_cells: TokenCells,
    /// The budgets of a sibling with limits of its own.
    pub(crate) sibling_budgets: Vec<Budget>,
    pub(crate) max_redirects: u32,
    pub(crate) redirect_policy: RedirectPolicy,
    pub(crate) https_only: bool,
    /// The ports that requests may use. `None` allows all ports.
    pub(crate) allowed_ports: Option<Box<[u16]>>,
}

impl RequestSettings {
    /// # Errors
    ///
    /// Returns [`ErrorKind::NotAllowed`] if the settings forbid requests to `url`.
    pub(super) fn check_url_allowed(&self, url: &Url) -> Result<(), Error> {
        let not_allowed = |reason| Error::from_kind(ErrorKind::NotAllowed).with_detail(reason);
        if self.https_only && url.scheme() != "https" {
            return Err(not_allowed("only https is allowed"));
        }
        let port = url.port_or_known_default();
        match &self.allowed_ports {
            Some(allowed) if !port.is_some_and(|port| allowed.contains(&port)) => {
                Err(not_allowed("its port is not one of the allowed ports"))
            }
            _ => Ok(()),
        }
    }
}
