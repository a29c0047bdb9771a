//! HTTP/1.1 servers on 127.0.0.1. The path of a request chooses the response or the fault of a
//! [`FaultServer`]. A [`TlsServer`] adds TLS with a valid or an invalid certificate.
//!
//! A server runs on its own thread and tokio runtime. It can serve several client runtimes, and its
//! clock runs even if a test has paused the client's.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)]

mod connection;
mod fault;
mod log;
mod measure;
mod proxy;
mod script;
#[cfg(feature = "tls")]
mod tls;
mod unreachable;

pub use fault::FaultServer;
pub use log::{Counts, ReceivedRequest};
pub use measure::max_in_any_window;
#[cfg(target_os = "linux")]
pub use measure::open_files;
pub use proxy::{ProxyBehavior, ProxyServer};
pub use script::{expected_body, pattern_bytes};
#[cfg(feature = "tls")]
pub use tls::{ServerCertificate, TlsServer, ca_pem, server_config};
#[cfg(target_os = "linux")]
pub use unreachable::SilentListener;
pub use unreachable::refused_url;
