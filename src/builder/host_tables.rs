//! Tables of the settings of single hosts, as the engine and the exchanges use them.

use std::collections::HashMap;

use http::header::HeaderMap;

use crate::engine::{FetcherBudgets, TokenCells};
use crate::schedule::LaneLimits;

/// The settings of single hosts: limits, headers and tokens.
#[derive(Default)]
pub(super) struct HostTables {
    pub(super) limits_by_origin: HashMap<Box<str>, LaneLimits>,
    /// The limits set with `limits_for`, by the key of `limit_by`.
    pub(super) limits_by_key: HashMap<Box<str>, LaneLimits>,
    /// The budgets that are part of these limits.
    pub(super) budgets: FetcherBudgets,
    pub(super) headers_by_origin: HashMap<Box<str>, HeaderMap>,
    pub(super) token_cells_by_origin: TokenCells,
}
