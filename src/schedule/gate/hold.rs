//! Refuses all starts while the gate is held, for example until a bearer token arrives.

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hold {
    holder_count: usize,
    /// The number of holders that wait for a name lookup.
    lookup_holder_count: usize,
}

impl Hold {
    pub(super) fn is_held(self) -> bool {
        self.holder_count > 0
    }

    pub(super) fn add_hold(&mut self) {
        self.holder_count += 1;
    }

    pub(super) fn add_lookup_hold(&mut self) {
        self.lookup_holder_count += 1;
        self.add_hold();
    }

    /// Undoes one call of [`Self::add_lookup_hold`]. Returns true if no hold is left.
    pub(super) fn remove_lookup_hold(&mut self) -> bool {
        self.lookup_holder_count -= 1;
        self.remove_hold()
    }

    pub(super) fn is_held_only_for_lookups(self) -> bool {
        self.is_held() && self.holder_count == self.lookup_holder_count
    }

    /// Undoes one call of [`Self::add_hold`]. Returns true if no hold is left.
    pub(super) fn remove_hold(&mut self) -> bool {
        self.holder_count -= 1;
        self.holder_count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_ends_when_the_last_hold_is_removed() {
        let mut hold = Hold::default();
        hold.add_hold();
        hold.add_hold();
        assert!(!hold.remove_hold());
        assert!(hold.is_held());
        assert!(hold.remove_hold());
        assert!(!hold.is_held());
    }

    #[test]
    fn lookup_hold_is_told_from_other_holds() {
        let mut hold = Hold::default();
        assert!(!hold.is_held_only_for_lookups());
        hold.add_lookup_hold();
        assert!(hold.is_held() && hold.is_held_only_for_lookups());
        hold.add_hold();
        assert!(!hold.is_held_only_for_lookups());
        assert!(!hold.remove_lookup_hold());
        assert!(hold.remove_hold());
    }
}
