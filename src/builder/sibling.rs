//! A Fetcher that shares connections and limits with another.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::HeaderMap;

use super::FetcherBuilder;
use crate::engine::{Engine, JobOptions, RequestPolicy, TokenCells};
use crate::{Error, ErrorKind, Result};

/// Whom a sibling shares with.
pub(super) struct Parent {
    pub(super) engine: Arc<Engine>,
    pub(super) policy: Arc<RequestPolicy>,
}

impl FetcherBuilder {
    /// It has of the parent what it may change. Of what is shared it knows no more than whether it was touched.
    pub(crate) fn derive_from(engine: &Arc<Engine>, options: &JobOptions) -> Self {
        let policy = &options.policy;
        let exchange = &policy.exchange;
        Self {
            retry: options.retry.clone(),
            timeouts: options.timeouts.clone(),
            max_body_size: exchange.max_body_size,
            decode_content: exchange.decode,
            respect_rate_limit_headers: exchange.respect_rate_limit_headers,
            max_redirects: policy.max_redirects,
            https_only: policy.https_only,
            allowed_ports: policy.allowed_ports.clone(),
            user_agent: exchange.default_headers.user_agent.clone(),
            default_headers: exchange.default_headers.for_all.clone(),
            host_fn: exchange.default_headers.host_fn.clone(),
            cookie_jar: exchange.default_headers.cookie_jar.fresh(),
            parent: Some(Parent {
                engine: Arc::clone(engine),
                policy: Arc::clone(policy),
            }),
            ..Self::default()
        }
    }

    /// A setting of what siblings share was called.
    pub(super) fn mark_shared(&mut self, setting: &'static str) {
        self.shared_setting.get_or_insert(setting);
    }

    pub(super) fn check_shared(&self) -> Result<()> {
        match self.shared_setting {
            Some(setting) if self.parent.is_some() => {
                Err(shared_setting_error(&format!("`{setting}` is")))
            }
            _ => Ok(()),
        }
    }

    /// The headers and token sources of the hosts that were set before.
    pub(super) fn inherited_credentials(&self) -> (HashMap<Box<str>, HeaderMap>, TokenCells) {
        match &self.parent {
            None => Default::default(),
            Some(parent) => {
                let policy = &parent.policy;
                let by_origin = policy.exchange.default_headers.by_origin.clone();
                (by_origin, policy.token_cells.clone())
            }
        }
    }
}

pub(super) fn shared_setting_error(what: &str) -> Error {
    let reason = format!("{what} shared with the Fetcher this one is a sibling of: set it there");
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason)
}
