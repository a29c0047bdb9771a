//! The lane and the route of a request.

use std::sync::Arc;

use url::Url;

use crate::limits::Host;
use crate::proxy::Proxy;
use crate::request::origin;
use crate::schedule::RouteKey;

/// The settings that determine the lane and the route of a request, apart from its URL.
#[derive(Clone, Default)]
pub(super) struct LaneAssignment {
    /// The key that `limit_by` returned. Without `limit_by`, the lane's key is the origin.
    pub(super) custom_lane_key: Option<Arc<str>>,
    /// The settings that `host_fn` returned for the origin.
    pub(super) host_settings: Option<Arc<Host>>,
    /// The proxy of the request. `None` if the connection is direct.
    pub(super) proxy: Option<Proxy>,
}

/// The lane and the route of a job, copied so that they can be used after the job has moved into
/// the schedule.
pub(super) struct JobLane {
    pub(super) url: Arc<Url>,
    pub(super) lane_assignment: LaneAssignment,
}

impl LaneAssignment {
    pub(super) fn lane_key<'a>(&'a self, url: &'a Url) -> &'a str {
        match &self.custom_lane_key {
            Some(key) => key,
            None => origin(url),
        }
    }
}

impl JobLane {
    pub(super) fn lane_key(&self) -> &str {
        self.lane_assignment.lane_key(&self.url)
    }

    pub(super) fn route_key(&self) -> RouteKey<'_> {
        let proxy = self.lane_assignment.proxy.as_ref();
        RouteKey {
            lane_key: self.lane_key(),
            proxy_key: proxy.map(|proxy| &*proxy.server().pool_key),
        }
    }
}
