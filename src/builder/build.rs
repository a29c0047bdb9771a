//! Makes a Fetcher from the values of its builder.

use std::sync::Arc;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use url::Url;

use super::host_tables::HostTables;
use super::{FetcherBuilder, sibling};
use crate::engine::{Engine, EngineLimits, FetcherBudgets, JobOptions, RequestSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::{DefaultHeaders, ExchangeSettings, Transport};
use crate::fetcher::Fetcher;
use crate::limits::{Budget, check_budgets};
use crate::request::{Request, origin};
use crate::response_body::{BufferPool, accept_encoding};
use crate::schedule::LaneLimits;
use crate::wire::{self, Wire};

/// The concurrency of a batch if neither the batch nor the Fetcher sets a concurrency.
const DEFAULT_BATCH_CONCURRENCY: usize = 100;

impl FetcherBuilder {
    /// Builds the Fetcher.
    ///
    /// # Errors
    ///
    /// Returns the first error of a setting; each setter documents its errors. For a
    /// [sibling](Fetcher::to_builder), also returns an error if a setting that siblings share was
    /// set, or a limit for the sibling of a sibling that has limits of its own.
    pub fn build(mut self) -> Result<Fetcher> {
        if let Some(error) = self.first_setting_error.take() {
            return Err(error);
        }
        self.apply_set_or_environment_proxies();
        self.reject_proxies_with_address_filter()?;
        self.reject_changed_shared_settings()?;
        check_budgets(&self.budgets).map_err(invalid_setting_error)?;
        let tables = self.build_host_tables()?;
        Ok(self.assemble_fetcher(tables))
    }

    /// Builds a Fetcher with default settings. Cannot fail, because defaults are valid.
    pub(crate) fn build_default(mut self) -> Fetcher {
        self.apply_set_or_environment_proxies();
        self.assemble_fetcher(HostTables::default())
    }

    fn build_host_tables(&mut self) -> Result<HostTables> {
        let per_host = self.default_lane_limits();
        let mut tables = self.host_tables_of_parent();
        for (text, host) in std::mem::take(&mut self.host_settings_by_origin) {
            let origin = parse_origin(&text)?;
            if let Some(reason) = &host.first_header_error {
                return Err(invalid_setting_error(format!(
                    "for host {origin}: {reason}"
                )));
            }
            if host.headers.contains_key(PROXY_AUTHORIZATION) {
                return Err(invalid_setting_error(format!(
                    "for host {origin}: set `proxy-authorization` in the URL of the `Proxy`"
                )));
            }
            check_budgets_of(&format!("host {origin}"), &host.budgets)?;
            if tables.limits_by_origin.contains_key(&origin) {
                return Err(invalid_setting_error(format!(
                    "the host {origin} was set twice"
                )));
            }
            if self.parent_fetcher.is_some() && host.sets_any_limit() {
                let setting = format!("the limits of the host {origin} are");
                return Err(sibling::shared_setting_error(&setting));
            }
            if host.token_source.is_some() && host.headers.contains_key(AUTHORIZATION) {
                return Err(invalid_setting_error(format!(
                    "the host {origin} has both a token source and an `authorization`"
                )));
            }
            let limits = per_host.clone().with_host_settings(&host);
            tables.limits_by_origin.insert(origin.clone(), limits);
            if !host.budgets.is_empty() {
                let budgets_by_origin = &mut tables.budgets.budgets_by_origin;
                budgets_by_origin.insert(origin.clone(), host.budgets);
            }
            let max_token_fetch_time = self.timeouts.total;
            tables.token_cells_by_origin.set_token_source(
                &origin,
                host.token_source,
                max_token_fetch_time,
            );
            tables.headers_by_origin.insert(origin, host.headers);
        }
        self.add_limits_by_key(&mut tables, &per_host)?;
        Ok(tables)
    }

    fn add_limits_by_key(&self, tables: &mut HostTables, per_host: &LaneLimits) -> Result<()> {
        if self.limit_by_fn.is_none() && !self.limits_by_key.is_empty() {
            let reason = "`limits_for` requires `limit_by`, which selects the keys";
            return Err(invalid_setting_error(reason.into()));
        }
        for (key, key_limits) in &self.limits_by_key {
            check_budgets_of(&format!("key `{key}`"), &key_limits.budgets)?;
            let limits = per_host.clone().with_key_limits(key_limits);
            if !key_limits.budgets.is_empty() {
                let budgets = key_limits.budgets.clone();
                tables
                    .budgets
                    .budgets_by_key
                    .insert(key.as_str().into(), budgets);
            }
            let limits_by_key = &mut tables.limits_by_key;
            if limits_by_key.insert(key.as_str().into(), limits).is_some() {
                let reason = format!("the limits for the key `{key}` were set twice");
                return Err(invalid_setting_error(reason));
            }
        }
        Ok(())
    }

    /// The limits of a lane (the requests to one host) whose host has no settings of its own.
    fn default_lane_limits(&self) -> LaneLimits {
        LaneLimits {
            gate_limits: self.limit_settings.host_limits(),
            breaker: self.breaker.into(),
            retry_budget: self.retry_budget.into(),
            scout_timeout_nanos: 0,
            budgets: None,
        }
    }

    fn assemble_fetcher(self, tables: HostTables) -> Fetcher {
        let default_lane_limits = self.default_lane_limits();
        let tenant = self.tenant_of_sibling();
        let sibling_budgets = self.budgets_of_tenant();
        let default_headers = DefaultHeaders {
            user_agent: self.user_agent,
            accept_encoding: self.decode_content.then(accept_encoding).flatten(),
            headers_for_all_requests: self.default_headers,
            headers_by_origin: tables.headers_by_origin,
            host_fn: self.host_fn.clone(),
            cookie_jar: self.cookie_jar,
            ..DefaultHeaders::default()
        };
        let request_settings = RequestSettings {
            exchange_settings: ExchangeSettings {
                default_headers,
                max_body_size: self.max_body_bytes,
                decodes_content: self.decode_content,
                respect_rate_limit_headers: self.respect_rate_limit_headers,
                buffer_pool: BufferPool::default(),
            },
            token_cells: tables.token_cells_by_origin,
            sibling_budgets,
            max_redirects: self.max_redirects,
            redirect_policy: self.redirect_policy,
            https_only: self.https_only,
            allowed_ports: self.allowed_ports,
        };
        let options = Arc::new(JobOptions {
            request_settings: Arc::new(request_settings),
            budgets: Vec::new(),
            retry: self.retry,
            timeouts: self.timeouts,
            default_attempt_timeout: self.default_attempt_timeout,
            deadline: None,
            body_handler: None,
            body_budget: None,
            stop_condition: None,
        });
        if let Some(parent) = self.parent_fetcher {
            return Fetcher::from_engine_and_options(parent.engine, options).with_tenant(tenant);
        }
        let concurrency = self.limit_settings.concurrency;
        let mut limits = EngineLimits {
            overall_limits: self.limit_settings.overall_limits(),
            default_lane_limits,
            limits_by_origin: tables.limits_by_origin,
            limits_by_key: tables.limits_by_key,
            budgets: FetcherBudgets {
                overall: self.budgets,
                ..tables.budgets
            },
            host_fn: self.host_fn,
            limit_by: self.limit_by_fn,
            default_batch_concurrency: concurrency.unwrap_or(DEFAULT_BATCH_CONCURRENCY),
            max_sockets: None,
        };
        let transport = match self.transport_service {
            // A service opens no sockets, so the limit on open files does not apply.
            Some(service) => Transport::Service(service),
            None => {
                let max_sockets = wire::default_socket_limit();
                limits.max_sockets = max_sockets;
                limits.clamp_concurrency_to_max_sockets();
                let config = wire::WireConfig {
                    max_sockets,
                    ..self.wire_config
                };
                Transport::Wire(Box::new(Wire::new(config)))
            }
        };
        Fetcher::from_engine_and_options(Arc::new(Engine::new(transport, limits)), options)
    }
}

/// Parses an origin, which is a URL without userinfo, path, query and fragment.
///
/// # Errors
///
/// Returns an error if `text` is not a URL, or has userinfo, a path, a query or a fragment.
pub(super) fn parse_origin(text: &str) -> Result<Box<str>> {
    let request = Request::get(text).build();
    let url: &Url = request.url_if_sendable()?;
    let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    // `Request::get` turns userinfo into a header, so a header means that `text` has userinfo.
    if has_more || !request.headers().is_empty() {
        let reason = format!("a host is named by its origin alone, here {}", origin(url));
        return Err(invalid_setting_error(reason));
    }
    Ok(origin(url).into())
}

/// # Errors
///
/// Returns an error if two of the budgets of `owner` have the same name, or if a default cost is
/// above a capacity.
fn check_budgets_of(owner: &str, budgets: &[Budget]) -> Result<()> {
    check_budgets(budgets)
        .map_err(|reason| invalid_setting_error(format!("for the {owner}: {reason}")))
}

fn invalid_setting_error(reason: String) -> Error {
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason)
}
