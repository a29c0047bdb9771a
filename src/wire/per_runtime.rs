//! A value for each tokio runtime.
//!
//! A socket is registered with the reactor of one runtime, so connections are stored per runtime.

use tokio::runtime::Id;

/// Maps runtimes to values.
///
/// Nearly every program has only one runtime, so a linear search costs less than hashing.
pub(super) struct PerRuntime<T> {
    entries: Vec<(Id, T)>,
}

impl<T> Default for PerRuntime<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> PerRuntime<T> {
    #[cfg(feature = "http2")]
    pub(super) fn get(&self, runtime: Id) -> Option<&T> {
        let mut entries = self.entries.iter();
        entries
            .find(|(id, _)| *id == runtime)
            .map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, runtime: Id) -> Option<&mut T> {
        let mut entries = self.entries.iter_mut();
        entries
            .find(|(id, _)| *id == runtime)
            .map(|(_, value)| value)
    }

    /// Adds a value for a runtime that has none.
    pub(super) fn insert(&mut self, runtime: Id, value: T) -> &mut T {
        self.entries.push((runtime, value));
        let last = self.entries.len() - 1;
        &mut self.entries[last].1
    }

    #[cfg(feature = "http2")]
    pub(super) fn get_or_default(&mut self, runtime: Id) -> &mut T
    where
        T: Default,
    {
        let index = self.entries.iter().position(|(id, _)| *id == runtime);
        let index = index.unwrap_or_else(|| {
            self.entries.push((runtime, T::default()));
            self.entries.len() - 1
        });
        &mut self.entries[index].1
    }

    pub(super) fn contains(&self, runtime: Id) -> bool {
        self.entries.iter().any(|(id, _)| *id == runtime)
    }

    pub(super) fn remove(&mut self, runtime: Id) -> Option<T> {
        let at = self.entries.iter().position(|(id, _)| *id == runtime)?;
        Some(self.entries.swap_remove(at).1)
    }

    #[cfg(feature = "http2")]
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Removes the values for which `keep` returns false.
    #[cfg(feature = "http2")]
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.entries.retain_mut(|(_, value)| keep(value));
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn each_runtime_has_its_own_value() {
        let runtime = || Builder::new_current_thread().build().unwrap();
        let (one, two) = (runtime(), runtime());
        let (one, two) = (one.handle().id(), two.handle().id());
        let mut values = PerRuntime::default();
        *values.insert(one, 1) += 10;
        values.insert(two, 2);
        assert_eq!(values.get_mut(one), Some(&mut 11));
        assert_eq!(values.remove(one), Some(11));
        assert!(!values.contains(one) && values.contains(two));
        assert_eq!(values.get_mut(one), None);
        assert_eq!(values.remove(one), None);
    }
}
