//! Parses the `Expires` date of a cookie with the algorithm of RFC 6265 §5.1.1.
//!
//! Servers write cookie dates in many forms. The algorithm therefore searches the text for a time,
//! a day of the month, a month and a year, and ignores all other parts, such as the time zone: the
//! time is UTC.

use crate::calendar::{days_in_month, days_since_unix_epoch};

const MONTH_ABBREVIATIONS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// Returns the date in seconds since the Unix epoch, or `None` if `text` is not a date.
pub(super) fn parse_cookie_date(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|byte| is_delimiter_byte(*byte)) {
        // A token is tried as a time, a day, a month and a year, in this order. A part that was
        // already found is not tried again.
        if time.is_none()
            && let Some(parsed) = parse_hour_minute_second(token)
        {
            time = Some(parsed);
        } else if day.is_none()
            && let Some((parsed, _)) = parse_leading_number(token, 1..=2)
        {
            day = Some(parsed);
        } else if month.is_none()
            && let Some(parsed) = parse_month(token)
        {
            month = Some(parsed);
        } else if year.is_none()
            && let Some((parsed, _)) = parse_leading_number(token, 2..=4)
        {
            year = Some(parsed);
        }
    }
    let (hour, minute, second) = time?;
    let (day, month) = (day?, month?);
    let year = match year? {
        year @ 70..=99 => 1900 + year,
        year @ 0..=69 => 2000 + year,
        year => year,
    };
    let is_valid = year >= 1601
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    let seconds_of_day = hour * 3600 + minute * 60 + second;
    is_valid.then(|| days_since_unix_epoch(year, month, day) * 86_400 + seconds_of_day)
}

fn is_delimiter_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'/' | b';'..=b'@' | b'['..=b'`' | b'{'..=b'~')
}

/// Parses a time of the form `h:m:s`, in which each number has one or two digits. Text after the
/// seconds is ignored, unless it begins with a digit.
fn parse_hour_minute_second(token: &[u8]) -> Option<(i64, i64, i64)> {
    let (hour, rest) = parse_leading_number(token, 1..=2)?;
    let (minute, rest) = parse_leading_number(rest.strip_prefix(b":")?, 1..=2)?;
    let (second, _) = parse_leading_number(rest.strip_prefix(b":")?, 1..=2)?;
    Some((hour, minute, second))
}

/// Returns the number (1 to 12) of the month whose first three letters the token begins with.
fn parse_month(token: &[u8]) -> Option<i64> {
    let abbreviation = token.get(..3)?.to_ascii_lowercase();
    let index = MONTH_ABBREVIATIONS
        .iter()
        .position(|month| **month == abbreviation)?;
    Some(index as i64 + 1)
}

/// Returns the number at the start of `token` and the text after it. Returns `None` if the number
/// of digits is not in `digits`.
fn parse_leading_number(
    token: &[u8],
    digits: std::ops::RangeInclusive<usize>,
) -> Option<(i64, &[u8])> {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let count = token.iter().take_while(is_digit).count();
    let (number, rest) = token.split_at(count);
    let number = || {
        number
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    digits.contains(&count).then(|| (number(), rest))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// The result in the preferred form of RFC 9110 §5.6.7.
    fn formatted(text: &str) -> Option<String> {
        let seconds = parse_cookie_date(text.as_bytes())?;
        let date = UNIX_EPOCH + std::time::Duration::from_secs(seconds.try_into().unwrap());
        Some(httpdate::fmt_http_date(date))
    }

    fn assert_date(expected: &str, texts: &[&str]) {
        for text in texts {
            assert_eq!(formatted(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    /// The spellings are those of the date tests of the http-state working group.
    #[test]
    fn all_spellings_of_a_date_are_parsed() {
        assert_date(
            "Sat, 15 Apr 2017 21:01:22 GMT",
            &[
                "Sat, 15-Apr-17 21:01:22 GMT",
                "\"Sat, 15-Apr-17\\\"21:01:22\\\"GMT\"",
                "Sat, 15-Apr-17 21:01:22",
                "Sat, 15-Apr-17 21:01:22 GMT-2",
                "Sat, 15-Apr-17 21:01:22 GMT BLAH",
                "Sat, 15-Apr-17 21:01:22 GMT-0400",
                "Sat, 15-Apr-17 21:01:22 GMT-0400 (EDT)",
                "Sat, 15-Apr-17 21:01:22 DST",
                "Sat, 15-Apr-17 21:01:22 -0400",
                "Sat, 15-Apr-17 21:01:22 (hello there)",
                "Sat, 15-Apr-17 21:01:22 11:22:33",
                "Sat, 15-Apr-17 ::00 21:01:22",
                "Sat, 15-Apr-17 boink:z 21:01:22",
                "15-Sat, Apr-17 21:01:22 GMT",
                "15-Sat, Apr 21:01:22 GMT 17",
                "15-Sat, Apr 21:01:22 GMT 2017",
                "15 Apr 21:01:22 2017",
                "15 17 Apr 21:01:22",
                "Apr 15 17 21:01:22",
                "Apr 15 21:01:22 17",
                "2017 April 15 21:01:22",
                "15 April 2017 21:01:22",
            ],
        );
        assert_date(
            "Wed, 18 Apr 2007 22:50:12 GMT",
            &[
                "Wed,18-Apr-07 22:50:12 GMT",
                "WillyWonka  , 18-Apr-07 22:50:12 GMT",
                "WillyWonka  , 18-Apr-07 22:50:12",
                "WillyWonka  ,  18-apr-07   22:50:12",
                "Partyday, 18- April-07 22:50:12",
                "Partyday, 18 - Apri-07 22:50:12",
                "Thu Apr 18 22:50:12 2007 GMT",
                "22:50:12 Thu Apr 18 2007 GMT",
                "Thu 22:50:12 Apr 18 2007 GMT",
                "Thu Apr 22:50:12 18 2007 GMT",
                "Thu Apr 18 2007 22:50:12 GMT",
                "Thu Apr 18 2007 GMT 22:50:12",
            ],
        );
        assert_date(
            "Wed, 01 Jan 2003 00:00:00 GMT",
            &[
                "Wednesday, 1-Jan-2003 00:00:00 GMT",
                ", 1-Jan-2003 00:00:00 GMT",
                " 1-Jan-2003 00:00:00 GMT",
                "1-Jan-2003 00:00:00 GMT",
                "Wednes, 1-Januar-2003 00:00:00 GMT",
            ],
        );
        assert_date(
            "Thu, 19 Apr 2007 16:00:00 GMT",
            &[
                "Thu, 19-Apr-2007 16:00:00 GMT",
                "Thu, 19/Apr\\2007 16:00:00 GMT",
            ],
        );
        assert_date(
            "Mon, 18 Apr 1977 22:50:13 GMT",
            &[
                "Mon, 18-Apr-1977 22:50:13 GMT",
                "Mon, 18-Apr-77 22:50:13 GMT",
            ],
        );
        assert_date(
            "Fri, 01 Jan 2010 00:00:00 GMT",
            &[
                "Wednesday, 01-Jan-10 00:00:00 GMT",
                "Wednesday, 01-Jan-10 0:0:00 GMT",
            ],
        );
        for (expected, text) in [
            (
                "Wed, 25 Apr 2007 21:02:13 GMT",
                "Wed, 25 Apr 2007 21:02:13 GMT",
            ),
            (
                "Fri, 01 Jan 2010 01:01:50 GMT",
                "Fri, 1 Jan 2010 01:01:50 GMT",
            ),
            (
                "Mon, 10 Dec 2007 17:02:24 GMT",
                "Mon, 10-Dec-2007 17:02:24 GMT",
            ),
            (
                "Wed, 09 Dec 2009 16:27:23 GMT",
                "Wed, 09 Dec 2009 16:27:23 GMT",
            ),
            (
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "Thursday, 01-Jan-1970 00:00:00 GMT",
            ),
            (
                "Mon, 10 Dec 2007 16:32:30 GMT",
                "Mon Dec 10 16:32:30 2007 GMT",
            ),
            (
                "Mon, 10 Dec 2007 20:35:03 GMT",
                "Mon, 10-Dec-07 20:35:03 GMT",
            ),
            (
                "Wed, 01 Jan 2020 00:00:00 GMT",
                "Wed, 1 Jan 2020 00:00:00 GMT",
            ),
            (
                "Sat, 08 Dec 2012 21:24:09 GMT",
                "Saturday, 8-Dec-2012 21:24:09 GMT",
            ),
            (
                "Thu, 31 Dec 2037 23:55:55 GMT",
                "Thu, 31 Dec 23:55:55 2037 GMT",
            ),
            (
                "Sun, 09 Dec 2012 13:42:05 GMT",
                "Sun,  9 Dec 2012 13:42:05 GMT",
            ),
            (
                "Wed, 12 Dec 2007 08:44:07 GMT",
                "Wed Dec 12 2007 08:44:07 GMT-0500 (EST)",
            ),
            (
                "Sun, 01 Jan 1995 00:00:00 GMT",
                "Sun, 1-Jan-1995 00:00:00 GMT",
            ),
            (
                "Thu, 10 Dec 2009 13:57:02 GMT",
                "Thu, 10 Dec 2009 13:57:2 GMT",
            ),
            (
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "Sunday, 06-Nov-94 08:49:37 GMT",
            ),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),
            ("Tue, 29 Feb 2000 12:00:00 GMT", "29 Feb 2000 12:00:00"),
            ("Sat, 01 Jan 2000 00:00:00 GMT", "1 Jan 00 00:00:00"),
            ("Tue, 31 Dec 2069 23:59:59 GMT", "31 Dec 69 23:59:59"),
        ] {
            assert_date(expected, &[text]);
        }
        assert_eq!(
            parse_cookie_date(b"1 Jan 1601 0:0:0"),
            Some(-11_644_473_600)
        );
        assert_eq!(
            parse_cookie_date(b"31 Dec 9999 23:59:59"),
            Some(253_402_300_799)
        );
    }

    #[test]
    fn text_without_a_valid_time_day_month_and_year_is_not_a_date() {
        for text in [
            "",
            "IAintNoDateFool",
            "Sat, 15-Apr-17 91:22:33 21:01:22",
            "Mon, 01-Jan-2011 00: 00:00 GMT",
            "98 April 17 21:01:22",
            "Thu, 012-Aug-2008 20:49:07 GMT",
            "Thu, 12-Aug-31841 20:49:07 GMT",
            "Thu, 12-Aug-9999999999 20:49:07 GMT",
            "Thu, 999999999999-Aug-2007 20:49:07 GMT",
            "Thu, 12-Aug-2007 20:61:99999999999 GMT",
            "Thu, 12-Aug-2007 20:61:09 GMT",
            "Thu, 12-Aug-2007 24:00:00 GMT",
            "Thu, 12-Aug-2007 20:49:60 GMT",
            "Thu, 12-Aug-1600 20:49:07 GMT",
            "Thu, 0-Aug-2007 20:49:07 GMT",
            "29 Feb 2100 12:00:00",
            "31 Apr 2020 12:00:00",
            "12-Aug-2007",
            "12-2007 20:49:07",
            "Aug-2007 20:49:07",
            "0",
            "-1",
        ] {
            assert_eq!(parse_cookie_date(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_second_of_the_calendar_is_parsed(seconds in 0..253_402_300_800_u64) {
            let date = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(date);
            proptest::prop_assert_eq!(parse_cookie_date(text.as_bytes()), Some(seconds as i64));
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = parse_cookie_date(&text);
        }
    }
}
