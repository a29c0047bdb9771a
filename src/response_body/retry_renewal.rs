//! Gives a download that makes progress its full number of retries again.

/// The maximum number of times that a request gets its full number of retries again. This bounds
/// the number of attempts if a server sends only one byte per attempt.
const MAX_RETRY_RENEWALS: u32 = 100;

/// The retries of a download that no longer count towards its retry limit. After an attempt has
/// enlarged the file, none of the earlier retries count.
#[derive(Debug, Default)]
pub(crate) struct RetryRenewal {
    longest_file_length: u64,
    has_file_grown: bool,
    renewal_count: u32,
    uncounted_retry_count: u32,
}

impl RetryRenewal {
    /// Records the length of the file at the end of an attempt, or when an earlier part file is
    /// found.
    pub(super) fn record_file_length(&mut self, length: u64) {
        self.has_file_grown |= length > self.longest_file_length;
        self.longest_file_length = self.longest_file_length.max(length);
    }

    /// If the file has grown since the last call, none of the retries so far count any more.
    /// `charged_retry_count` is the number of retries so far that count towards the retry limit.
    pub(crate) fn renew_if_file_grew(&mut self, charged_retry_count: u32) {
        if std::mem::take(&mut self.has_file_grown) && self.renewal_count < MAX_RETRY_RENEWALS {
            self.renewal_count += 1;
            self.uncounted_retry_count = charged_retry_count;
        }
    }

    /// The number of retries that no longer count towards the retry limit.
    pub(crate) fn uncounted_retry_count(&self) -> u32 {
        self.uncounted_retry_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_longer_file_renews_the_retries() {
        let mut renewal = RetryRenewal::default();
        for (length, charged_retry_count, renewed) in [
            (0, 0, 0),
            (10, 1, 1),
            (10, 2, 1),
            (5, 3, 1),
            (10, 4, 1),
            (11, 5, 5),
        ] {
            renewal.record_file_length(length);
            renewal.renew_if_file_grew(charged_retry_count);
            assert_eq!(renewal.uncounted_retry_count(), renewed, "{length}");
        }
    }

    #[test]
    fn renewals_are_bounded() {
        let mut renewal = RetryRenewal::default();
        for attempt in 1..=2 * MAX_RETRY_RENEWALS {
            renewal.record_file_length(attempt.into());
            renewal.renew_if_file_grew(attempt);
        }
        assert_eq!(renewal.uncounted_retry_count(), MAX_RETRY_RENEWALS);
    }
}
