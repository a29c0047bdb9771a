//! The values in which a user speaks of limits: plain data, with defaults and units.

mod concurrency;
mod host;
mod rate;
mod retry;
mod timeouts;
mod token;

pub use concurrency::Concurrency;
pub use host::Host;
pub use rate::{ParseRateError, Rate};
pub use retry::Retry;
pub use timeouts::Timeouts;
pub(crate) use token::{Asking, TokenSource};
