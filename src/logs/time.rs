//! The time of a record, as far as its first words say it: RFC 3339, ISO 8601 without a zone, or syslog.
//!
//! Times are integer milliseconds since 1970. A time before 2000 or more than a day ahead of `now` is clamped: the
//! console sorts by it. Dates without a zone are local; dates without a year are of the year that makes them recent.

use crate::sys::local_time::{CivilTime, unix_seconds};

/// The first millisecond of 2000: no log is older.
pub const TIME_MS_MIN: i64 = 946_684_800_000;

/// How far a time may be ahead of the clock, in milliseconds: zones differ by less than a day.
const AHEAD_MS_MAX: i64 = DAY_MS;

const DAY_MS: i64 = 86_400_000;

/// How much of a line is searched for the beginning of a time, in bytes: a level, a bracket or `time=` may stand before
/// it.
const SEARCHED_BYTES: usize = 48;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The offset of local time, as it was found last: lines of one file are mostly of one quarter of an hour.
#[derive(Debug, Default)]
pub struct Zone {
    /// A time of day whose minutes and seconds are cut to a quarter, and its seconds since 1970.
    known: Option<(CivilTime, i64)>,
}

impl Zone {
    fn local_ms(&mut self, time: CivilTime, millis: i64) -> Option<i64> {
        const QUARTER_MINUTES: u8 = 15;
        let begin = CivilTime { minute: time.minute / QUARTER_MINUTES * QUARTER_MINUTES, second: 0, ..time };
        let seconds = match self.known {
            Some((known, seconds)) if known == begin => seconds,
            _ => {
                let seconds = unix_seconds(begin)?;
                self.known = Some((begin, seconds));
                seconds
            }
        };
        let rest = i64::from(time.minute - begin.minute) * 60 + i64::from(time.second);
        Some((seconds + rest) * 1_000 + millis)
    }
}

/// The time that a line names near its beginning, clamped; `None` where it names none.
pub fn of_line(line: &str, now_ms: i64, zone: &mut Zone) -> Option<i64> {
    let bytes = line.as_bytes();
    let is_start = |at: usize| at == 0 || bytes.get(at - 1).is_some_and(|byte| !byte.is_ascii_alphanumeric());
    let starts = (0..bytes.len().min(SEARCHED_BYTES)).filter(|at| is_start(*at));
    // Its first byte decides quickly for almost all places.
    let times = starts.filter_map(|at| bytes.get(at..)).find_map(|rest| match rest.first()? {
        b'0'..=b'9' => iso(rest, zone),
        b'A'..=b'S' => syslog(rest, now_ms, zone),
        _ => None,
    });
    times.map(|ms| clamped(ms, now_ms))
}

/// A time as a field of a JSON line holds it: a text as above, or a number of seconds, milliseconds, microseconds or
/// nanoseconds since 1970.
pub fn of_json(value: &serde_json::Value, now_ms: i64, zone: &mut Zone) -> Option<i64> {
    match value {
        serde_json::Value::String(text) => of_line(text, now_ms, zone),
        serde_json::Value::Number(number) => {
            let number = number.as_f64().filter(|number| *number > 0.0)?;
            // Seconds up to the year 5138, milliseconds from 1973 on, and so on.
            let ms = match number {
                ..1e11 => number * 1e3,
                ..1e14 => number,
                ..1e17 => number / 1e3,
                _ => number / 1e6,
            };
            #[allow(clippy::cast_possible_truncation)] // a cast saturates, and the result is clamped
            Some(clamped(ms as i64, now_ms))
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }
}

/// A time within what the console is sent.
pub(super) fn clamped(ms: i64, now_ms: i64) -> i64 {
    ms.min(now_ms.saturating_add(AHEAD_MS_MAX)).max(TIME_MS_MIN)
}

/// `2026-11-30T12:00:00.123Z`, with a blank, a slash or a comma in the usual places, with an offset or without.
fn iso(bytes: &[u8], zone: &mut Zone) -> Option<i64> {
    let year = digits(bytes, 0, 4)?;
    let separator = *bytes.get(4).filter(|byte| matches!(byte, b'-' | b'/'))?;
    let month = digits(bytes, 5, 2)?;
    (*bytes.get(7)? == separator).then_some(())?;
    let day = digits(bytes, 8, 2)?;
    matches!(bytes.get(10)?, b'T' | b't' | b' ' | b'_').then_some(())?;
    let (hour, minute, second) = time_of_day(bytes.get(11..)?)?;
    let time = civil(year, month, day, (hour, minute, second))?;
    let mut rest = bytes.get(19..)?;
    let mut millis = 0;
    if let [b'.' | b',', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut scale = 100;
        for digit in fraction.iter().take(length) {
            millis += i64::from(digit - b'0') * scale;
            scale /= 10;
        }
        rest = fraction.get(length..)?;
    }
    match rest {
        [b'Z' | b'z', ..] => Some(utc_ms(time) + millis),
        [sign @ (b'+' | b'-'), offset @ ..] => match offset_seconds(offset) {
            Some(seconds) => Some(utc_ms(time) + millis - if *sign == b'+' { seconds } else { -seconds } * 1_000),
            None => zone.local_ms(time, millis),
        },
        _ => zone.local_ms(time, millis),
    }
}

/// `hh:mm`, `hhmm` or `hh`, in seconds.
fn offset_seconds(bytes: &[u8]) -> Option<i64> {
    let hours = digits(bytes, 0, 2).filter(|hours| *hours <= 15)?;
    let minutes = match bytes.get(2) {
        Some(b':') => digits(bytes, 3, 2)?,
        Some(byte) if byte.is_ascii_digit() => digits(bytes, 2, 2)?,
        _ => 0,
    };
    (minutes < 60).then_some(i64::from(hours) * 3_600 + i64::from(minutes) * 60)
}

/// `Nov 30 12:00:00`, local, of the year that makes it recent.
fn syslog(bytes: &[u8], now_ms: i64, zone: &mut Zone) -> Option<i64> {
    let name = bytes.get(..3)?;
    let month = (1..).zip(MONTHS).find_map(|(number, month)| (month == name).then_some(number))?;
    (*bytes.get(3)? == b' ').then_some(())?;
    let day = match bytes.get(4)? {
        b' ' => digits(bytes, 5, 1)?,
        _ => digits(bytes, 4, 2)?,
    };
    (*bytes.get(6)? == b' ').then_some(())?;
    let time = time_of_day(bytes.get(7..)?)?;
    let year = year_of(now_ms.saturating_add(AHEAD_MS_MAX));
    // 29 February needs a leap year, and what would be in the future is of the last year.
    (0..4).find_map(|back| {
        let ms = zone.local_ms(civil(year.checked_sub(back)?, month, day, time)?, 0)?;
        (ms <= now_ms.saturating_add(AHEAD_MS_MAX)).then_some(ms)
    })
}

/// `hh:mm:ss`
fn time_of_day(bytes: &[u8]) -> Option<(u32, u32, u32)> {
    let time = (digits(bytes, 0, 2)?, digits(bytes, 3, 2)?, digits(bytes, 6, 2)?);
    (bytes.get(2) == Some(&b':') && bytes.get(5) == Some(&b':')).then_some(time)
}

fn digits(bytes: &[u8], from: usize, count: usize) -> Option<u32> {
    bytes
        .get(from..from + count)?
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

fn civil(year: u32, month: u32, day: u32, (hour, minute, second): (u32, u32, u32)) -> Option<CivilTime> {
    let is_time = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (1900..=9999).contains(&year);
    is_time.then_some(())?;
    let small = |number: u32| u8::try_from(number).ok();
    Some(CivilTime {
        year: i32::try_from(year).ok()?,
        month: small(month)?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
    })
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Milliseconds since 1970 of a time in UTC.
fn utc_ms(time: CivilTime) -> i64 {
    let seconds = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(time.second);
    days_since_1970(time.year.into(), time.month.into(), time.day.into()) * DAY_MS + seconds * 1_000
}

/// Days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": `days_from_civil`).
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn year_of(ms: i64) -> u32 {
    let days = ms.div_euclid(DAY_MS);
    // A guess that is off by one at most.
    let guess = 1970 + days / 365;
    let year = (guess - 30..=guess).rev().find(|year| days_since_1970(*year, 1, 1) <= days).unwrap_or(guess);
    u32::try_from(year).unwrap_or(1970)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// 2026-11-30T12:00:00Z
    const NOW_MS: i64 = 1_796_040_000_000;

    fn time(line: &str) -> Option<i64> {
        of_line(line, NOW_MS, &mut Zone::default())
    }

    fn local(year: i32, month: u8, day: u8, hour: u8) -> i64 {
        let time = CivilTime { year, month, day, hour, minute: 0, second: 0 };
        unix_seconds(time).expect("a time") * 1_000
    }

    #[test]
    fn times_with_a_zone_are_exact() {
        for line in [
            "2026-11-30T12:00:00Z started",
            "[2026-11-30T13:00:00.000+01:00] started",
            "INFO 2026-11-30 07:00:00-0500 started",
            "time=\"2026-11-30T12:00:00Z\" level=info",
            "<34>1 2026-11-30T12:00:00.000000Z host program - - -",
        ] {
            assert_eq!(time(line), Some(NOW_MS), "{line}");
        }
        assert_eq!(time("2026-11-30T11:59:59.1239Z"), Some(NOW_MS - 877));
    }

    #[test]
    fn times_without_a_zone_are_local() {
        let expected = local(2026, 11, 30, 9);
        assert_eq!(time("2026-11-30 09:00:00,250 x"), Some(expected + 250));
        assert_eq!(time("2026/11/30 09:00:00 [error]"), Some(expected));
        assert_eq!(time("Nov 30 09:00:00 host sshd[7]: x"), Some(expected));
        assert_eq!(time("Dec  5 09:00:00 host x"), Some(local(2025, 12, 5, 9)), "of the last year");
        let mut zone = Zone::default();
        for minute in 0..60_u8 {
            let line = format!("2026-11-30 09:{minute:02}:07 x");
            let expected = expected + i64::from(minute) * 60_000 + 7_000;
            assert_eq!(of_line(&line, NOW_MS, &mut zone), Some(expected), "{line}");
        }
    }

    #[test]
    fn times_out_of_bounds_are_clamped_and_others_are_none() {
        assert_eq!(time("1999-01-01T00:00:00Z"), Some(TIME_MS_MIN));
        assert_eq!(time("2099-01-01T00:00:00Z"), Some(NOW_MS + DAY_MS));
        for line in ["", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-30", "Nov 31 00:00:00", "1.2.3"] {
            assert_eq!(time(line), None, "{line}");
        }
    }

    #[test]
    fn numbers_of_any_unit_are_times() {
        let found = |value| of_json(&value, NOW_MS, &mut Zone::default());
        assert_eq!(found(json!(1_796_040_000)), Some(NOW_MS));
        assert_eq!(found(json!(1_796_040_000.5)), Some(NOW_MS + 500));
        assert_eq!(found(json!(1_796_040_000_000_u64)), Some(NOW_MS));
        assert_eq!(found(json!(1_796_040_000_000_000_u64)), Some(NOW_MS));
        assert_eq!(found(json!(1_796_040_000_000_000_000_u64)), Some(NOW_MS));
        assert_eq!(found(json!("2026-11-30T12:00:00Z")), Some(NOW_MS));
        assert_eq!((found(json!(-1)), found(json!(null))), (None, None));
    }

    proptest! {
        /// humantime knows the same calendar.
        #[test]
        fn every_moment_of_this_century_is_read_back(seconds in 946_684_800u64..4_102_444_800) {
            let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let text = humantime::format_rfc3339_seconds(moment).to_string();
            let ms = i64::try_from(seconds).expect("it fits") * 1_000;
            prop_assert_eq!(of_line(&text, i64::MAX, &mut Zone::default()), Some(ms));
            prop_assert_eq!(year_of(ms).to_string(), text[..4].to_owned());
        }
    }
}
