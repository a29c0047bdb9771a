//! The values in which a user speaks of limits: plain data, with defaults and units.

mod host;
mod rate;
mod retry;
mod timeouts;

pub use host::Host;
pub use rate::{ParseRateError, Rate};
pub use retry::Retry;
pub use timeouts::Timeouts;
