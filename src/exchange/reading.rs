//! What becomes of the body of an answer.

use url::Url;

use super::save::Saving;
use crate::Request;

/// Where a job's body goes, and how far it has come; kept from one attempt to the next.
#[derive(Default)]
pub(crate) enum Reading {
    /// Into memory.
    #[default]
    Kept,
    /// To a file, if the status is 2xx.
    Saved(Box<Saving>),
}

impl Reading {
    pub(crate) fn of(request: &Request) -> Self {
        match request.save_path() {
            Some(path) => Self::Saved(Box::new(Saving::new(path.clone()))),
            None => Self::Kept,
        }
    }

    /// The request to send instead of this one, which asks for what is missing.
    pub(super) fn resumed(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        match self {
            Self::Saved(saving) => saving.resumed(request, url),
            Self::Kept => None,
        }
    }
}
