//! The lane of a request.

use std::sync::Arc;

use url::Url;

use crate::limits::Host;
use crate::request::origin;

/// What the user's callbacks determine about the lane of a request.
#[derive(Clone, Default)]
pub(super) struct LaneAssignment {
    /// The key that `limit_by` returned. Without `limit_by`, the lane's key is the origin.
    pub(super) custom_key: Option<Arc<str>>,
    /// The settings that `host_fn` returned for the origin.
    pub(super) host_settings: Option<Arc<Host>>,
}

/// The lane of a job, as a value that outlives the job's move into the schedule.
pub(super) struct JobLane {
    pub(super) url: Arc<Url>,
    pub(super) assignment: LaneAssignment,
}

impl LaneAssignment {
    pub(super) fn key<'a>(&'a self, url: &'a Url) -> &'a str {
        match &self.custom_key {
            Some(key) => key,
            None => origin(url),
        }
    }
}

impl JobLane {
    pub(super) fn key(&self) -> &str {
        self.assignment.key(&self.url)
    }
}
