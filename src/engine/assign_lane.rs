//! Assigns a request to its lane (the queue and limits of one host) and its route (direct, or
//! through a proxy).

use std::sync::Arc;

use super::Engine;
use super::lane::LaneAssignment;
use super::limits::EngineLimits;
use super::request_settings::RequestSettings;
use crate::error::{Error, catch_user_panic};
use crate::limits::Host;
use crate::request::{Request, origin};

impl Engine {
    /// Assigns a request to its lane and its route. The caller must hold no lock, because the
    /// callbacks `limit_by` and `host_fn` run.
    ///
    /// # Errors
    ///
    /// Returns an error if the request is invalid, if the settings forbid the request, or if a
    /// callback panics or returns an invalid value.
    pub(super) fn assign_lane(
        &self,
        request: &Request,
        settings: &RequestSettings,
    ) -> Result<LaneAssignment, Error> {
        let url = request.url_if_sendable()?;
        settings.check_url_allowed(url)?;
        Ok(LaneAssignment {
            custom_lane_key: self.limits.custom_lane_key(request)?,
            host_settings: self.limits.host_settings(origin(url))?,
            proxy: self.transport.proxy_for(url, request),
        })
    }
}

impl EngineLimits {
    /// # Errors
    ///
    /// Returns an error if `limit_by` panics.
    fn custom_lane_key(&self, request: &Request) -> Result<Option<Arc<str>>, Error> {
        let Some(limit_by) = &self.limit_by else {
            return Ok(None);
        };
        let key = catch_user_panic("in `limit_by`", || limit_by(request))?;
        Ok(Some(key.into()))
    }

    /// Calls `host_fn` for the settings of an origin. Returns `None` if there is no `host_fn`, or
    /// if the origin has configured limits.
    ///
    /// # Errors
    ///
    /// Returns an error if `host_fn` panics or returns an invalid value.
    fn host_settings(&self, origin: &str) -> Result<Option<Arc<Host>>, Error> {
        match &self.host_fn {
            Some(host_fn) if !self.limits_by_origin.contains_key(origin) => {
                host_fn.host_settings_for(origin)
            }
            _ => Ok(None),
        }
    }
}
