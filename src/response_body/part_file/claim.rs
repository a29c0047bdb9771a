//! Claims on part files. Only one download of this process can have a claim on a part file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::named_part::NamedPart;

/// The part files in use. After a claim is dropped, its part file stays in use until the running
/// operation on the part file ends. A new claim shares the [`NamedPart`] of that operation, so the
/// operations of the new claim wait for it.
static PARTS_IN_USE: Mutex<BTreeMap<PathBuf, Weak<NamedPart>>> = Mutex::new(BTreeMap::new());

/// The right to use the part file of a target, until the claim is dropped.
pub(in crate::response_body) struct PartClaim(Arc<NamedPart>);

impl PartClaim {
    /// Returns `None` if another download of this process has the claim, or if the target has no
    /// file name.
    pub(in crate::response_body) fn acquire(target: &Path) -> Option<Self> {
        let new = Arc::new(NamedPart::beside_target(target)?);
        // The lock guard is dropped before both `Arc`s, because dropping a `NamedPart` takes the
        // same lock.
        let part = {
            let mut parts = lock_parts_in_use();
            let in_use = parts.get(&new.part_path).and_then(Weak::upgrade);
            in_use.unwrap_or_else(|| {
                parts.insert(new.part_path.clone(), Arc::downgrade(&new));
                Arc::clone(&new)
            })
        };
        let is_claimed_by_another = part.is_claimed.swap(true, Relaxed);
        (!is_claimed_by_another).then(|| Self(part))
    }

    pub(super) fn claimed_part(&self) -> &Arc<NamedPart> {
        &self.0
    }
}

impl Drop for PartClaim {
    fn drop(&mut self) {
        self.0.is_claimed.store(false, Relaxed);
    }
}

impl Drop for NamedPart {
    fn drop(&mut self) {
        let mut parts = lock_parts_in_use();
        let entry = parts.get(&self.part_path);
        // The map may already have a newer `NamedPart` for this path, which must not be removed.
        if entry.is_some_and(|part| part.strong_count() == 0) {
            parts.remove(&self.part_path);
        }
    }
}

fn lock_parts_in_use() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<NamedPart>>> {
    PARTS_IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

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

    #[test]
    fn claim_can_be_refused_while_the_claiming_download_ends() {
        let acquire_repeatedly = || {
            for _ in 0..300_000 {
                drop(PartClaim::acquire(Path::new("contended/file")));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(acquire_repeatedly);
            }
        });
        assert!(PartClaim::acquire(Path::new("contended/file")).is_some());
    }

    #[test]
    fn unused_parts_are_forgotten() {
        let claim = PartClaim::acquire(Path::new("forgotten/file")).unwrap();
        let path = claim.claimed_part().part_path.clone();
        assert!(PartClaim::acquire(Path::new("forgotten/file")).is_none());
        assert!(lock_parts_in_use().contains_key(&path));
        drop(claim);
        assert!(!lock_parts_in_use().contains_key(&path));
    }

    #[tokio::test]
    async fn claim_waits_for_the_operation_of_an_ended_download() {
        let target = Path::new("interrupted/file");
        let (began, has_begun) = mpsc::channel();
        let (resume, is_resumed) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let claim = PartClaim::acquire(target).unwrap();
        let part = Arc::clone(claim.claimed_part());
        let download = tokio::spawn(async move {
            let operation = move |_: &NamedPart| {
                began.send(()).unwrap();
                is_resumed.recv().unwrap();
                ended.send(()).unwrap();
                Ok(())
            };
            part.run_blocking_operation(operation).await
        });
        let has_begun = tokio::task::spawn_blocking(move || has_begun.recv());
        has_begun.await.unwrap().unwrap();
        download.abort();
        assert!(download.await.unwrap_err().is_cancelled());
        drop(claim);

        let claim = PartClaim::acquire(target).expect("the download has ended");
        let mut next = Box::pin(
            claim
                .claimed_part()
                .run_blocking_operation(move |_| Ok(has_ended.try_recv())),
        );
        let early = tokio::time::timeout(Duration::from_millis(20), &mut next).await;
        assert!(early.is_err(), "the first operation is still running");
        resume.send(()).unwrap();
        assert_eq!(next.await.unwrap(), Ok(()), "the first operation has ended");
    }

    #[test]
    fn operation_of_an_ended_download_does_not_begin() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let claim = PartClaim::acquire(Path::new("ended/file")).unwrap();
        let (has_run, runs) = mpsc::channel();
        let running = claim.claimed_part().lock_operation();
        let part = Arc::clone(claim.claimed_part());
        let ended = runtime.spawn(async move {
            let operation = move |_: &NamedPart| {
                let _ = has_run.send(());
                Ok(())
            };
            part.run_blocking_operation(operation).await
        });
        runtime.block_on(tokio::task::yield_now());
        ended.abort();
        assert!(runtime.block_on(ended).unwrap_err().is_cancelled());
        drop(running);
        // The sender is dropped with the operation.
        assert!(runs.recv().is_err());
    }
}
