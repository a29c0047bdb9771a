//! What a Fetcher does not share with its siblings: what it says and what it puts up with, but for the limits.

use url::Url;

use super::TokenCells;
use crate::exchange::ExchangeContext;
use crate::{Error, ErrorKind};

/// It travels with the terms of each job, since one engine may run the jobs of many Fetchers.
pub(crate) struct RequestPolicy {
    pub(crate) exchange: ExchangeContext,
    /// Of the origins that have a source of them.
    pub(crate) token_cells: TokenCells,
    /// The most redirects that are followed.
    pub(crate) max_redirects: u32,
    pub(crate) https_only: bool,
    /// The ports that may be asked; none: all.
    pub(crate) allowed_ports: Option<Box<[u16]>>,
}

impl RequestPolicy {
    /// # Errors
    ///
    /// If it is not to be asked.
    pub(super) fn check_allowed(&self, url: &Url) -> Result<(), Error> {
        if self.https_only && url.scheme() != "https" {
            return Err(Error::from_kind(ErrorKind::NotAllowed).with_detail("only https is"));
        }
        if let Some(allowed_ports) = &self.allowed_ports
            && !url
                .port_or_known_default()
                .is_some_and(|port| allowed_ports.contains(&port))
        {
            return Err(Error::from_kind(ErrorKind::NotAllowed)
                .with_detail("its port is not among those that are"));
        }
        Ok(())
    }
}
