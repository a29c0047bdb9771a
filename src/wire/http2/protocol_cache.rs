//! Caches which HTTP version each origin supports.

use std::sync::Arc;

use crate::two_generation_cache::TwoGenerationCache;

/// The maximum number of origins in each of the two generations of the cache.
const MAX_ORIGINS_PER_GENERATION: usize = 8192;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ProtocolSupport {
    /// The server did not choose HTTP/2 in the TLS handshake.
    Http1,
    /// The server rejected an HTTP/2 request with HTTP_1_1_REQUIRED, so HTTP/2 is not offered to
    /// the server again.
    Http1Required,
    /// The server allows `max_streams` concurrent streams on a connection.
    Http2 { max_streams: usize },
}

impl ProtocolSupport {
    /// The server supports HTTP/2 but has not announced its limit on streams yet.
    pub(super) const HTTP2_UNKNOWN_STREAMS: Self = Self::Http2 {
        max_streams: usize::MAX,
    };
}

/// The HTTP versions that the recently used origins support.
pub(super) struct ProtocolCache(TwoGenerationCache<Arc<str>, ProtocolSupport>);

impl Default for ProtocolCache {
    fn default() -> Self {
        Self(TwoGenerationCache::new(MAX_ORIGINS_PER_GENERATION))
    }
}

impl ProtocolCache {
    pub(super) fn get_support(&mut self, origin: &str) -> Option<ProtocolSupport> {
        self.0.get(origin)
    }

    pub(super) fn set_support(&mut self, origin: &Arc<str>, support: ProtocolSupport) {
        self.0.insert(Arc::clone(origin), support);
    }

    pub(super) fn requires_http1(&mut self, origin: &str) -> bool {
        self.get_support(origin) == Some(ProtocolSupport::Http1Required)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_support_is_returned_and_the_cache_is_bounded() {
        let mut cache = ProtocolCache::default();
        let origin = |n: usize| Arc::from(format!("https://{n}.example"));
        let two = ProtocolSupport::Http2 { max_streams: 2 };
        for n in 0..MAX_ORIGINS_PER_GENERATION {
            cache.set_support(&origin(n), ProtocolSupport::Http1);
        }
        cache.set_support(&origin(0), two);
        cache.set_support(&origin(MAX_ORIGINS_PER_GENERATION), ProtocolSupport::Http1);
        assert_eq!(cache.get_support(&origin(0)), Some(two));
        cache.set_support(&origin(0), ProtocolSupport::Http1Required);
        assert_eq!(
            cache.get_support(&origin(0)),
            Some(ProtocolSupport::Http1Required)
        );
        for n in 0..MAX_ORIGINS_PER_GENERATION {
            cache.set_support(&origin(n), ProtocolSupport::Http1);
        }
        assert_eq!(
            cache.get_support(&origin(MAX_ORIGINS_PER_GENERATION)),
            Some(ProtocolSupport::Http1)
        );
        assert!(cache.0.len() <= 2 * MAX_ORIGINS_PER_GENERATION);
    }
}
