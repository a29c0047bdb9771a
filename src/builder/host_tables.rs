//! The settings of single hosts, as the engine and the exchanges use them.

use std::collections::HashMap;

use http::header::HeaderMap;

use crate::engine::TokenCells;
use crate::schedule::LaneLimits;

/// The settings of all hosts, by origin.
#[derive(Default)]
pub(super) struct HostTables {
    pub(super) limits_by_origin: HashMap<Box<str>, LaneLimits>,
    /// By key of `limit_by`.
    pub(super) limits_by_key: HashMap<Box<str>, LaneLimits>,
    pub(super) headers_by_origin: HashMap<Box<str>, HeaderMap>,
    pub(super) token_cells: TokenCells,
}
