//! Building a sibling: a Fetcher that shares connections and limits with another.

use std::collections::HashMap;
use std::sync::Arc;

use super::FetcherBuilder;
use super::build::HostTables;
use crate::engine::{Engine, JobOptions, RequestPolicy};
use crate::error::{Error, ErrorKind, Result};

/// The Fetcher of which a builder makes a sibling.
pub(super) struct Parent {
    pub(super) engine: Arc<Engine>,
    policy: Arc<RequestPolicy>,
}

impl FetcherBuilder {
    /// A builder with the parent's values of all settings that a sibling can change. Of the shared
    /// settings it records only whether one was set, which is an error.
    pub(crate) fn derive_from(engine: &Arc<Engine>, options: &JobOptions) -> Self {
        let policy = &options.policy;
        let exchange = &policy.exchange;
        let headers = &exchange.default_headers;
        Self {
            retry: options.retry.clone(),
            timeouts: options.timeouts.clone(),
            max_body_size: exchange.max_body_size,
            decode_content: exchange.decode,
            respect_rate_limit_headers: exchange.respect_rate_limit_headers,
            max_redirects: policy.max_redirects,
            https_only: policy.https_only,
            allowed_ports: policy.allowed_ports.clone(),
            user_agent: headers.user_agent.clone(),
            default_headers: headers.for_all.clone(),
            host_fn: headers.host_fn.clone(),
            cookie_jar: headers.cookie_jar.fresh(),
            parent: Some(Parent {
                engine: Arc::clone(engine),
                policy: Arc::clone(policy),
            }),
            ..Self::default()
        }
    }

    /// Records that a setting was set which siblings share.
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

    /// The headers and token sources that the parent has for its hosts. Their limits remain in the
    /// shared engine.
    pub(super) fn inherited_credentials(&self) -> HostTables {
        match &self.parent {
            None => HostTables::default(),
            Some(Parent { policy, .. }) => HostTables {
                limits_by_origin: HashMap::new(),
                headers_by_origin: policy.exchange.default_headers.by_origin.clone(),
                token_cells: policy.token_cells.clone(),
            },
        }
    }
}

/// The error for a setting that siblings share. `setting` is the subject and verb of the sentence.
pub(super) fn shared_setting_error(setting: &str) -> Error {
    let reason = format!("{setting} shared with the parent Fetcher: set it there");
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason)
}
