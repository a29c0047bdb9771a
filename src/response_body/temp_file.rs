//! A file under a temporary name beside its target, renamed to the target when it is complete.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempPath;
use tokio::task::spawn_blocking;

/// The data that one blocking write flushes. Large enough to make the thread switch cheap.
const FLUSH_BYTES: usize = 256 << 10;

/// A partially written file. Dropping it deletes the file, unless it was
/// [persisted](Self::persist).
pub(super) struct TempFile {
    path: TempPath,
    /// `None` during a flush, and after a flush whose future was dropped.
    file: Option<File>,
    flushed_bytes: u64,
    /// Data that follows the flushed bytes.
    pending: Vec<u8>,
}

impl TempFile {
    pub(super) async fn create_beside(target: Arc<Path>) -> io::Result<Self> {
        // The blocking task owns the file until this future takes it, so dropping the future
        // deletes the file.
        let (file, path) = spawn_blocking(move || create_beside(&target)).await??;
        Ok(Self {
            path,
            file: Some(file),
            flushed_bytes: 0,
            pending: Vec::new(),
        })
    }

    /// The length of the data so far, flushed or not.
    pub(super) fn len(&self) -> u64 {
        self.flushed_bytes + self.pending.len() as u64
    }

    /// Appends data in memory. Returns true once there is enough to [flush](Self::flush).
    pub(super) fn append(&mut self, data: &[u8]) -> bool {
        self.pending.extend_from_slice(data);
        self.pending.len() >= FLUSH_BYTES
    }

    /// Writes the appended data to the file.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the data of this flush counts as not written, and the file is
    /// truncated to the data before it when the next flush starts.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let (file, offset) = (self.file.take(), self.flushed_bytes);
        let path = self.path.to_path_buf();
        let pending = std::mem::take(&mut self.pending);
        let (file, mut pending) = spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => reopen(&path, offset)?,
            };
            file.write_all(&pending)?;
            io::Result::Ok((file, pending))
        })
        .await??;
        self.flushed_bytes += pending.len() as u64;
        pending.clear();
        self.file = Some(file);
        self.pending = pending;
        Ok(())
    }

    /// Flushes, closes and renames the file to `target`, which it replaces.
    pub(super) async fn persist(mut self, target: Arc<Path>) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.flush().await?;
        }
        spawn_blocking(move || {
            drop(self.file.take());
            self.path.persist(&target).map_err(io::Error::from)
        })
        .await?
    }
}

/// The name is short, so that it is valid beside a target with a name of maximum length.
fn create_beside(target: &Path) -> io::Result<(File, TempPath)> {
    let directory = target.parent().unwrap_or(Path::new(""));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fanout-").suffix(".part").rand_bytes(16);
    // tempfile's own default is readable by the owner only; the umask applies to this.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(builder.tempfile_in(directory)?.into_parts())
}

fn reopen(path: &Path, length: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(file)
}
