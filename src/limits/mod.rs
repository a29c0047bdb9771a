//! The values in which a user speaks of limits: plain data, with defaults and units.

mod breaker;
mod budget;
mod classify;
mod concurrency;
mod host;
mod host_by;
mod priority;
mod rate;
mod retry;
mod timeouts;
mod token;

pub use breaker::Breaker;
pub use budget::RetryBudget;
pub(crate) use classify::Classify;
pub use classify::Decision;
pub use concurrency::Concurrency;
pub use host::Host;
pub(crate) use host_by::HostBy;
pub use priority::Priority;
pub use rate::{ParseRateError, Rate};
pub use retry::Retry;
pub use timeouts::Timeouts;
pub(crate) use token::{Asking, TokenSource};
