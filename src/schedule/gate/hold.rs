//! Refuses all starts while the gate is held, for example until a bearer token arrives.

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hold {
    holder_count: usize,
    /// The number of holders that wait for a name lookup.
    lookup_count: usize,
}

impl Hold {
    pub(super) fn is_held(self) -> bool {
        self.holder_count > 0
    }

    pub(super) fn hold(&mut self) {
        self.holder_count += 1;
    }

    pub(super) fn hold_for_lookup(&mut self) {
        self.lookup_count += 1;
        self.hold();
    }

    /// Undoes one call of [`Self::hold_for_lookup`]. Returns true if no hold is left.
    pub(super) fn release_for_lookup(&mut self) -> bool {
        self.lookup_count -= 1;
        self.release()
    }

    pub(super) fn waits_only_for_lookups(self) -> bool {
        self.is_held() && self.holder_count == self.lookup_count
    }

    /// Undoes one call of [`Self::hold`]. Returns true if no hold is left.
    pub(super) fn release(&mut self) -> bool {
        self.holder_count -= 1;
        self.holder_count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_ends_with_the_last_release() {
        let mut hold = Hold::default();
        hold.hold();
        hold.hold();
        assert!(!hold.release());
        assert!(hold.is_held());
        assert!(hold.release());
        assert!(!hold.is_held());
    }

    #[test]
    fn hold_for_lookup_is_told_from_other_holds() {
        let mut hold = Hold::default();
        assert!(!hold.waits_only_for_lookups());
        hold.hold_for_lookup();
        assert!(hold.is_held() && hold.waits_only_for_lookups());
        hold.hold();
        assert!(!hold.waits_only_for_lookups());
        assert!(!hold.release_for_lookup());
        assert!(hold.release());
    }
}
