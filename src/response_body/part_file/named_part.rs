//! A part file with a predictable name. The operations block the thread, and use `target.part` and
//! its record `target.part-info`.
//!
//! No file stays open between two operations, so no file lock protects the part file. Instead, the
//! record names the download that owns the part file. A download in another process can take over
//! the part file: it replaces the record, and then continues or replaces the part file. A later
//! operation of the former owner finds another owner in the record and does nothing. If both
//! downloads write at the same time, the former owner writes to a file that was replaced, or writes
//! the same bytes at the same offset as the new owner, because both have the same strong validator.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{OwnerDownloadId, PartRecord};
use crate::descriptors::{is_descriptor_limit_error, run_file_operation};

/// The maximum size of a record, in bytes. The validator in a record is a header value, and a
/// response head has at most 256 KiB.
const MAX_RECORD_BYTES: u64 = 512 << 10;

/// The paths of a part file and its record.
pub(super) struct NamedPart {
    directory: PathBuf,
    pub(super) part_path: PathBuf,
    record_path: PathBuf,
    /// Whether a download of this process has the claim.
    pub(super) is_claimed: AtomicBool,
    /// Held during an operation. An operation on a blocking thread can continue after its download
    /// has ended.
    operation_lock: Mutex<()>,
}

impl NamedPart {
    /// Returns `None` if `target` has no file name.
    pub(super) fn beside_target(target: &Path) -> Option<Self> {
        let target = std::path::absolute(target).ok()?;
        let with_suffix = |suffix: &str| -> Option<PathBuf> {
            let mut name = OsString::from(target.file_name()?);
            name.push(suffix);
            Some(target.with_file_name(name))
        };
        Some(Self {
            directory: target.parent()?.to_owned(),
            part_path: with_suffix(".part")?,
            record_path: with_suffix(".part-info")?,
            is_claimed: AtomicBool::new(false),
            operation_lock: Mutex::new(()),
        })
    }

    /// Runs an operation on a blocking thread, after all running operations on this part file have
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, an operation that has begun continues to its end, and an operation
    /// that has not begun is skipped.
    pub(super) async fn run_blocking_operation<T, F>(
        self: &Arc<Self>,
        mut operation: F,
    ) -> io::Result<T>
    where
        F: FnMut(&Self) -> io::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let part = Arc::clone(self);
        let caller = Arc::new(());
        let is_awaited = Arc::downgrade(&caller);
        let result = run_file_operation(move || {
            let _running = part.lock_operation();
            if is_awaited.strong_count() == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            operation(&part)
        })
        .await;
        drop(caller);
        result
    }

    pub(super) fn lock_operation(&self) -> MutexGuard<'_, ()> {
        self.operation_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Finds the part file of an earlier download. Returns its record and its length.
    pub(super) fn find_resumable_part(&self) -> io::Result<Option<(PartRecord, u64)>> {
        let Some(record) = self.read_record()? else {
            return Ok(None);
        };
        let length = match fs::symlink_metadata(&self.part_path) {
            Ok(metadata) if is_regular_file_with_one_link(&metadata) => metadata.len(),
            _ => return Ok(None),
        };
        let is_plausible = length > 0
            && record.representation.validator.is_some()
            && record.representation.total_length.unwrap_or(u64::MAX) >= length;
        Ok(is_plausible.then_some((record, length)))
    }

    /// Removes the record and the empty part file, if any, of a download that ended before it wrote
    /// data.
    pub(super) fn remove_empty_part_and_record(&self) -> io::Result<()> {
        if self.read_record()?.is_none() {
            return Ok(());
        }
        match fs::symlink_metadata(&self.part_path) {
            Ok(part) if !is_regular_file_with_one_link(&part) || part.len() > 0 => return Ok(()),
            Ok(_) => remove_file_if_present(&self.part_path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        remove_file_if_present(&self.record_path)
    }

    /// Makes the download in `record` the owner of an existing part file. Returns false if the part
    /// file cannot be continued at `length`.
    pub(super) fn take_over_part(&self, record: &PartRecord, length: u64) -> io::Result<bool> {
        if !self.write_record(record)? {
            return Ok(false);
        }
        let Some((_, metadata)) = self.open_part()? else {
            self.remove_empty_part_and_record()?;
            return Ok(false);
        };
        let is_own = match fs::symlink_metadata(&self.record_path) {
            Ok(record_metadata) => is_same_user(&metadata, &record_metadata),
            Err(_) => false,
        };
        Ok(is_own && metadata.len() >= length)
    }

    /// Creates an empty part file with a record. The part file of an earlier download is replaced.
    /// Returns false if the name of the part file is too long, or if the part file exists without a
    /// record and therefore belongs to another program.
    pub(super) fn create_part_and_record(&self, record: &PartRecord) -> io::Result<bool> {
        let has_record = self.read_record()?.is_some();
        let old_part = fs::symlink_metadata(&self.part_path).ok();
        let old_record = fs::symlink_metadata(&self.record_path).ok();
        match (&old_part, &old_record) {
            (None, None) => {}
            (None, Some(_)) if has_record => {}
            (Some(part), Some(old_record)) if has_record && is_same_user(part, old_record) => {}
            _ => return Ok(false),
        }
        if !self.write_record(record)? {
            return Ok(false);
        }
        if old_part.is_some() {
            remove_file_if_present(&self.part_path)?;
        }
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.part_path)
        {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_file_if_present(&self.record_path)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Truncates the part file to `offset` and appends `data`. Returns false if `owner` no longer
    /// owns the part file.
    pub(super) fn write_if_owned(
        &self,
        owner: OwnerDownloadId,
        offset: u64,
        data: &[u8],
    ) -> io::Result<bool> {
        let file = self.open_part_if_owned(owner, offset)?;
        match file {
            Some((file, _)) => truncate_and_append(file, offset, data).map(|()| true),
            None => Ok(false),
        }
    }

    /// Writes the last data and renames the part file to `target`. Returns false if `owner` no
    /// longer owns the part file.
    pub(super) fn write_and_rename_to_target(
        &self,
        owner: OwnerDownloadId,
        offset: u64,
        data: &[u8],
        target: &Path,
    ) -> io::Result<bool> {
        let Some((file, metadata)) = self.open_part_if_owned(owner, offset)? else {
            return Ok(false);
        };
        truncate_and_append(file, offset, data)?;
        // The part file is renamed to a name that only this owner uses. No other download can
        // replace the file under this name after the following check.
        let complete_path = self.directory.join(format!(".fanout-{owner:016x}.part"));
        match fs::rename(&self.part_path, &complete_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed?,
        }
        if !fs::symlink_metadata(&complete_path).is_ok_and(|found| is_same_file(&found, &metadata))
        {
            fs::rename(&complete_path, &self.part_path)?;
            return Ok(false);
        }
        if let Err(error) = fs::rename(&complete_path, target) {
            fs::rename(&complete_path, &self.part_path)?;
            return Err(error);
        }
        if self.is_owner(owner)? {
            remove_file_if_present(&self.record_path)?;
        }
        Ok(true)
    }

    /// Removes the part file and its record, unless another download has taken them over.
    pub(super) fn delete_if_owned(&self, owner: OwnerDownloadId) -> io::Result<()> {
        if self.is_owner(owner)? {
            remove_file_if_present(&self.part_path)?;
            remove_file_if_present(&self.record_path)?;
        }
        Ok(())
    }

    /// Opens the part file for writing. Returns `None` if `owner` does not own the part file, or if
    /// the part file is shorter than `min_length`.
    fn open_part_if_owned(
        &self,
        owner: OwnerDownloadId,
        min_length: u64,
    ) -> io::Result<Option<(File, Metadata)>> {
        // The file is opened before the owner is checked. If the check finds that `owner` is still
        // the owner, then the opened file is the file of `owner`.
        let part = self.open_part()?;
        let is_owner = self.is_owner(owner)?;
        Ok(part.filter(|(_, metadata)| is_owner && metadata.len() >= min_length))
    }

    /// Opens the part file for writing. Returns `None` if there is no part file, or if its path is
    /// a link. A link could lead to any other file of the user.
    fn open_part(&self) -> io::Result<Option<(File, Metadata)>> {
        let found = match fs::symlink_metadata(&self.part_path) {
            Ok(metadata) if is_regular_file_with_one_link(&metadata) => metadata,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = match OpenOptions::new().write(true).open(&self.part_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        Ok(is_same_file(&metadata, &found).then_some((file, metadata)))
    }

    fn is_owner(&self, owner: OwnerDownloadId) -> io::Result<bool> {
        let record = self.read_record()?;
        Ok(record.is_some_and(|record| record.owner_download_id == owner))
    }

    /// Reads the record. A record that is unreadable, malformed or a link counts as missing.
    fn read_record(&self) -> io::Result<Option<PartRecord>> {
        let is_record = |metadata: Metadata| {
            is_regular_file_with_one_link(&metadata) && metadata.len() <= MAX_RECORD_BYTES
        };
        if !fs::symlink_metadata(&self.record_path).is_ok_and(is_record) {
            return Ok(None);
        }
        match fs::read(&self.record_path) {
            Ok(bytes) => Ok(PartRecord::parse_record(&bytes)),
            Err(error) if is_descriptor_limit_error(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Replaces the record. Returns false if the name of the record file is too long, or if the
    /// existing record file belongs to another user.
    fn write_record(&self, record: &PartRecord) -> io::Result<bool> {
        let mut file = tempfile::Builder::new()
            .prefix(".fanout-")
            .suffix(".part-info")
            .tempfile_in(&self.directory)?;
        file.write_all(&record.to_bytes())?;
        match file.into_temp_path().persist(&self.record_path) {
            Ok(()) => Ok(true),
            Err(error) => match error.error.kind() {
                io::ErrorKind::InvalidFilename | io::ErrorKind::PermissionDenied => Ok(false),
                _ => Err(error.error),
            },
        }
    }
}

/// Truncates a file to `offset` and appends `data`.
pub(super) fn truncate_and_append(mut file: File, offset: u64, data: &[u8]) -> io::Result<()> {
    if file.metadata()?.len() > offset {
        file.set_len(offset)?;
    }
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(data)
}

fn remove_file_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the path is a regular file without another hard link.
fn is_regular_file_with_one_link(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    let has_one_name = std::os::unix::fs::MetadataExt::nlink(metadata) == 1;
    #[cfg(not(unix))]
    let has_one_name = true;
    metadata.is_file() && has_one_name
}

#[cfg(unix)]
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The standard library has no inode numbers for this platform. All files count as the same file.
#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_same_user(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.uid() == b.uid()
}

#[cfg(not(unix))]
fn is_same_user(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::record::{Representation, UrlHash};
    use super::*;

    fn record(owner: OwnerDownloadId) -> PartRecord {
        let url = Url::parse("http://a.example/").unwrap();
        PartRecord {
            owner_download_id: owner,
            representation: Representation {
                url_hash: UrlHash::of(&url),
                validator: Some(http::HeaderValue::from_static("\"v1\"")),
                content_coding: None,
                total_length: Some(10),
            },
        }
    }

    fn part() -> (tempfile::TempDir, NamedPart, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        let part = NamedPart::beside_target(&target).unwrap();
        (directory, part, target)
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn part_is_written_found_taken_over_and_persisted() {
        let (directory, part, target) = part();
        assert!(part.find_resumable_part().unwrap().is_none());
        assert!(part.create_part_and_record(&record(1)).unwrap());
        assert!(
            part.find_resumable_part().unwrap().is_none(),
            "the part is empty"
        );
        assert!(part.write_if_owned(1, 0, b"0123").unwrap());
        assert!(part.write_if_owned(1, 2, b"2345").unwrap());
        assert_eq!(names(&directory), ["file.part", "file.part-info"]);
        assert_eq!(part.find_resumable_part().unwrap(), Some((record(1), 6)));
        assert!(part.take_over_part(&record(2), 6).unwrap());
        assert!(!part.write_if_owned(1, 6, b"x").unwrap(), "another owner");
        assert!(
            !part
                .write_and_rename_to_target(1, 6, b"x", &target)
                .unwrap()
        );
        assert!(!part.take_over_part(&record(2), 7).unwrap(), "too short");
        assert!(
            part.write_and_rename_to_target(2, 6, b"6789", &target)
                .unwrap()
        );
        assert_eq!(names(&directory), ["file"]);
        assert_eq!(fs::read(target).unwrap(), b"0123456789");
    }

    #[test]
    fn only_the_owner_discards_a_part() {
        let (directory, part, _) = part();
        part.create_part_and_record(&record(1)).unwrap();
        part.delete_if_owned(2).unwrap();
        assert_eq!(names(&directory).len(), 2);
        assert!(
            part.create_part_and_record(&record(3)).unwrap(),
            "an old part is replaced"
        );
        part.delete_if_owned(1).unwrap();
        assert_eq!(names(&directory).len(), 2);
        part.delete_if_owned(3).unwrap();
        assert!(names(&directory).is_empty());
    }

    #[test]
    fn empty_part_is_removed_with_its_record() {
        let (directory, part, _) = part();
        for has_part in [true, false] {
            part.create_part_and_record(&record(1)).unwrap();
            if !has_part {
                fs::remove_file(&part.part_path).unwrap();
            }
            part.remove_empty_part_and_record().unwrap();
            assert!(names(&directory).is_empty());
        }
        part.create_part_and_record(&record(1)).unwrap();
        part.write_if_owned(1, 0, b"0").unwrap();
        part.remove_empty_part_and_record().unwrap();
        assert_eq!(names(&directory).len(), 2);
    }

    #[test]
    fn taking_over_a_missing_part_leaves_no_record() {
        let (directory, part, target) = part();
        part.create_part_and_record(&record(1)).unwrap();
        part.write_and_rename_to_target(1, 0, b"0", &target)
            .unwrap();
        assert!(!part.take_over_part(&record(2), 1).unwrap());
        assert_eq!(names(&directory), ["file"]);
    }

    #[test]
    fn file_of_another_program_is_not_touched() {
        let (_directory, part, _) = part();
        for record_content in [None, Some("other"), Some("fanout part 1\n")] {
            fs::write(&part.part_path, "theirs").unwrap();
            if let Some(content) = record_content {
                fs::write(&part.record_path, content).unwrap();
            }
            assert!(part.find_resumable_part().unwrap().is_none());
            part.remove_empty_part_and_record().unwrap();
            assert!(!part.create_part_and_record(&record(1)).unwrap());
            part.delete_if_owned(1).unwrap();
            assert_eq!(fs::read(&part.part_path).unwrap(), b"theirs");
        }
    }

    #[cfg(unix)]
    #[test]
    fn linked_part_is_neither_read_nor_written() {
        let (directory, part, target) = part();
        let victim = directory.path().join("victim");
        fs::write(&victim, "content").unwrap();
        for is_hard_link in [false, true] {
            assert!(part.create_part_and_record(&record(1)).unwrap());
            fs::remove_file(&part.part_path).unwrap();
            if is_hard_link {
                fs::hard_link(&victim, &part.part_path).unwrap();
            } else {
                std::os::unix::fs::symlink(&victim, &part.part_path).unwrap();
            }
            assert!(part.find_resumable_part().unwrap().is_none());
            assert!(!part.take_over_part(&record(1), 0).unwrap());
            assert!(!part.write_if_owned(1, 0, b"x").unwrap());
            assert!(
                !part
                    .write_and_rename_to_target(1, 0, b"x", &target)
                    .unwrap()
            );
            assert_eq!(fs::read(&victim).unwrap(), b"content");
            assert!(
                part.create_part_and_record(&record(2)).unwrap(),
                "the link is replaced"
            );
            assert_eq!(fs::read(&victim).unwrap(), b"content");
            part.delete_if_owned(2).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn part_that_is_too_long_a_name_is_not_created() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x".repeat(255));
        let part = NamedPart::beside_target(&target).unwrap();
        assert!(!part.create_part_and_record(&record(1)).unwrap());
        assert!(names(&directory).is_empty());
    }
}
