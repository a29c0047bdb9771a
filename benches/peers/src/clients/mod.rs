//! The clients that are compared, each used as its own documentation shows.

pub mod fanout;
pub mod hyper_util;
pub mod reqwest;
