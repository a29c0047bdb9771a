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
use self::named_part::{NamedPart, write_at_end};
use self::record::{OwnerId, PartRecord};
pub(super) use self::record::{Representation, UrlHash};
use crate::descriptors::run_file_operation;

/// The number of unwritten bytes that causes a write. Writing this many bytes takes much longer
/// than the switch to a blocking thread, which each write needs.
const WRITE_BYTES: usize = 256 << 10;
/// The maximum time that received data stays in memory before it is written. A process that is
/// killed loses this data.
const WRITE_DELAY: Duration = Duration::from_secs(1);

/// A download in progress: data in a file, followed by data in memory.
///
/// Dropping a `PartFile` keeps a part file with a predictable name, and deletes any other file.
pub(super) struct PartFile {
    target: Arc<Path>,
    location: Location,
    written_bytes: u64,
    /// Received data that is not in the file yet. The data is shared with the blocking thread that
    /// writes it.
    unwritten: Arc<Vec<u8>>,
    /// The time at which the oldest unwritten data arrived.
    unwritten_since: Option<Instant>,
}

enum Location {
    /// All data is in memory. No file exists yet.
    Memory,
    Named {
        part: Arc<NamedPart>,
        owner: OwnerId,
        /// Whether this download has written the record. False if the part file of an earlier
        /// download was found and not taken over yet.
        is_owned: bool,
    },
    /// A file with a random name.
    Temporary(TempPath),
}

/// Whether a download still has its part file after an operation.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum PartState {
    Intact,
    /// Another download has taken the part file over, or the file was changed.
    Lost,
}

impl PartState {
    fn new(is_intact: bool) -> Self {
        if is_intact { Self::Intact } else { Self::Lost }
    }
}

impl PartFile {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target,
            location: Location::Memory,
            written_bytes: 0,
            unwritten: Arc::default(),
            unwritten_since: None,
        }
    }

    /// Finds the part file of an earlier download to `target`.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory of the target does not exist.
    pub(super) async fn find(
        target: Arc<Path>,
        claim: &PartClaim,
    ) -> io::Result<Option<(Self, Representation)>> {
        let search = |part: &NamedPart| {
            fs::metadata(part.directory())?;
            let found = part.find()?;
            if found.is_none() {
                part.remove_empty()?;
            }
            Ok(found)
        };
        let found = claim.part().run_operation(search).await?;
        Ok(found.map(|(record, length)| {
            let location = Location::Named {
                part: Arc::clone(claim.part()),
                owner: record.owner,
                is_owned: false,
            };
            let part_file = Self {
                location,
                written_bytes: length,
                ..Self::new(target)
            };
            (part_file, record.representation)
        }))
    }

    /// The length of all received data.
    pub(super) fn len(&self) -> u64 {
        self.written_bytes + self.unwritten.len() as u64
    }

    /// Appends data to the unwritten data.
    pub(super) fn append(&mut self, data: &[u8], now: Instant) {
        Arc::make_mut(&mut self.unwritten).extend_from_slice(data);
        self.unwritten_since.get_or_insert(now);
    }

    /// The time at which the unwritten data must be written. `None` if no data is unwritten.
    pub(super) fn write_due(&self) -> Option<Instant> {
        let since = self.unwritten_since?;
        Some(if self.unwritten.len() >= WRITE_BYTES {
            since
        } else {
            since + WRITE_DELAY
        })
    }

    /// Makes this download the owner of a part file that was [found](Self::find).
    pub(super) async fn take_over(
        &mut self,
        representation: &Representation,
    ) -> io::Result<PartState> {
        let Location::Named {
            part,
            owner,
            is_owned: is_owned @ false,
        } = &mut self.location
        else {
            return Ok(PartState::Intact);
        };
        let record = new_record(representation);
        let new_owner = record.owner;
        let length = self.written_bytes;
        let take_over = move |part: &NamedPart| part.take_over(&record, length);
        let is_taken = part.run_operation(take_over).await?;
        *owner = new_owner;
        *is_owned = true;
        Ok(PartState::new(is_taken))
    }

    /// Writes the unwritten data to the file, and creates the file if none exists. The new file has
    /// the predictable name if there is a claim and the download can be resumed. Otherwise, it has
    /// a random name.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the next call writes the same data again.
    pub(super) async fn write(
        &mut self,
        representation: &Representation,
        claim: Option<&PartClaim>,
    ) -> io::Result<PartState> {
        if matches!(self.location, Location::Memory) {
            self.location = self.create(representation, claim).await?;
        }
        let (data, offset) = (Arc::clone(&self.unwritten), self.written_bytes);
        let is_intact = match &self.location {
            Location::Memory => true,
            Location::Named { part, owner, .. } => {
                let owner = *owner;
                let write = move |part: &NamedPart| part.write(owner, offset, &data);
                part.run_operation(write).await?
            }
            Location::Temporary(path) => {
                let path = path.to_path_buf();
                run_file_operation(move || write_temporary(&path, offset, &data)).await?;
                true
            }
        };
        self.written_bytes += self.unwritten.len() as u64;
        self.unwritten_since = None;
        match Arc::get_mut(&mut self.unwritten) {
            Some(unwritten) => unwritten.clear(),
            None => self.unwritten = Arc::default(),
        }
        Ok(PartState::new(is_intact))
    }

    async fn create(
        &self,
        representation: &Representation,
        claim: Option<&PartClaim>,
    ) -> io::Result<Location> {
        if let (Some(claim), Some(_)) = (claim, &representation.validator) {
            let record = new_record(representation);
            let owner = record.owner;
            let create = move |part: &NamedPart| part.create(&record);
            if claim.part().run_operation(create).await? {
                return Ok(Location::Named {
                    part: Arc::clone(claim.part()),
                    owner,
                    is_owned: true,
                });
            }
        }
        let target = Arc::clone(&self.target);
        let file = run_file_operation(move || create_beside(&target)).await?;
        Ok(Location::Temporary(file.into_temp_path()))
    }

    /// Writes the unwritten data and renames the file to the target. An existing target is
    /// replaced.
    pub(super) async fn persist(&mut self) -> io::Result<PartState> {
        let (data, offset) = (Arc::clone(&self.unwritten), self.written_bytes);
        let target = Arc::clone(&self.target);
        match &self.location {
            Location::Memory => {
                run_file_operation(move || {
                    let mut file = create_beside(&target)?;
                    file.write_all(&data)?;
                    let path = file.into_temp_path();
                    path.persist(&target).map_err(io::Error::from)
                })
                .await?;
                Ok(PartState::Intact)
            }
            Location::Named { part, owner, .. } => {
                let owner = *owner;
                let persist = move |part: &NamedPart| part.persist(owner, offset, &data, &target);
                part.run_operation(persist).await.map(PartState::new)
            }
            Location::Temporary(path) => {
                let path = path.to_path_buf();
                run_file_operation(move || {
                    write_temporary(&path, offset, &data)?;
                    fs::rename(&path, &target)
                })
                .await?;
                Ok(PartState::Intact)
            }
        }
    }

    /// Deletes the file. Errors are ignored, because the next download replaces the file.
    pub(super) async fn discard(self) {
        if let Location::Named { part, owner, .. } = self.location {
            let _ = part.run_operation(move |part| part.discard(owner)).await;
        }
    }
}

fn new_record(representation: &Representation) -> PartRecord {
    PartRecord {
        owner: fastrand::u64(..),
        representation: representation.clone(),
    }
}

/// Creates a temporary file in the directory of `target`. The name of the file does not contain the
/// name of `target`, because that name may already have the maximum length.
fn create_beside(target: &Path) -> io::Result<NamedTempFile> {
    let directory = target.parent().unwrap_or(Path::new(""));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fanout-").suffix(".part").rand_bytes(16);
    // The default of the `tempfile` crate is a file that only its owner can read. Mode 0666 is
    // restricted by the umask, as for other new files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

fn write_temporary(path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    write_at_end(file, offset, data)
}
