//! Limits on how often requests start.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// A limit on how many requests may start in a period. Starts are spread evenly, with a small
/// burst.
///
/// Each retry and each redirect is a start. The limit is enforced with GCRA (the generic cell rate
/// algorithm of ITU-T I.371), a form of token bucket.
///
/// If the rate permits a start, but the request must wait for a concurrency slot, the next requests
/// start earlier to make up for the delay, by at most two starts. A period thus sees at most the
/// burst, the starts that the rate permits in the period, and two more. At more than 1,000 starts
/// per second, the starts of 2 ms are made up for instead of two.
///
/// `Rate` implements `FromStr` and `Display`, with texts such as `20/s`, `100/min`, `5000/h`,
/// `30/5min` and `20/s burst 5`.
///
/// ```
/// use fanout::Rate;
/// use std::time::Duration;
///
/// let rate: Rate = "100/min".parse()?;
/// assert_eq!(rate, Rate::per_minute(100));
/// assert_eq!(Rate::new(30, Duration::from_secs(300)).burst(5).to_string(), "30/5min burst 5");
/// # Ok::<(), fanout::ParseRateError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    starts_per_period: u32,
    period: Duration,
    burst: Option<u32>,
}

/// The default burst is the number of starts that the rate permits in this time, at least 1.
const DEFAULT_BURST_WINDOW: Duration = Duration::from_millis(10);

/// The units of a period with their nanoseconds, longest unit first. `Display` prints a period in
/// the first unit that divides the period.
const PERIOD_UNITS_WITH_NANOS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Rate {
    /// A rate of `count` starts per second.
    ///
    /// # Panics
    ///
    /// Panics if `count` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_second(count: u32) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// A rate of `count` starts per minute.
    ///
    /// # Panics
    ///
    /// Panics if `count` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_minute(count: u32) -> Self {
        Self::new(count, Duration::from_secs(60))
    }

    /// A rate of `count` starts per hour.
    ///
    /// # Panics
    ///
    /// Panics if `count` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_hour(count: u32) -> Self {
        Self::new(count, Duration::from_secs(3_600))
    }

    /// A rate of `count` starts per `period`.
    ///
    /// # Panics
    ///
    /// Panics if `count` or `period` is zero, or if `period` is 584 years or more.
    #[must_use]
    #[track_caller]
    pub fn new(count: u32, period: Duration) -> Self {
        match Self::try_new(count, period) {
            Ok(rate) => rate,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_new(count: u32, period: Duration) -> Result<Self, ParseRateError> {
        if count == 0 {
            return Err(ParseRateError("a rate of zero would never start anything"));
        }
        if period.is_zero() {
            return Err(ParseRateError("the period of a rate must not be zero"));
        }
        if u64::try_from(period.as_nanos()).is_err() {
            return Err(ParseRateError("the period of a rate is 584 years or more"));
        }
        Ok(Self {
            starts_per_period: count,
            period,
            burst: None,
        })
    }

    /// Sets how many requests may start at once after a time without starts. Default: the number of
    /// requests that may start in 10 ms, at least 1.
    ///
    /// # Panics
    ///
    /// Panics if `burst` is zero.
    #[must_use]
    #[track_caller]
    pub fn burst(self, burst: u32) -> Self {
        assert_ne!(burst, 0, "a burst of zero would never start anything");
        Self {
            burst: Some(burst),
            ..self
        }
    }

    /// The nanoseconds between two starts (the emission interval of GCRA), rounded up so that the
    /// rate is never exceeded.
    pub(crate) fn emission_interval_nanos(&self) -> u64 {
        self.period_nanos().div_ceil(self.starts_per_period.into())
    }

    /// The maximum time, in nanoseconds, by which a start may precede its theoretical arrival time
    /// (the burst tolerance of GCRA).
    pub(crate) fn burst_tolerance_nanos(&self) -> u64 {
        match self.burst {
            Some(burst) => self
                .emission_interval_nanos()
                .saturating_mul(u64::from(burst) - 1),
            None => (DEFAULT_BURST_WINDOW.as_nanos() as u64)
                .saturating_sub(self.emission_interval_nanos()),
        }
    }

    fn period_nanos(&self) -> u64 {
        // The cast is lossless, because `try_new` rejects a period whose nanoseconds exceed a
        // `u64`.
        self.period.as_nanos() as u64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.period_nanos();
        let divides = |(_, unit): &&(&str, u64)| nanos.is_multiple_of(*unit);
        let (name, unit) = PERIOD_UNITS_WITH_NANOS
            .iter()
            .find(divides)
            .unwrap_or(&("ns", 1));
        write!(f, "{}/", self.starts_per_period)?;
        if nanos != *unit {
            write!(f, "{}", nanos / unit)?;
        }
        f.write_str(name)?;
        match self.burst {
            Some(burst) => write!(f, " burst {burst}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    /// Parses `COUNT/UNIT` or `COUNT/NUMBER UNIT`, optionally followed by `burst COUNT`.
    ///
    /// The units are `s`, `sec`, `second`, `min`, `minute`, `h`, `hour`, `d`, `day`, their plurals,
    /// and `ms`, `us`, `ns`. Spaces around the parts are ignored.
    ///
    /// # Errors
    ///
    /// Returns [`ParseRateError`] if the text has another form, a number is zero, or a number is
    /// too large.
    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let (count, rest) = text
            .split_once('/')
            .ok_or(ParseRateError("a rate is written like 20/s or 30/5min"))?;
        let (period, burst) = match rest.split_once("burst") {
            Some((period, burst)) => (period, Some(parse_count(burst)?)),
            None => (rest, None),
        };
        let rate = Self::try_new(parse_count(count)?, parse_period(period.trim())?)?;
        match burst {
            Some(0) => Err(ParseRateError("a burst of zero would never start anything")),
            burst => Ok(Self { burst, ..rate }),
        }
    }
}

fn parse_period(text: &str) -> Result<Duration, ParseRateError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (times, unit) = text.split_at(digits);
    let times = match times {
        "" => 1,
        times => times.parse().map_err(|_| NUMBER_TOO_LARGE_ERROR)?,
    };
    let nanos = parse_unit_to_nanos(unit.trim())?
        .checked_mul(times)
        .ok_or(NUMBER_TOO_LARGE_ERROR)?;
    Ok(Duration::from_nanos(nanos))
}

fn parse_unit_to_nanos(unit: &str) -> Result<u64, ParseRateError> {
    let name = match unit {
        "sec" | "secs" | "second" | "seconds" => "s",
        "mins" | "minute" | "minutes" => "min",
        "hour" | "hours" => "h",
        "day" | "days" => "d",
        "m" => return Err(ParseRateError("\"m\" may be minutes or months; write min")),
        name => name,
    };
    let known = PERIOD_UNITS_WITH_NANOS
        .iter()
        .find(|(known, _)| *known == name);
    known.map(|(_, nanos)| *nanos).ok_or(ParseRateError(
        "the unit of a rate is one of s, min, h, d, ms, us, ns",
    ))
}

fn parse_count(text: &str) -> Result<u32, ParseRateError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseRateError(
            "the numbers of a rate are whole numbers, like 20/s",
        ));
    }
    text.parse().map_err(|_| NUMBER_TOO_LARGE_ERROR)
}

const NUMBER_TOO_LARGE_ERROR: ParseRateError = ParseRateError("a number in the rate is too large");

/// The error of parsing a [`Rate`]. `Display` prints why the text is invalid.
///
/// ```
/// let error = "fast".parse::<fanout::Rate>().unwrap_err();
/// assert_eq!(error.to_string(), "a rate is written like 20/s or 30/5min");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseRateError(&'static str);

/// Converts to [`ErrorKind::InvalidRequest`], so that `?` works in functions that return
/// [`fanout::Result`](crate::Result).
impl From<ParseRateError> for Error {
    fn from(error: ParseRateError) -> Self {
        Self::new(ErrorKind::InvalidRequest, error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_notations_parse() {
        let seconds = Duration::from_secs;
        for (text, rate) in [
            ("20/s", Rate::per_second(20)),
            ("20/sec", Rate::per_second(20)),
            (" 20 / 1 seconds ", Rate::per_second(20)),
            ("100/min", Rate::per_minute(100)),
            ("100/minute", Rate::per_minute(100)),
            ("5000/h", Rate::per_hour(5000)),
            ("5000/24hours", Rate::new(5000, seconds(86_400))),
            ("1/day", Rate::new(1, seconds(86_400))),
            ("30/5min", Rate::new(30, seconds(300))),
            ("3/250ms", Rate::new(3, Duration::from_millis(250))),
            ("20/s burst 5", Rate::per_second(20).burst(5)),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn invalid_text_is_rejected_with_a_reason() {
        for (text, why) in [
            ("", "written like"),
            ("20", "written like"),
            ("/s", "whole numbers"),
            ("-1/s", "whole numbers"),
            ("+1/s", "whole numbers"),
            ("1.5/s", "whole numbers"),
            ("0/s", "zero"),
            ("1/0s", "zero"),
            ("5/m", "write min"),
            ("5/", "unit"),
            ("5/week", "unit"),
            ("5/s/s", "unit"),
            ("5/-1s", "unit"),
            ("5/s burst", "whole numbers"),
            ("5/s burst 0", "burst of zero"),
            ("4294967296/s", "too large"),
            ("1/99999999999999999999s", "too large"),
            ("1/9999999999d", "too large"),
        ] {
            let reason = text.parse::<Rate>().unwrap_err().to_string();
            assert!(reason.contains(why), "{text:?}: {reason}");
        }
    }

    #[test]
    fn display_uses_the_longest_unit_that_divides_the_period() {
        for (rate, text) in [
            (Rate::per_second(20), "20/s"),
            (Rate::per_minute(100), "100/min"),
            (Rate::per_hour(5000), "5000/h"),
            (Rate::new(5, Duration::from_secs(90)), "5/90s"),
            (Rate::new(5, Duration::from_secs(86_400)), "5/d"),
            (Rate::new(5, Duration::from_millis(1500)), "5/1500ms"),
        ] {
            assert_eq!(rate.to_string(), text);
        }
    }

    #[test]
    fn default_burst_covers_10_milliseconds() {
        for (rate, interval, tolerance) in [
            (Rate::per_second(1), 1_000_000_000, 0),
            (Rate::per_second(100), 10_000_000, 0),
            (Rate::per_second(150), 6_666_667, 3_333_333),
            (Rate::per_second(1_000), 1_000_000, 9_000_000),
            (Rate::per_second(1_000).burst(1), 1_000_000, 0),
            (Rate::per_second(20).burst(10), 50_000_000, 450_000_000),
            (Rate::new(u32::MAX, Duration::from_nanos(1)), 1, 9_999_999),
        ] {
            assert_eq!(
                (rate.emission_interval_nanos(), rate.burst_tolerance_nanos()),
                (interval, tolerance),
                "{rate}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "rate of zero")]
    fn zero_count_panics() {
        let _ = Rate::per_second(0);
    }

    #[test]
    #[should_panic(expected = "period of a rate must not be zero")]
    fn zero_period_panics() {
        let _ = Rate::new(1, Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "burst of zero")]
    fn zero_burst_panics() {
        let _ = Rate::per_second(1).burst(0);
    }

    proptest! {
        #[test]
        fn display_and_from_str_round_trip(
            count in 1..=u32::MAX,
            nanos in prop_oneof![1..=u64::MAX, (1..1_000u64).prop_map(|n| n * 1_000_000_000)],
            burst in prop::option::of(1..=u32::MAX),
        ) {
            let rate = Rate { burst, ..Rate::new(count, Duration::from_nanos(nanos)) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn parsing_never_panics(text in ".*|[0-9]{0,25} ?/ ?[0-9]{0,25} ?[a-z]{0,4}( burst [0-9]+)?") {
            let _ = text.parse::<Rate>();
        }

        #[test]
        fn emission_interval_never_exceeds_the_rate(count in 1..=u32::MAX, nanos in 1..=u64::MAX) {
            let rate = Rate::new(count, Duration::from_nanos(nanos));
            prop_assert!(u128::from(rate.emission_interval_nanos()) * u128::from(count) >= u128::from(nanos));
            let _ = rate.burst(u32::MAX).burst_tolerance_nanos();
        }
    }
}
