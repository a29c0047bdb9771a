//! The file of a download in progress.
//!
//! ```text
//!  data ─► memory ─► target.part ─► target      the server has a strong validator
//!            │   └─► .fanout-*.part ─► target    the download cannot be resumed
//!            └─────────────────────► target      the body is complete before the first write
//! ```
//!
//! Data is written to the disk when 256 KiB have arrived, or after one second. A part file with a
//! predictable name has a [record] beside it, with which the next run of the program resumes the
//! download. A file is open only during an operation, so a download that waits for the server needs
//! no file descriptor.

mod claim;
mod named_part;
mod record;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::{NamedTempFile, TempPath};
use tokio::time::Instant;

pub(super) use self::claim::PartClaim;
use self::named_part::{NamedPart, truncate_and_append};
use self::record::{OwnerDownloadId, PartRecord};
pub(super) use self::record::{Representation, UrlHash};
use crate::descriptors::run_file_operation;

/// The number of unwritten bytes that causes a write. Writing this many bytes takes much longer
/// than the switch to a blocking thread, which each write needs.
const WRITE_THRESHOLD_BYTES: usize = 256 << 10;
/// The maximum time that received data stays in memory before it is written. A process that is
/// killed loses this data.
const MAX_WRITE_DELAY: Duration = Duration::from_secs(1);

/// A download in progress: data in a file, followed by data in memory.
///
/// Dropping a `PartFile` keeps a part file with a predictable name, and deletes any other file.
pub(super) struct PartFile {
    target_path: Arc<Path>,
    location: PartLocation,
    written_length: u64,
    /// Received data that is not in the file yet. The data is shared with the blocking thread that
    /// writes it.
    unwritten_data: Arc<Vec<u8>>,
    /// The time at which the oldest unwritten data arrived.
    oldest_unwritten_at: Option<Instant>,
}

enum PartLocation {
    /// All data is in memory. No file exists yet.
    OnlyInMemory,
    PredictablyNamed {
        part: Arc<NamedPart>,
        owner: OwnerDownloadId,
        /// Whether this download has written the record. False if the part file of an earlier
        /// download was found and not taken over yet.
        is_owned: bool,
    },
    /// A file with a random name.
    RandomlyNamed(TempPath),
}

/// Whether the download still owned its part file during an operation.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum PartOwnership {
    StillOwned,
    /// Another download has taken the part file over, or the file was changed.
    OwnershipLost,
}

impl PartOwnership {
    fn new(is_still_owned: bool) -> Self {
        if is_still_owned {
            Self::StillOwned
        } else {
            Self::OwnershipLost
        }
    }
}

impl PartFile {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target_path: target,
            location: PartLocation::OnlyInMemory,
            written_length: 0,
            unwritten_data: Arc::default(),
            oldest_unwritten_at: None,
        }
    }

    /// Finds the part file of an earlier download to `target`.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory of the target does not exist.
    pub(super) async fn find_earlier_part(
        target: Arc<Path>,
        claim: &PartClaim,
    ) -> io::Result<Option<(Self, Representation)>> {
        let search = |part: &NamedPart| {
            fs::metadata(part.directory())?;
            let found = part.find_resumable_part()?;
            if found.is_none() {
                part.remove_empty_part_and_record()?;
            }
            Ok(found)
        };
        let found = claim.claimed_part().run_blocking_operation(search).await?;
        Ok(found.map(|(record, length)| {
            let location = PartLocation::PredictablyNamed {
                part: Arc::clone(claim.claimed_part()),
                owner: record.owner_download_id,
                is_owned: false,
            };
            let part_file = Self {
                location,
                written_length: length,
                ..Self::new(target)
            };
            (part_file, record.representation)
        }))
    }

    /// The length of the received data, written or still in memory.
    pub(super) fn received_length(&self) -> u64 {
        self.written_length + self.unwritten_data.len() as u64
    }

    /// Appends data to the unwritten data.
    pub(super) fn append_to_memory(&mut self, data: &[u8], now: Instant) {
        Arc::make_mut(&mut self.unwritten_data).extend_from_slice(data);
        self.oldest_unwritten_at.get_or_insert(now);
    }

    /// The time at which the unwritten data must be written. `None` if no data is unwritten.
    pub(super) fn write_due_at(&self) -> Option<Instant> {
        let since = self.oldest_unwritten_at?;
        Some(if self.unwritten_data.len() >= WRITE_THRESHOLD_BYTES {
            since
        } else {
            since + MAX_WRITE_DELAY
        })
    }

    /// Makes this download the owner of a part file that was [found](Self::find_earlier_part).
    pub(super) async fn take_over_found_part(
        &mut self,
        representation: &Representation,
    ) -> io::Result<PartOwnership> {
        let PartLocation::PredictablyNamed {
            part,
            owner,
            is_owned: is_owned @ false,
        } = &mut self.location
        else {
            return Ok(PartOwnership::StillOwned);
        };
        let record = record_with_new_owner(representation);
        let new_owner = record.owner_download_id;
        let length = self.written_length;
        let take_over = move |part: &NamedPart| part.take_over_part(&record, length);
        let is_taken = part.run_blocking_operation(take_over).await?;
        *owner = new_owner;
        *is_owned = true;
        Ok(PartOwnership::new(is_taken))
    }

    /// Writes the unwritten data to the file, and creates the file if none exists. The new file has
    /// the predictable name if there is a claim and the download can be resumed. Otherwise, it has
    /// a random name.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the write has ended, the next call writes the same data
    /// again.
    pub(super) async fn write_unwritten_data(
        &mut self,
        representation: &Representation,
        claim: Option<&PartClaim>,
    ) -> io::Result<PartOwnership> {
        if matches!(self.location, PartLocation::OnlyInMemory) {
            self.location = self.create_part_file(representation, claim).await?;
        }
        let (data, offset) = (Arc::clone(&self.unwritten_data), self.written_length);
        let is_still_owned = match &self.location {
            PartLocation::OnlyInMemory => true,
            PartLocation::PredictablyNamed { part, owner, .. } => {
                let owner = *owner;
                let write = move |part: &NamedPart| part.write_if_owned(owner, offset, &data);
                part.run_blocking_operation(write).await?
            }
            PartLocation::RandomlyNamed(path) => {
                let path = path.to_path_buf();
                run_file_operation(move || write_temporary_file(&path, offset, &data)).await?;
                true
            }
        };
        self.written_length += self.unwritten_data.len() as u64;
        self.oldest_unwritten_at = None;
        match Arc::get_mut(&mut self.unwritten_data) {
            Some(unwritten) => unwritten.clear(),
            None => self.unwritten_data = Arc::default(),
        }
        Ok(PartOwnership::new(is_still_owned))
    }

    async fn create_part_file(
        &self,
        representation: &Representation,
        claim: Option<&PartClaim>,
    ) -> io::Result<PartLocation> {
        if let (Some(claim), Some(_)) = (claim, &representation.validator) {
            let record = record_with_new_owner(representation);
            let owner = record.owner_download_id;
            let create = move |part: &NamedPart| part.create_part_and_record(&record);
            if claim.claimed_part().run_blocking_operation(create).await? {
                return Ok(PartLocation::PredictablyNamed {
                    part: Arc::clone(claim.claimed_part()),
                    owner,
                    is_owned: true,
                });
            }
        }
        let target = Arc::clone(&self.target_path);
        let file = run_file_operation(move || create_temporary_beside(&target)).await?;
        Ok(PartLocation::RandomlyNamed(file.into_temp_path()))
    }

    /// Writes the unwritten data and renames the file to the target. An existing target is
    /// replaced.
    pub(super) async fn write_and_rename_to_target(&mut self) -> io::Result<PartOwnership> {
        let (data, offset) = (Arc::clone(&self.unwritten_data), self.written_length);
        let target = Arc::clone(&self.target_path);
        match &self.location {
            PartLocation::OnlyInMemory => {
                run_file_operation(move || {
                    let mut file = create_temporary_beside(&target)?;
                    file.write_all(&data)?;
                    let path = file.into_temp_path();
                    path.persist(&target).map_err(io::Error::from)
                })
                .await?;
                Ok(PartOwnership::StillOwned)
            }
            PartLocation::PredictablyNamed { part, owner, .. } => {
                let owner = *owner;
                let persist = move |part: &NamedPart| {
                    part.write_and_rename_to_target(owner, offset, &data, &target)
                };
                part.run_blocking_operation(persist)
                    .await
                    .map(PartOwnership::new)
            }
            PartLocation::RandomlyNamed(path) => {
                let path = path.to_path_buf();
                run_file_operation(move || {
                    write_temporary_file(&path, offset, &data)?;
                    fs::rename(&path, &target)
                })
                .await?;
                Ok(PartOwnership::StillOwned)
            }
        }
    }

    /// Deletes the file. Errors are ignored, because the next download replaces the file.
    pub(super) async fn delete_file(self) {
        if let PartLocation::PredictablyNamed { part, owner, .. } = self.location {
            let _ = part
                .run_blocking_operation(move |part| part.delete_if_owned(owner))
                .await;
        }
    }
}

fn record_with_new_owner(representation: &Representation) -> PartRecord {
    PartRecord {
        owner_download_id: fastrand::u64(..),
        representation: representation.clone(),
    }
}

/// Creates a temporary file in the directory of `target`. The name of the file does not contain the
/// name of `target`, because that name may already have the maximum length.
fn create_temporary_beside(target: &Path) -> io::Result<NamedTempFile> {
    let directory = target.parent().unwrap_or(Path::new(""));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fanout-").suffix(".part").rand_bytes(16);
    // The default of the `tempfile` crate is a file that only its owner can read. Mode 0666 is
    // restricted by the umask, as for other new files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

fn write_temporary_file(path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    truncate_and_append(file, offset, data)
}
