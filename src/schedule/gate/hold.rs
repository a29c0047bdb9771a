//! Refuses all starts until every holder has released the gate.

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hold {
    count: usize,
}

impl Hold {
    pub(super) fn is_held(self) -> bool {
        self.count > 0
    }

    pub(super) fn hold(&mut self) {
        self.count += 1;
    }

    /// Undoes one call of [`Self::hold`]. Returns true if it was the last one.
    pub(super) fn release(&mut self) -> bool {
        self.count -= 1;
        self.count == 0
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
