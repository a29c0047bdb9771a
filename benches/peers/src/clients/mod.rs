//! The compared clients, each used as in its own documentation.

pub mod fanout;
pub mod hyper_util;
pub mod reqwest;
