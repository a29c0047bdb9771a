//! The values in which a user speaks of limits: plain data, with defaults and units.

mod breaker;
mod budget;
mod classify;
mod concurrency;
mod host;
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
pub use rate::{ParseRateError, Rate};
pub use retry::Retry;
pub use timeouts::Timeouts;
pub(crate) use token::{Asking, TokenSource};
