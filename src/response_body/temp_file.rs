//! A temporary file in the directory of a target file. When the temporary file is complete, it is
//! renamed to the target.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempPath;
use tokio::task::spawn_blocking;

/// The number of bytes that a flush writes. Each flush costs a switch to a blocking thread, which
/// is cheap compared with the time of writing this much data.
const FLUSH_BYTES: usize = 256 << 10;

/// A temporary file with a memory buffer. Dropping a `TempFile` deletes the file, unless it was
/// [persisted](Self::persist).
pub(super) struct TempFile {
    path: TempPath,
    /// The open file. `None` during a flush, and after a flush whose future was dropped.
    file: Option<File>,
    flushed_bytes: u64,
    /// Appended data that is not in the file yet.
    unflushed: Vec<u8>,
}

impl TempFile {
    pub(super) async fn create_beside(target: Arc<Path>) -> io::Result<Self> {
        // The blocking task owns the file until it is returned here, so the file is deleted even if
        // this future is dropped.
        let (file, path) = spawn_blocking(move || create_beside(&target)).await??;
        Ok(Self {
            path,
            file: Some(file),
            flushed_bytes: 0,
            unflushed: Vec::new(),
        })
    }

    /// The length of all appended data, flushed or not.
    pub(super) fn len(&self) -> u64 {
        self.flushed_bytes + self.unflushed.len() as u64
    }

    /// Appends data to the memory buffer. Returns true if the buffer is large enough to
    /// [flush](Self::flush).
    pub(super) fn append(&mut self, data: &[u8]) -> bool {
        self.unflushed.extend_from_slice(data);
        self.unflushed.len() >= FLUSH_BYTES
    }

    /// Writes the memory buffer to the file.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the data of this flush is lost: the next flush first truncates the
    /// file to the data of the earlier flushes.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let (file, offset) = (self.file.take(), self.flushed_bytes);
        let path = self.path.to_path_buf();
        let unflushed = std::mem::take(&mut self.unflushed);
        let (file, mut unflushed) = spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => reopen_truncated(&path, offset)?,
            };
            file.write_all(&unflushed)?;
            io::Result::Ok((file, unflushed))
        })
        .await??;
        self.flushed_bytes += unflushed.len() as u64;
        unflushed.clear();
        self.file = Some(file);
        self.unflushed = unflushed;
        Ok(())
    }

    /// Flushes and closes the file, and renames it to `target`. An existing target is replaced.
    pub(super) async fn persist(mut self, target: Arc<Path>) -> io::Result<()> {
        if !self.unflushed.is_empty() {
            self.flush().await?;
        }
        spawn_blocking(move || {
            drop(self.file.take());
            self.path.persist(&target).map_err(io::Error::from)
        })
        .await?
    }
}

/// Creates a temporary file in the directory of `target`. Its name does not contain the name of the
/// target, which may already have the maximum length.
fn create_beside(target: &Path) -> io::Result<(File, TempPath)> {
    let directory = target.parent().unwrap_or(Path::new(""));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fanout-").suffix(".part").rand_bytes(16);
    // The `tempfile` crate creates files that only the owner can read. Mode 0666 is restricted by
    // the umask, as for other new files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(builder.tempfile_in(directory)?.into_parts())
}

fn reopen_truncated(path: &Path, length: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(file)
}
