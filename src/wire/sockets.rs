//! How many sockets this process may have open.

/// The most sockets to have open at once: three quarters of the soft limit on open files, since the program has other
/// files, and a connection under way may hold two for a moment. None where there is no such limit.
pub(crate) fn default_socket_limit() -> Option<usize> {
    #[cfg(unix)]
    {
        let soft = rlimit::Resource::NOFILE.get_soft().ok()?;
        let soft = usize::try_from(soft)
            .ok()
            .filter(|soft| *soft < usize::MAX / 4)?;
        Some((soft / 4 * 3).max(1))
    }
    #[cfg(not(unix))]
    None
}
