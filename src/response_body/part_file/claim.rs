//! Claims on part files, so that two downloads of this process do not use the same one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::named_part::NamedPart;

static CLAIMED_PATHS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The right to use the part file of a target, until the claim is dropped.
pub(in crate::response_body) struct PartClaim(Arc<NamedPart>);

impl PartClaim {
    /// Returns `None` if another download of this process has the claim, or if the target has no
    /// file name.
    pub(in crate::response_body) fn acquire(target: &Path) -> Option<Self> {
        let part = NamedPart::beside(target)?;
        let is_new = claimed_paths().insert(part.part_path.clone());
        is_new.then(|| Self(Arc::new(part)))
    }

    pub(super) fn part(&self) -> &Arc<NamedPart> {
        &self.0
    }
}

impl Drop for PartClaim {
    fn drop(&mut self) {
        claimed_paths().remove(&self.0.part_path);
    }
}

fn claimed_paths() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    CLAIMED_PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_claimed_once_at_a_time() {
        let claim = PartClaim::acquire(Path::new("claimed/file")).unwrap();
        assert!(PartClaim::acquire(Path::new("./claimed/file")).is_none());
        assert!(PartClaim::acquire(Path::new("claimed/other")).is_some());
        drop(claim);
        assert!(PartClaim::acquire(Path::new("claimed/file")).is_some());
        assert!(PartClaim::acquire(Path::new("/")).is_none());
    }
}
