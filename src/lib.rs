//! `fanout` fetches ten or ten million URLs and hands back one result for each.

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
#[cfg(feature = "test-util")]
mod mock;
mod request;
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
#[cfg(feature = "test-util")]
pub use mock::{Answer, Mock, Received};
pub use request::{IntoRequest, Request};
pub use response::Response;
pub use timings::{Attempt, Outcome, Timings};
