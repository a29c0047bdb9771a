//! More than the reference: for those who know another way to fetch, each of its calls beside its twin; and what a request
//! costs.

pub mod from_asyncio;
pub mod from_reqwest;
pub mod performance;
