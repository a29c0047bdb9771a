//! A file that is not whole yet, under a name of its own beside that which it is to have.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

/// So much is written at once: enough that going to another thread for it costs little.
const WRITE_CHUNK_BYTES: usize = 256 << 10;

/// Gone when it is dropped, unless it was given its name.
pub(super) struct TempFile {
    path: TempPath,
    /// None while it is being written; also afterwards, if that was never seen to end.
    file: Option<File>,
    written: u64,
    /// What comes after the written.
    pending: Vec<u8>,
}

impl TempFile {
    pub(super) async fn create(target: Arc<Path>) -> io::Result<Self> {
        // Made where it is opened: should nobody wait for it any more, it goes at once.
        let (path, file) = spawn_blocking(move || TempPath::create_beside(&target)).await??;
        Ok(Self {
            path,
            file: Some(file),
            written: 0,
            pending: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Takes a part of the body. True if there is enough of it to be [written](Self::write).
    pub(super) fn buffer(&mut self, data: &[u8]) -> bool {
        self.pending.extend_from_slice(data);
        self.pending.len() >= WRITE_CHUNK_BYTES
    }

    /// Writes what was taken.
    ///
    /// # Cancel safety
    ///
    /// What was being written is taken for not written when the future is dropped.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        let (file, offset) = (self.file.take(), self.written);
        let path = self.path.0.clone();
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
        self.written += pending.len() as u64;
        pending.clear();
        self.file = Some(file);
        self.pending = pending;
        Ok(())
    }

    /// Gives it its name, in place of what had that before.
    pub(super) async fn finish(mut self, target: Arc<Path>) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write().await?;
        }
        spawn_blocking(move || {
            drop(self.file.take());
            self.path.rename(&target)
        })
        .await?
    }
}

fn reopen(path: &Path, length: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(file)
}

/// The name of a file, which is removed with it. Empty once the file has another.
struct TempPath(PathBuf);

impl TempPath {
    fn create_beside(target: &Path) -> io::Result<(Self, File)> {
        loop {
            // Short, whatever the length of the name it stands for.
            let name = format!(".fanout-{:016x}.part", fastrand::u64(..));
            let path = target.with_file_name(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self(path), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)?;
        self.0 = PathBuf::new();
        Ok(())
    }
}

/// Removed here and now, so that it is gone when the error is seen.
impl Drop for TempPath {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}
