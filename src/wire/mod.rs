//! temporary
#![allow(dead_code)]
mod progress;
use crate::{Error, body::Body};
pub(crate) use progress::{Phase, Progress};
use std::time::Duration;
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) idle: Duration,
    pub(crate) descriptors: Option<usize>,
    pub(crate) tls: tls::Settings,
}
impl Default for Config {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(15),
            descriptors: None,
            tls: tls::Settings,
        }
    }
}
pub(crate) mod tls {
    #[derive(Clone)]
    pub(crate) struct Settings;
    impl Settings {
        pub(crate) fn add_roots(&mut self, _: &[u8]) -> Result<(), crate::Error> {
            Ok(())
        }
    }
}
pub(crate) struct Wire;
pub(crate) struct Target<'a> {
    pub(crate) origin: &'a str,
    pub(crate) https: bool,
    pub(crate) host: url::Host<&'a str>,
    pub(crate) port: u16,
}
pub(crate) enum Reuse {
    Pooled,
    Fresh,
}
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) reused: bool,
    pub(crate) unanswered: bool,
    pub(crate) request: Option<http::Request<Body>>,
}
pub(crate) struct Incoming;
impl Wire {
    pub(crate) fn new(_: Config) -> Self {
        Wire
    }
    pub(crate) async fn send(
        &self,
        _: Target<'_>,
        _: http::Request<Body>,
        _: Reuse,
        _: &Progress,
    ) -> Result<(http::response::Parts, Incoming), Failure> {
        loop {
            std::future::pending::<()>().await
        }
    }
}
impl Incoming {
    pub(crate) async fn chunk(&mut self, _: &Progress) -> Option<Result<bytes::Bytes, Error>> {
        None
    }
    pub(crate) fn exact_length(&self) -> Option<u64> {
        None
    }
}
pub(crate) fn descriptors() -> Option<usize> {
    None
}
