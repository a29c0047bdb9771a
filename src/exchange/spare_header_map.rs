//! Reuses the memory of header maps between the exchanges of a thread.
//!
//! hyper stores the response headers in the header map of the request. The response keeps a packed
//! copy of the headers, so the map is free when the exchange ends.

use std::cell::Cell;

use http::header::HeaderMap;

/// The maximum capacity of a map that is kept. A larger map is freed.
const MAX_SPARE_MAP_CAPACITY: usize = 64;

thread_local! {
    static SPARE_HEADER_MAP: Cell<Option<HeaderMap>> = const { Cell::new(None) };
}

/// Returns an empty map, with the memory of an earlier map if there is one.
pub(super) fn take_spare_or_new_map() -> HeaderMap {
    SPARE_HEADER_MAP.take().unwrap_or_default()
}

/// Keeps the memory of a map for the next call of [`take_spare_or_new_map`] on this thread. The
/// headers are dropped.
pub(super) fn keep_spare_map(mut map: HeaderMap) {
    if map.capacity() <= MAX_SPARE_MAP_CAPACITY {
        map.clear();
        SPARE_HEADER_MAP.set(Some(map));
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
        keep_spare_map(map);
        let reused = take_spare_or_new_map();
        assert!(reused.is_empty() && !reused.contains_key(ACCEPT));
        assert_eq!(reused.capacity(), capacity);
        assert_eq!(take_spare_or_new_map().capacity(), 0);
    }

    #[test]
    fn large_map_is_freed() {
        keep_spare_map(map_of(MAX_SPARE_MAP_CAPACITY + 1));
        assert_eq!(take_spare_or_new_map().capacity(), 0);
    }
}
