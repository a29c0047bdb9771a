//! Reuses the memory of header maps between the exchanges of a thread.
//!
//! hyper stores the response headers in the header map of the request. The response keeps a packed
//! copy of the headers, so the map is free when the exchange ends.

use std::cell::Cell;

use http::header::HeaderMap;

/// A map with a larger capacity is freed.
const MAX_CAPACITY: usize = 64;

thread_local! {
    static SPARE_MAP: Cell<Option<HeaderMap>> = const { Cell::new(None) };
}

/// Returns an empty map, with the memory of an earlier map if there is one.
pub(super) fn take() -> HeaderMap {
    SPARE_MAP.take().unwrap_or_default()
}

/// Keeps the memory of a map for the next call of [`take`] on this thread. The headers are dropped.
pub(super) fn put_back(mut map: HeaderMap) {
    if map.capacity() <= MAX_CAPACITY {
        map.clear();
        SPARE_MAP.set(Some(map));
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HeaderName, HeaderValue};

    use super::*;

    fn map_of(headers: usize) -> HeaderMap {
        let name = |n| HeaderName::try_from(format!("x-{n}")).unwrap();
        let value = HeaderValue::from_static("value");
        (0..headers).map(|n| (name(n), value.clone())).collect()
    }

    #[test]
    fn returned_map_is_reused_without_its_headers() {
        let map = map_of(8);
        let capacity = map.capacity();
        put_back(map);
        let reused = take();
        assert!(reused.is_empty() && !reused.contains_key(ACCEPT));
        assert_eq!(reused.capacity(), capacity);
        assert_eq!(take().capacity(), 0);
    }

    #[test]
    fn large_map_is_freed() {
        put_back(map_of(MAX_CAPACITY + 1));
        assert_eq!(take().capacity(), 0);
    }
}
