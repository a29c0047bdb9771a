//! What is known of origins: which protocol they speak.

use std::collections::HashMap;
use std::sync::Arc;

/// Origins in one generation.
const GENERATION_SIZE: usize = 8192;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ProtocolSupport {
    /// It chose HTTP/1.1 over HTTP/2, or knows of no such choice.
    Http1,
    /// It has asked for HTTP/1.1: it is offered nothing else.
    Http1Required,
    /// And allows so many streams on a connection, as far as that is known.
    Http2 { max_streams: usize },
}

impl ProtocolSupport {
    /// HTTP/2, and it has not said yet how many streams it allows.
    pub(super) const HTTP2_UNKNOWN_STREAMS: Self = Self::Http2 {
        max_streams: usize::MAX,
    };
}

/// Two generations of origins. When the younger is full the older is forgotten, so that memory
/// does not follow the hosts ever seen.
#[derive(Default)]
pub(super) struct ProtocolCache {
    recent: HashMap<Arc<str>, ProtocolSupport>,
    previous: HashMap<Arc<str>, ProtocolSupport>,
}

impl ProtocolCache {
    pub(super) fn get(&self, origin: &str) -> Option<ProtocolSupport> {
        self.recent
            .get(origin)
            .or_else(|| self.previous.get(origin))
            .copied()
    }

    pub(super) fn set(&mut self, origin: &Arc<str>, support: ProtocolSupport) {
        if let Some(known) = self.recent.get_mut(origin) {
            *known = support;
            return;
        }
        if self.recent.len() >= GENERATION_SIZE {
            self.previous = std::mem::take(&mut self.recent);
        }
        self.recent.insert(Arc::clone(origin), support);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_known_and_the_oldest_forgotten() {
        let mut known = ProtocolCache::default();
        let origin = |n: usize| Arc::from(format!("https://{n}.example"));
        let two = ProtocolSupport::Http2 { max_streams: 2 };
        for n in 0..GENERATION_SIZE {
            known.set(&origin(n), ProtocolSupport::Http1);
        }
        known.set(&origin(0), two);
        known.set(&origin(GENERATION_SIZE), ProtocolSupport::Http1);
        assert_eq!(known.get(&origin(0)), Some(two));
        known.set(&origin(0), ProtocolSupport::Http1Required);
        assert_eq!(known.get(&origin(0)), Some(ProtocolSupport::Http1Required));
        for n in 0..GENERATION_SIZE {
            known.set(&origin(n), ProtocolSupport::Http1);
        }
        assert_eq!(
            known.get(&origin(GENERATION_SIZE)),
            Some(ProtocolSupport::Http1)
        );
        assert!(known.recent.len() + known.previous.len() <= 2 * GENERATION_SIZE);
    }
}
