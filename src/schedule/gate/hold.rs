//! Refuses all starts while the gate is held, for example until a bearer token arrives.

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hold {
    holder_count: usize,
}

impl Hold {
    pub(super) fn is_held(self) -> bool {
        self.holder_count > 0
    }

    pub(super) fn hold(&mut self) {
        self.holder_count += 1;
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
}
