//! Prints a summary as a table of at most 80 columns.

use std::fmt;
use std::time::Duration;

use super::Summary;
use super::hosts::HostSummary;

const MAX_LINE_WIDTH: usize = 80;
/// The maximum number of hosts that have a row each.
const MAX_HOST_ROWS: usize = 10;
const HOST_COLUMN_WIDTH: usize = 34;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_totals(f)?;
        write_counts(
            f,
            "status",
            self.status_counts()
                .map(|(status, count)| (status.as_u16().to_string(), count)),
        )?;
        write_counts(
            f,
            "errors",
            self.error_counts()
                .map(|(kind, count)| (kind.to_string(), count)),
        )?;
        self.write_times(f)?;
        self.write_hosts(f)
    }
}

impl Summary {
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", count_with_noun(self.requests(), "request"))?;
        if let Some(wall) = self.wall_time() {
            write!(f, " in {}", DisplayDuration(wall))?;
            if !wall.is_zero() {
                write!(f, " ({:.1}/s)", self.requests() as f64 / wall.as_secs_f64())?;
            }
        }
        writeln!(
            f,
            ": {} responses, {} failed",
            format_count(self.responses()),
            format_count(self.failed())
        )?;
        let retries = match self.retries() {
            1 => "1 retry".to_owned(),
            retries => format!("{} retries", format_count(retries)),
        };
        writeln!(
            f,
            "{retries}, {} of bodies, {} on the wire",
            DisplayBytes(self.body_bytes()),
            DisplayDuration(self.wire_time().sum())
        )
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = [
            ("queued", self.queued_time()),
            ("connect", self.connect_time()),
            ("head", self.response_head_time()),
            ("body", self.body_time()),
            ("wire", self.wire_time()),
            ("total", self.total_time()),
        ];
        if phases.iter().all(|(_, histogram)| histogram.count() == 0) {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<12}{:>12}{:>10}{:>10}{:>10}{:>10}",
            "time", "requests", "p50", "p90", "p99", "max"
        )?;
        for (name, histogram) in phases
            .into_iter()
            .filter(|(_, histogram)| histogram.count() > 0)
        {
            let (requests, max) = (
                format_count(histogram.count()),
                DisplayDuration(histogram.max()),
            );
            let [p50, p90, p99] =
                [histogram.p50(), histogram.p90(), histogram.p99()].map(DisplayDuration);
            writeln!(
                f,
                "{name:<12}{requests:>12}{p50:>10}{p90:>10}{p99:>10}{max:>10}"
            )?;
        }
        Ok(())
    }

    fn write_hosts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&HostSummary> = self.hosts().collect();
        if hosts.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<HOST_COLUMN_WIDTH$}{:>10}{:>8}{:>10}{:>9}{:>9}",
            "host", "requests", "failed", "bytes", "p50", "p99"
        )?;
        for host in hosts.iter().take(MAX_HOST_ROWS) {
            let (requests, failed) = (format_count(host.requests()), format_count(host.failed()));
            let [p50, p99] = [host.wire_time().p50(), host.wire_time().p99()].map(DisplayDuration);
            let (name, bytes) = (
                truncated_origin(host.origin()),
                DisplayBytes(host.body_bytes()),
            );
            writeln!(
                f,
                "{name:<HOST_COLUMN_WIDTH$}{requests:>10}{failed:>8}{bytes:>10}{p50:>9}{p99:>9}"
            )?;
        }
        let rest = hosts
            .iter()
            .skip(MAX_HOST_ROWS)
            .copied()
            .chain(self.other_hosts());
        let (requests, failed, bytes) = rest.fold((0, 0, 0), |(requests, failed, bytes), host| {
            (
                requests + host.requests(),
                failed + host.failed(),
                bytes + host.body_bytes(),
            )
        });
        if requests > 0 {
            let (requests, failed, bytes) = (
                format_count(requests),
                format_count(failed),
                DisplayBytes(bytes),
            );
            writeln!(
                f,
                "{:<HOST_COLUMN_WIDTH$}{requests:>10}{failed:>8}{bytes:>10}",
                "all others"
            )?;
        }
        Ok(())
    }
}

/// Writes lines such as `status  200 × 970, 404 × 15`, wrapped at `MAX_LINE_WIDTH` columns.
fn write_counts(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    counts: impl Iterator<Item = (String, u64)>,
) -> fmt::Result {
    let mut line = format!("{name:<8}");
    let mut is_first = true;
    for (label, count) in counts {
        let item = format!("{label} × {}", format_count(count));
        if !is_first {
            line.push(',');
            if line.chars().count() + 2 + item.chars().count() > MAX_LINE_WIDTH {
                writeln!(f, "{line}")?;
                line = " ".repeat(7);
            }
            line.push(' ');
        }
        line.push_str(&item);
        is_first = false;
    }
    if is_first {
        Ok(())
    } else {
        writeln!(f, "{line}")
    }
}

/// Truncates an origin to the width of its column. An origin is ASCII, so one byte fills one
/// column.
fn truncated_origin(origin: &str) -> String {
    if origin.len() < HOST_COLUMN_WIDTH {
        origin.to_owned()
    } else {
        let kept = origin.chars().take(HOST_COLUMN_WIDTH - 2);
        kept.chain(['…']).collect()
    }
}

fn count_with_noun(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", format_count(count))
}

/// Formats 1234567 as `1,234,567`. A count of 10^9 or more does not fit its column and is formatted
/// as `1.23e9`.
fn format_count(count: u64) -> String {
    if count >= 1_000_000_000 {
        return format!("{:.2e}", count as f64);
    }
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats `value` with three significant digits and `unit`.
fn format_three_significant_digits(value: f64, unit: &str) -> String {
    match value {
        ..9.995 => format!("{value:.2} {unit}"),
        ..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

struct DisplayDuration(Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        f.pad(&match nanos {
            0.0 => "0 s".to_owned(),
            ..999.5 => format!("{nanos:.0} ns"),
            ..999.5e3 => format_three_significant_digits(nanos / 1e3, "µs"),
            ..999.5e6 => format_three_significant_digits(nanos / 1e6, "ms"),
            ..99_999.5e9 => format_three_significant_digits(nanos / 1e9, "s"),
            _ => format!("{:.1e} s", nanos / 1e9),
        })
    }
}

struct DisplayBytes(u64);

impl fmt::Display for DisplayBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut value = self.0 as f64;
        if self.0 < 1_000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut unit = "";
        for next in units {
            value /= 1024.0;
            unit = next;
            if value < 999.5 {
                break;
            }
        }
        f.pad(&format_three_significant_digits(value, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_three_digits_and_a_unit() {
        let time = |nanos| DisplayDuration(Duration::from_nanos(nanos)).to_string();
        for (nanos, text) in [
            (0, "0 s"),
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (12_340_000, "12.3 ms"),
            (999_400_000, "999 ms"),
            (999_600_000, "1.00 s"),
            (123_400_000_000, "123 s"),
            (3_600_000_000_000, "3600 s"),
            (u64::MAX, "1.8e10 s"),
        ] {
            assert_eq!(time(nanos), text);
        }
        let bytes = |bytes| DisplayBytes(bytes).to_string();
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_024, "1.00 KiB"),
            (32 << 20, "32.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(format_count(1_234_567), "1,234,567");
        assert_eq!(
            (format_count(12), format_count(123), format_count(1_000)),
            ("12".into(), "123".into(), "1,000".into())
        );
        assert_eq!(format_count(u64::MAX), "1.84e19");
    }
}
