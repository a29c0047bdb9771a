//! What a Fetcher does not share with its siblings: what it says and what it puts up with, but for the limits.

use url::Url;

use super::Tokens;
use crate::exchange::Exchange;
use crate::{Error, ErrorKind};

/// It travels with the terms of each job, since one engine may run the jobs of many Fetchers.
pub(crate) struct Manners {
    pub(crate) exchange: Exchange,
    /// Of the origins that have a source of them.
    pub(crate) tokens: Tokens,
    /// The most redirects that are followed.
    pub(crate) max_redirects: u32,
    pub(crate) https_only: bool,
    /// The ports that may be asked; none: all.
    pub(crate) ports: Option<Box<[u16]>>,
}

impl Manners {
    /// # Errors
    ///
    /// If it is not to be asked.
    pub(super) fn allow(&self, url: &Url) -> Result<(), Error> {
        if self.https_only && url.scheme() != "https" {
            return Err(Error::of(ErrorKind::NotAllowed).because("only https is"));
        }
        if let Some(ports) = &self.ports
            && !url
                .port_or_known_default()
                .is_some_and(|port| ports.contains(&port))
        {
            return Err(
                Error::of(ErrorKind::NotAllowed).because("its port is not among those that are")
            );
        }
        Ok(())
    }
}
