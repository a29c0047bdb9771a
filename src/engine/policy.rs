//! The request policy of a Fetcher: how its requests are made, apart from limits.

use url::Url;

use super::tokens::TokenCells;
use crate::error::{Error, ErrorKind};
use crate::exchange::ExchangeContext;

/// How a Fetcher makes requests, apart from limits. Siblings (Fetchers that share an engine) have
/// different policies, so each job refers to its own policy.
pub(crate) struct RequestPolicy {
    pub(crate) exchange: ExchangeContext,
    pub(crate) token_cells: TokenCells,
    pub(crate) max_redirects: u32,
    pub(crate) https_only: bool,
    /// The ports that requests may use. `None` allows all ports.
    pub(crate) allowed_ports: Option<Box<[u16]>>,
}

impl RequestPolicy {
    /// # Errors
    ///
    /// Returns [`ErrorKind::NotAllowed`] if the policy forbids requests to `url`.
    pub(super) fn check_allowed(&self, url: &Url) -> Result<(), Error> {
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
