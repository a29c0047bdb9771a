//! Real servers on loopback for the integration tests: [`FaultServer`] speaks HTTP/1.1 as well or as
//! badly as the path asks, [`TlsServer`] does so behind a certificate of a chosen defect.
//!
//! A server runs on a thread and a tokio runtime of its own. So it serves several client runtimes,
//! outlives each, and its clock is real even where a test has paused the client's.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)] // each test binary uses a part

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
