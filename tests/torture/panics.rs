//! Counts panics, some of which no result reports.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Counts the panics outside of the tests themselves from now on.
pub(crate) fn count() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_in_test = info
                .location()
                .is_some_and(|at| at.file().starts_with("tests/"));
            TOTAL.fetch_add(usize::from(!is_in_test), Relaxed);
            hook(info);
        }));
    });
}

pub(crate) fn total() -> usize {
    TOTAL.load(Relaxed)
}
