//! Servers, streams and helpers shared by the tests.
#![allow(unreachable_pub, missing_docs)]

use std::sync::Once;

#[cfg(all(feature = "http2", feature = "tls"))]
pub mod alpn_server;
pub mod body_streams;
pub mod encoding_server;
#[cfg(feature = "http2")]
pub mod http2_frames;
#[cfg(feature = "json")]
pub mod metered_api;
pub mod own_process;
pub mod raw_server;
pub mod server;

/// Raises the limit on open descriptors. Concurrent tests need more than the usual 1,024.
///
/// Every server calls it when it starts.
pub fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    #[cfg(unix)]
    ONCE.call_once(|| {
        let _ = rlimit::increase_nofile_limit(16_384);
    });
}
