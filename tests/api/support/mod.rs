//! Servers, streams and helpers that the tests share.
#![allow(unreachable_pub, missing_docs)]

pub mod alpn_server;
pub mod body_streams;
pub mod encoding_server;
pub mod http2_frames;
pub mod own_process;
pub mod raw_server;
pub mod server;
