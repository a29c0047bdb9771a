//! The limits that a user sets: plain values, each with its default.

mod breaker;
mod budget;
mod concurrency;
mod host;
mod host_fn;
mod key_limits;
mod limit_settings;
mod priority;
mod rate;
mod retry;
mod retry_budget;
mod retry_decision;
mod timeouts;
mod token_source;

pub use breaker::Breaker;
pub use budget::Budget;
pub(crate) use budget::check_budgets;
pub use concurrency::Concurrency;
pub use host::Host;
pub(crate) use host_fn::HostFn;
pub use key_limits::KeyLimits;
pub(crate) use limit_settings::LimitSettings;
pub use priority::Priority;
pub use rate::{ParseRateError, Rate};
pub use retry::Retry;
pub use retry_budget::RetryBudget;
pub(crate) use retry_decision::RetryClassifier;
pub use retry_decision::RetryDecision;
pub use timeouts::Timeouts;
pub(crate) use token_source::{TokenFuture, TokenSource};
