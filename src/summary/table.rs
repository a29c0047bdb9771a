//! A summary as text, no wider than 80 columns.

use std::fmt;
use std::time::Duration;

use super::{HostSummary, Summary};

const WIDTH: usize = 80;
/// Of the hosts so many are shown.
const HOSTS: usize = 10;
const HOST_WIDTH: usize = 34;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        list(
            f,
            "status",
            self.statuses()
                .map(|(status, count)| (status.as_u16().to_string(), count)),
        )?;
        list(
            f,
            "errors",
            self.errors().map(|(kind, count)| (kind.to_string(), count)),
        )?;
        self.times(f)?;
        self.table_of_hosts(f)
    }
}

impl Summary {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", counted(self.requests(), "request"))?;
        if let Some(wall) = self.wall() {
            write!(f, " in {}", Time(wall))?;
            if !wall.is_zero() {
                write!(f, " ({:.1}/s)", self.requests() as f64 / wall.as_secs_f64())?;
            }
        }
        writeln!(
            f,
            ": {} answered, {} failed",
            grouped(self.answered()),
            grouped(self.failed())
        )?;
        let retries = match self.retries() {
            1 => "1 retry".to_owned(),
            retries => format!("{} retries", grouped(retries)),
        };
        writeln!(
            f,
            "{retries}, {} of bodies, {} on the wire",
            Bytes(self.bytes()),
            Time(self.wire().sum())
        )
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = [
            ("queued", self.queued()),
            ("connect", self.connect()),
            ("first byte", self.first_byte()),
            ("body", self.body()),
            ("wire", self.wire()),
            ("total", self.total()),
        ];
        if phases.iter().all(|(_, spread)| spread.count() == 0) {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<12}{:>12}{:>10}{:>10}{:>10}{:>10}",
            "time", "requests", "p50", "p90", "p99", "max"
        )?;
        for (name, spread) in phases.into_iter().filter(|(_, spread)| spread.count() > 0) {
            let (requests, max) = (grouped(spread.count()), Time(spread.max()));
            let [p50, p90, p99] = [spread.p50(), spread.p90(), spread.p99()].map(Time);
            writeln!(
                f,
                "{name:<12}{requests:>12}{p50:>10}{p90:>10}{p99:>10}{max:>10}"
            )?;
        }
        Ok(())
    }

    fn table_of_hosts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&HostSummary> = self.hosts().collect();
        if hosts.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<HOST_WIDTH$}{:>10}{:>8}{:>10}{:>9}{:>9}",
            "host", "requests", "failed", "bytes", "p50", "p99"
        )?;
        for host in hosts.iter().take(HOSTS) {
            let (requests, failed) = (grouped(host.requests()), grouped(host.failed()));
            let [p50, p99] = [host.wire().p50(), host.wire().p99()].map(Time);
            let (name, bytes) = (shortened(host.origin()), Bytes(host.bytes()));
            writeln!(
                f,
                "{name:<HOST_WIDTH$}{requests:>10}{failed:>8}{bytes:>10}{p50:>9}{p99:>9}"
            )?;
        }
        let rest = hosts.iter().skip(HOSTS).copied().chain(self.other_hosts());
        let (requests, failed, bytes) = rest.fold((0, 0, 0), |(requests, failed, bytes), host| {
            (
                requests + host.requests(),
                failed + host.failed(),
                bytes + host.bytes(),
            )
        });
        if requests > 0 {
            let (requests, failed, bytes) = (grouped(requests), grouped(failed), Bytes(bytes));
            writeln!(
                f,
                "{:<HOST_WIDTH$}{requests:>10}{failed:>8}{bytes:>10}",
                "all others"
            )?;
        }
        Ok(())
    }
}

/// `name  200 × 970, 404 × 15`, on as many lines as it takes.
fn list(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    counts: impl Iterator<Item = (String, u64)>,
) -> fmt::Result {
    let mut line = format!("{name:<8}");
    let mut is_first = true;
    for (what, count) in counts {
        let item = format!("{what} × {}", grouped(count));
        if !is_first {
            line.push(',');
            if line.chars().count() + 2 + item.chars().count() > WIDTH {
                writeln!(f, "{line}")?;
                line = " ".repeat(7);
            }
            line.push(' ');
        }
        line.push_str(&item);
        is_first = false;
    }
    match is_first {
        true => Ok(()),
        false => writeln!(f, "{line}"),
    }
}

/// An origin is ASCII; what is cut off is its end.
fn shortened(origin: &str) -> String {
    match origin.len() < HOST_WIDTH {
        true => origin.to_owned(),
        false => origin.chars().take(HOST_WIDTH - 2).chain(['…']).collect(),
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count))
}

/// 1234567 as 1,234,567; from 10^9 on, which no column holds, as 1.23e9.
fn grouped(count: u64) -> String {
    if count >= 1_000_000_000 {
        return format!("{:.2e}", count as f64);
    }
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits and a unit.
fn three_digits(value: f64, unit: &str) -> String {
    match value {
        ..9.995 => format!("{value:.2} {unit}"),
        ..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        f.pad(&match nanos {
            0.0 => "0 s".to_owned(),
            ..999.5 => format!("{nanos:.0} ns"),
            ..999.5e3 => three_digits(nanos / 1e3, "µs"),
            ..999.5e6 => three_digits(nanos / 1e6, "ms"),
            ..99_999.5e9 => three_digits(nanos / 1e9, "s"),
            _ => format!("{:.1e} s", nanos / 1e9),
        })
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
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
        f.pad(&three_digits(value, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let time = |nanos| Time(Duration::from_nanos(nanos)).to_string();
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
        let bytes = |bytes| Bytes(bytes).to_string();
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_024, "1.00 KiB"),
            (32 << 20, "32.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(
            (grouped(12), grouped(123), grouped(1_000)),
            ("12".into(), "123".into(), "1,000".into())
        );
        assert_eq!(grouped(u64::MAX), "1.84e19");
    }
}
