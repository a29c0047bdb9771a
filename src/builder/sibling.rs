//! Builds a sibling: a Fetcher that shares connections and limits with another Fetcher, its parent.
//! A sibling that sets limits for itself is a tenant of the engine.

use std::collections::HashMap;
use std::sync::Arc;

use super::FetcherBuilder;
use super::host_tables::HostTables;
use super::parent_fetcher::ParentFetcher;
use crate::engine::{Engine, FetcherBudgets, JobOptions, TenantHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Budget;

impl FetcherBuilder {
    /// Creates a builder for a sibling. Settings that a sibling can change have the values of the
    /// parent. If another setting is changed, `build` returns an error.
    pub(crate) fn new_for_sibling(
        engine: &Arc<Engine>,
        options: &JobOptions,
        tenant: Option<&Arc<TenantHandle>>,
    ) -> Self {
        let settings = &options.request_settings;
        let exchange = &settings.exchange_settings;
        let headers = &exchange.default_headers;
        Self {
            retry: options.retry.clone(),
            timeouts: options.timeouts.clone(),
            default_attempt_timeout: options.default_attempt_timeout,
            max_body_bytes: exchange.max_body_size,
            decode_content: exchange.decodes_content,
            respect_rate_limit_headers: exchange.respect_rate_limit_headers,
            max_redirects: settings.max_redirects,
            redirect_policy: settings.redirect_policy.clone(),
            https_only: settings.https_only,
            allowed_ports: settings.allowed_ports.clone(),
            user_agent: headers.user_agent.clone(),
            default_headers: headers.headers_for_all_requests.clone(),
            host_fn: headers.host_fn.clone(),
            cookie_jar: headers.cookie_jar.to_empty_jar(),
            parent_fetcher: Some(ParentFetcher {
                engine: Arc::clone(engine),
                request_settings: Arc::clone(settings),
                tenant: tenant.cloned(),
            }),
            ..Self::default()
        }
    }

    /// Records that a setting that siblings share was changed. `setting` is the name of the setter.
    pub(super) fn record_change_of_shared_setting(&mut self, setting: &'static str) {
        self.first_changed_shared_setting.get_or_insert(setting);
    }

    pub(super) fn reject_changed_shared_settings(&self) -> Result<()> {
        match self.first_changed_shared_setting {
            Some(setting) if self.parent_fetcher.is_some() => {
                Err(shared_setting_error(&format!("`{setting}` is")))
            }
            _ => self.check_limits_of_sibling(),
        }
    }

    /// # Errors
    ///
    /// Returns an error if a limit was set, and the parent is a sibling with limits of its own. A
    /// batch belongs to one tenant at most.
    fn check_limits_of_sibling(&self) -> Result<()> {
        let parent = self.parent_fetcher.as_ref();
        match self.total_limit_setter() {
            Some(setting) if parent.is_some_and(|parent| parent.tenant.is_some()) => {
                let reason = format!(
                    "`{setting}` cannot be set, because the parent Fetcher is a sibling with \
                     limits of its own: make the new sibling from the first Fetcher"
                );
                Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason))
            }
            _ => Ok(()),
        }
    }

    /// Returns the name of a setter that was called and limits all requests together.
    fn total_limit_setter(&self) -> Option<&'static str> {
        let limits = &self.limit_settings;
        let concurrency = limits.concurrency.map(|_| "concurrency");
        let budgets = (!self.budgets.is_empty()).then_some("budget");
        concurrency.or(limits.rate.map(|_| "rate")).or(budgets)
    }

    /// Returns the tenant of a sibling. A sibling that sets limits for itself gets a new tenant.
    /// Another sibling has the tenant of its parent, if any.
    pub(super) fn tenant_of_sibling(&self) -> Option<Arc<TenantHandle>> {
        let parent = self.parent_fetcher.as_ref()?;
        if self.total_limit_setter().is_some() {
            let (limits, budgets) = (&self.limit_settings, &self.budgets);
            Some(TenantHandle::add_to_engine(&parent.engine, limits, budgets))
        } else {
            parent.tenant.clone()
        }
    }

    /// Returns the budgets of the tenant that [`Self::tenant_of_sibling`] returns.
    pub(super) fn budgets_of_tenant(&self) -> Vec<Budget> {
        match &self.parent_fetcher {
            None => Vec::new(),
            Some(_) if self.total_limit_setter().is_some() => self.budgets.clone(),
            Some(parent) => parent.request_settings.sibling_budgets.clone(),
        }
    }

    /// Returns the headers and token sources that the parent has for single hosts. Limits are not
    /// copied, because siblings share the limits in the engine.
    pub(super) fn host_tables_of_parent(&self) -> HostTables {
        match &self.parent_fetcher {
            None => HostTables::default(),
            Some(ParentFetcher {
                request_settings, ..
            }) => HostTables {
                limits_by_origin: HashMap::new(),
                limits_by_key: HashMap::new(),
                budgets: FetcherBudgets::default(),
                headers_by_origin: request_settings
                    .exchange_settings
                    .default_headers
                    .headers_by_origin
                    .clone(),
                token_cells_by_origin: request_settings.token_cells.clone(),
            },
        }
    }
}

/// Returns the error for a changed setting that siblings share. `setting` is the subject and verb
/// of the message, for example "`breaker` is".
pub(super) fn shared_setting_error(setting: &str) -> Error {
    let reason = format!("{setting} shared with the parent Fetcher: set it there");
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason)
}
