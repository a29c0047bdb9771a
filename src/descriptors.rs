//! The limit on the file descriptors of the process, and how sockets and files share them.
//!
//! A Fetcher uses at most three quarters of the descriptors for sockets. The last quarter is for
//! the files of this crate and of the rest of the program. A download opens its file only for the
//! duration of each operation, so a few permits serve any number of downloads. An upload keeps its
//! file open, because the file may be replaced or removed while it is sent.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The number of permits for open files in a process without a descriptor limit.
const OPEN_FILE_PERMITS_WITHOUT_DESCRIPTOR_LIMIT: usize = 4096;
/// The maximum number of concurrent file operations. Each operation opens at most two descriptors.
const MAX_CONCURRENT_FILE_OPERATIONS: usize = 32;

/// The permits for files that stay open: one for every eight descriptors of the limit.
static OPEN_FILE_SEMAPHORE: LazyLock<Semaphore> = LazyLock::new(|| {
    let permits = descriptor_limit().map_or(OPEN_FILE_PERMITS_WITHOUT_DESCRIPTOR_LIMIT, |limit| {
        (limit / 8).max(1)
    });
    Semaphore::new(permits)
});

static FILE_OPERATION_SEMAPHORE: LazyLock<Semaphore> = LazyLock::new(|| {
    let limit = descriptor_limit().unwrap_or(usize::MAX);
    Semaphore::new((limit / 64).clamp(1, MAX_CONCURRENT_FILE_OPERATIONS))
});

/// The soft limit on open descriptors. `None` if there is no limit.
pub(crate) fn descriptor_limit() -> Option<usize> {
    #[cfg(unix)]
    {
        let soft = rlimit::Resource::NOFILE.get_soft().ok()?;
        usize::try_from(soft)
            .ok()
            .filter(|soft| *soft < usize::MAX / 4)
    }
    #[cfg(not(unix))]
    None
}

/// Whether an operation failed because the process or the system has no descriptor left.
pub(crate) fn is_descriptor_limit_error(error: &io::Error) -> bool {
    // ENFILE and EMFILE have the same numbers on every Unix. 10024 is WSAEMFILE, and 4 is
    // ERROR_TOO_MANY_OPEN_FILES.
    let codes = if cfg!(unix) { [23, 24] } else { [10024, 4] };
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// A permit for one file that stays open.
pub(crate) struct OpenFilePermit(#[allow(dead_code)] Option<SemaphorePermit<'static>>);

/// Waits until another file may stay open. A task that holds a permit must not wait for a second
/// one.
pub(crate) async fn acquire_open_file_permit() -> OpenFilePermit {
    OpenFilePermit(OPEN_FILE_SEMAPHORE.acquire().await.ok())
}

/// Runs an operation that opens files, on a blocking thread.
///
/// If the process is out of descriptors, idle connections are closed, and the operation is repeated
/// for up to 10 s. An operation that fails for lack of a descriptor must therefore have no lasting
/// effect.
///
/// # Cancel safety
///
/// If the future is dropped, an operation that has begun runs to its end.
pub(crate) async fn run_file_operation<T, F>(mut operation: F) -> io::Result<T>
where
    F: FnMut() -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    const MAX_WAIT_FOR_DESCRIPTOR: Duration = Duration::from_secs(10);
    let mut delay = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        let permit = FILE_OPERATION_SEMAPHORE.acquire().await.ok();
        let result;
        (operation, result) = spawn_blocking(move || {
            let result = operation();
            drop(permit);
            (operation, result)
        })
        .await?;
        match result {
            Err(error) if is_descriptor_limit_error(&error) && waited < MAX_WAIT_FOR_DESCRIPTOR => {
                if !close_some_idle_connections_of_all_pools() {
                    sleep(delay).await;
                }
                waited += delay;
                delay = (2 * delay).min(Duration::from_secs(1));
            }
            result => return result,
        }
    }
}

/// A connection pool whose idle connections can be closed, to free their descriptors.
pub(crate) trait IdleConnectionPool: Send + Sync {
    /// Closes some idle connections. Returns whether any was closed.
    fn close_some_idle_connections(&self) -> bool;
}

/// The connection pools of all Fetchers.
static IDLE_CONNECTION_POOLS: Mutex<Vec<Weak<dyn IdleConnectionPool>>> = Mutex::new(Vec::new());

/// Registers a pool. Its idle connections are closed when a file operation finds no free
/// descriptor.
pub(crate) fn register_idle_connection_pool<P: IdleConnectionPool + 'static>(pool: &Arc<P>) {
    let pool: Weak<P> = Arc::downgrade(pool);
    let mut pools = IDLE_CONNECTION_POOLS
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(pool);
}

/// Closes some idle connections of every Fetcher. Returns whether any was closed.
fn close_some_idle_connections_of_all_pools() -> bool {
    let pools: Vec<Arc<dyn IdleConnectionPool>> = {
        let pools = IDLE_CONNECTION_POOLS
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pools.iter().filter_map(Weak::upgrade).collect()
    };
    pools
        .iter()
        .filter(|pool| pool.close_some_idle_connections())
        .count()
        > 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    struct TestPool(AtomicUsize);

    impl IdleConnectionPool for TestPool {
        fn close_some_idle_connections(&self) -> bool {
            let decremented = |count: usize| count.checked_sub(1);
            self.0.fetch_update(Relaxed, Relaxed, decremented).is_ok()
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn operation_out_of_descriptors_closes_idle_connections_and_is_repeated() {
        let pool = Arc::new(TestPool(AtomicUsize::new(2)));
        register_idle_connection_pool(&pool);
        let mut calls = 0;
        let operation = move || {
            calls += 1;
            if calls < 5 {
                Err(io::Error::from_raw_os_error(24))
            } else {
                Ok(calls)
            }
        };
        assert_eq!(run_file_operation(operation).await.unwrap(), 5);
        assert_eq!(pool.0.load(Relaxed), 0);
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn operation_fails_if_no_descriptor_becomes_free() {
        let operation = || io::Result::<()>::Err(io::Error::from_raw_os_error(24));
        let error = run_file_operation(operation).await.unwrap_err();
        assert!(is_descriptor_limit_error(&error));
        let other = || io::Result::<()>::Err(io::ErrorKind::NotFound.into());
        assert!(run_file_operation(other).await.is_err());
    }
}
