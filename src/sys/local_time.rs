//! The offset of local time from UTC, for the time stamps of logs that name no zone.

use std::mem::MaybeUninit;

/// A date and a time of day as a clock on the wall shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// The year, such as 2026.
    pub year: i32,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The minute, 0 to 59.
    pub minute: u8,
    /// The second, 0 to 60.
    pub second: u8,
}

/// Seconds since 1970 of a time in this machine's zone; `None` where the C library cannot say.
#[allow(clippy::useless_conversion)] // time_t has 32 bits on some systems
pub fn unix_seconds(local: CivilTime) -> Option<i64> {
    // SAFETY: `tm` is a C struct of integers and a pointer, for all of which zero is a value.
    let mut fields: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
    fields.tm_year = local.year.checked_sub(1900)?;
    fields.tm_mon = i32::from(local.month) - 1;
    fields.tm_mday = local.day.into();
    fields.tm_hour = local.hour.into();
    fields.tm_min = local.minute.into();
    fields.tm_sec = local.second.into();
    // The zone's rules say whether it is summer.
    fields.tm_isdst = -1;
    // SAFETY: `fields` is valid for reads and writes during the call. The call reads the environment, which this
    // process changes at its start alone.
    let seconds = unsafe { libc::mktime(&raw mut fields) };
    // The library normalises what is out of range, such as 31 February; and -1 is its error.
    (seconds != -1 && fields.tm_mday == i32::from(local.day)).then_some(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_within_a_day_of_utc() {
        let noon = CivilTime { year: 2026, month: 11, day: 30, hour: 12, minute: 0, second: 0 };
        let seconds = unix_seconds(noon).expect("a time");
        assert!((seconds - 1_796_040_000).abs() <= 86_400, "{seconds}");
        assert_eq!(unix_seconds(CivilTime { month: 2, day: 31, ..noon }), None);
    }
}
