//! Refuses all starts while a gate is held, for example until a bearer token arrives.

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct GateHolds {
    hold_count: usize,
    /// The number of holds that wait for the lookup of a host name.
    name_lookup_hold_count: usize,
}

impl GateHolds {
    pub(super) fn has_holds(self) -> bool {
        self.hold_count > 0
    }

    pub(super) fn add_hold(&mut self) {
        self.hold_count += 1;
    }

    pub(super) fn add_name_lookup_hold(&mut self) {
        self.name_lookup_hold_count += 1;
        self.add_hold();
    }

    /// Undoes one call of [`Self::add_name_lookup_hold`]. Returns true if no hold is left.
    pub(super) fn remove_name_lookup_hold(&mut self) -> bool {
        self.name_lookup_hold_count -= 1;
        self.remove_hold()
    }

    pub(super) fn has_only_name_lookup_holds(self) -> bool {
        self.has_holds() && self.hold_count == self.name_lookup_hold_count
    }

    /// Undoes one call of [`Self::add_hold`]. Returns true if no hold is left.
    pub(super) fn remove_hold(&mut self) -> bool {
        self.hold_count -= 1;
        self.hold_count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_ends_when_the_last_hold_is_removed() {
        let mut hold = GateHolds::default();
        hold.add_hold();
        hold.add_hold();
        assert!(!hold.remove_hold());
        assert!(hold.has_holds());
        assert!(hold.remove_hold());
        assert!(!hold.has_holds());
    }

    #[test]
    fn lookup_hold_is_told_from_other_holds() {
        let mut hold = GateHolds::default();
        assert!(!hold.has_only_name_lookup_holds());
        hold.add_name_lookup_hold();
        assert!(hold.has_holds() && hold.has_only_name_lookup_holds());
        hold.add_hold();
        assert!(!hold.has_only_name_lookup_holds());
        assert!(!hold.remove_name_lookup_hold());
        assert!(hold.remove_hold());
    }
}
