//! The state of a job's current hop.

use super::tokens::BearerToken;
use crate::request::Request;
use crate::response::Redirect;
use crate::schedule::Charge;
use crate::timings::Timings;

/// State of a job's current hop, if the hop's request differs from the job's own request.
pub(super) struct HopState {
    /// The request of the current hop.
    pub(super) request: Request,
    pub(super) redirects: Vec<Redirect>,
    /// Sum of the timings of the attempt's earlier hops.
    pub(super) earlier_hop_timings: Timings,
    /// The token that the engine set in the `Authorization` header of the current hop, if any.
    pub(super) token: Option<BearerToken>,
    /// Whether the request was sent again after a 401.
    pub(super) is_reauthorized: bool,
    /// The charge of the previous start, which pays for the next start, too.
    pub(super) carried_charge: Option<Charge>,
}

impl HopState {
    pub(super) fn new(request: Request) -> Box<Self> {
        Box::new(Self {
            request,
            redirects: Vec::new(),
            earlier_hop_timings: Timings::default(),
            token: None,
            is_reauthorized: false,
            carried_charge: None,
        })
    }
}
