//! A Fetcher that shares connections and limits with another.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::HeaderMap;

use super::FetcherBuilder;
use crate::engine::{Engine, Manners, Terms, Tokens};
use crate::{Error, ErrorKind, Result};

/// Whom a sibling shares with.
pub(super) struct Parent {
    pub(super) engine: Arc<Engine>,
    pub(super) manners: Arc<Manners>,
}

impl FetcherBuilder {
    /// It has of the parent what it may change. Of what is shared it knows no more than whether it was touched.
    pub(crate) fn of_sibling(engine: &Arc<Engine>, terms: &Terms) -> Self {
        let manners = &terms.manners;
        let exchange = &manners.exchange;
        Self {
            retry: terms.retry.clone(),
            timeouts: terms.timeouts.clone(),
            body_cap: exchange.body_cap,
            decode: exchange.decode,
            server_limits: exchange.server_limits,
            max_redirects: manners.max_redirects,
            https_only: manners.https_only,
            ports: manners.ports.clone(),
            user_agent: exchange.heads.user_agent.clone(),
            default_headers: exchange.heads.defaults.clone(),
            host_by: exchange.heads.host_by.clone(),
            jar: exchange.heads.jar.another(),
            parent: Some(Parent {
                engine: Arc::clone(engine),
                manners: Arc::clone(manners),
            }),
            ..Self::default()
        }
    }

    /// A setting of what siblings share was called.
    pub(super) fn touch(&mut self, setting: &'static str) {
        self.shared.get_or_insert(setting);
    }

    pub(super) fn check_shared(&self) -> Result<()> {
        match self.shared {
            Some(setting) if self.parent.is_some() => Err(shares(&format!("`{setting}` is"))),
            _ => Ok(()),
        }
    }

    /// The headers and token sources of the hosts that were set before.
    pub(super) fn credentials(&self) -> (HashMap<Box<str>, HeaderMap>, Tokens) {
        match &self.parent {
            None => Default::default(),
            Some(parent) => {
                let manners = &parent.manners;
                let by_origin = manners.exchange.heads.by_origin.clone();
                (by_origin, manners.tokens.clone())
            }
        }
    }
}

pub(super) fn shares(what: &str) -> Error {
    let reason = format!("{what} shared with the Fetcher this one is a sibling of: set it there");
    Error::of(ErrorKind::InvalidRequest).because(reason)
}
