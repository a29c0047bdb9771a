//! Guides: metered APIs, the treatment of malformed input, equivalents for users of other
//! libraries, and the cost of a request.

pub mod accepted_and_refused;
pub mod from_asyncio;
pub mod from_reqwest;
pub mod metered_apis;
pub mod performance;
