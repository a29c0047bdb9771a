//! x
#![allow(dead_code, missing_docs)]
mod schedule;
