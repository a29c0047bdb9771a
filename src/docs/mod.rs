//! For those who know another way to fetch: each of its calls beside its twin.

pub mod from_asyncio;
pub mod from_reqwest;
