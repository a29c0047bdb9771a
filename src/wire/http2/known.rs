//! What is known of origins: which protocol they speak.

use std::collections::HashMap;
use std::sync::Arc;

/// Origins in one generation.
const GENERATION: usize = 8192;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaks {
    /// It chose HTTP/1.1 over HTTP/2, or knows of no such choice.
    Http1,
    /// It has asked for HTTP/1.1: it is offered nothing else.
    OnlyHttp1,
    /// And allows so many streams on a connection, as far as that is known.
    Http2 { streams: usize },
}

impl Speaks {
    /// HTTP/2, and it has not said yet how many streams it allows.
    pub(super) const UNTOLD: Self = Self::Http2 {
        streams: usize::MAX,
    };
}

/// Two generations of origins. When the younger is full the older is forgotten, so that memory
/// does not follow the hosts ever seen.
#[derive(Default)]
pub(super) struct Known {
    young: HashMap<Arc<str>, Speaks>,
    old: HashMap<Arc<str>, Speaks>,
}

impl Known {
    pub(super) fn get(&self, origin: &str) -> Option<Speaks> {
        self.young
            .get(origin)
            .or_else(|| self.old.get(origin))
            .copied()
    }

    pub(super) fn set(&mut self, origin: &Arc<str>, speaks: Speaks) {
        if let Some(known) = self.young.get_mut(origin) {
            *known = speaks;
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(origin), speaks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_known_and_the_oldest_forgotten() {
        let mut known = Known::default();
        let origin = |n: usize| Arc::from(format!("https://{n}.example"));
        let two = Speaks::Http2 { streams: 2 };
        for n in 0..GENERATION {
            known.set(&origin(n), Speaks::Http1);
        }
        known.set(&origin(0), two);
        known.set(&origin(GENERATION), Speaks::Http1);
        assert_eq!(known.get(&origin(0)), Some(two));
        known.set(&origin(0), Speaks::OnlyHttp1);
        assert_eq!(known.get(&origin(0)), Some(Speaks::OnlyHttp1));
        for n in 0..GENERATION {
            known.set(&origin(n), Speaks::Http1);
        }
        assert_eq!(known.get(&origin(GENERATION)), Some(Speaks::Http1));
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
    }
}
