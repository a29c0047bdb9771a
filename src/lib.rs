//! `fanout` fetches ten or ten million URLs and hands back one result for each.

#![forbid(unsafe_code)]

mod batch;
mod body;
mod builder;
mod credentials;
mod engine;
mod error;
mod exchange;
mod fetcher;
mod headers;
#[cfg(feature = "json")]
mod json;
mod limits;
mod request;
mod resolve;
mod response;
mod schedule;
mod timings;
mod wire;

pub use batch::{AsCompleted, Batch, Completed, Gather, InOrder, TryGather};
pub use body::Body;
pub use builder::FetcherBuilder;
pub use error::{Error, ErrorKind, Result};
pub use fetcher::{Fetch, Fetcher};
pub use limits::{Host, ParseRateError, Rate, Retry, Timeouts};
pub use request::{IntoRequest, Request};
pub use resolve::{Resolve, Resolving};
pub use response::{Redirect, Response};
pub use timings::{Attempt, Outcome, Timings};
