//! Timings of one hop.

use std::time::Duration;

use crate::hop_clock::{HopClock, Phase};
use crate::schedule::Time;
use crate::timings::Timings;

#[derive(Default)]
pub(super) struct HopStats {
    pub(super) timings: Timings,
    /// The part of the wire time that counts towards the total timeout.
    pub(super) wire_time_for_total_timeout: Duration,
    /// Whether any byte of the request may have reached the server.
    pub(super) maybe_sent: bool,
}

impl HopStats {
    /// Measures a hop that ends now. The time since the last timestamp is attributed to the current
    /// phase.
    pub(super) fn measure_hop(
        clock: &HopClock,
        queued_at: Time,
        hop_started_at: Time,
        now: Time,
    ) -> Self {
        let (phase, timestamps) = (clock.phase(), clock.timestamps());
        let end_of = |ended: Phase, timestamp| {
            if phase == ended {
                now.as_nanos()
            } else {
                timestamp
            }
        };
        let connected = end_of(Phase::Connect, timestamps.connected_at);
        let response_head = end_of(Phase::ResponseHead, timestamps.response_head_at).max(connected);
        let between = |start: u64, end: u64| Duration::from_nanos(end.saturating_sub(start));
        let timings = Timings::new(
            Duration::from_nanos(
                hop_started_at.nanos_since(queued_at) + clock.in_hop_queue_wait_nanos(),
            ),
            between(timestamps.started_at, connected),
            between(connected, response_head),
            between(response_head, now.as_nanos()),
        );
        let uncounted = match phase {
            Phase::Streaming => timings.body(),
            _ => clock.pause_time_without_queue_waits(),
        };
        Self {
            timings,
            wire_time_for_total_timeout: timings.wire().saturating_sub(uncounted),
            maybe_sent: clock.maybe_sent(),
        }
    }
}
