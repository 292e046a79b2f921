//! The level of a record, as far as its first words say it.

/// A level, as the console knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warn`
    Warn,
    /// `error`
    Error,
}

/// How much of a line is searched, in bytes, and how many words of it: time, host, program and process stand before the
/// level, and what comes later is the message.
const SEARCHED_BYTES: usize = 96;
const SEARCHED_WORDS: usize = 8;

/// Longest name of a level, in bytes.
const NAME_BYTES_MAX: usize = 9;

impl Level {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"debug" | b"dbg" | b"verbose" => Self::Debug,
            b"info" | b"inf" | b"notice" | b"log" => Self::Info,
            b"warn" | b"warning" | b"wrn" => Self::Warn,
            b"error" | b"err" | b"fatal" | b"critical" | b"crit" | b"panic" | b"emerg" | b"emergency" | b"alert"
            | b"severe" => Self::Error,
            _ => return None,
        })
    }

    /// The level of this number: of syslog (0–7), or of bunyan and pino (10–60).
    pub const fn numbered(number: u64) -> Option<Self> {
        Some(match number {
            0..=3 | 50..=60 => Self::Error,
            4 | 40..=49 => Self::Warn,
            5 | 6 | 30..=39 => Self::Info,
            7 | 10..=29 => Self::Debug,
            _ => return None,
        })
    }

    /// The level that the first words of a line name. A word in lower case within a sentence names none: it stands
    /// first, between brackets, before a colon or behind `level=`.
    pub fn of_line(line: &str) -> Option<Self> {
        let mut end = line.len().min(SEARCHED_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let words = line.get(..end)?.split([' ', '\t', '|', '\n']).filter(|word| !word.is_empty());
        words.take(SEARCHED_WORDS).enumerate().find_map(|(place, word)| of_word(word, place == 0))
    }
}

fn of_word(word: &str, is_first: bool) -> Option<Level> {
    let name = match word.split_once('=') {
        Some(("level" | "lvl" | "severity", value)) => return Level::named(value.trim_matches('"')),
        Some(_) => return None,
        None => word,
    };
    let is_edge = |character: char| !character.is_ascii_alphanumeric();
    // `INFO[0012]`, `[error]`, `<warn>`, `error:`, `(E)`
    let bare = name.trim_start_matches(is_edge);
    let bare = bare.split(is_edge).next()?;
    let is_marked = bare.len() < name.len();
    let is_upper = !bare.bytes().any(|byte| byte.is_ascii_lowercase());
    (is_first || is_marked || is_upper).then(|| Level::named(bare)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_name_the_level() {
        for (line, level) in [
            ("2026-11-30T12:00:00Z ERROR it failed", Some(Level::Error)),
            ("2026-11-30 12:00:00,123 - app - WARNING - careful", Some(Level::Warn)),
            ("[info] listening", Some(Level::Info)),
            ("INFO[0012] ready", Some(Level::Info)),
            ("time=\"x\" level=fatal msg=\"gone\"", Some(Level::Error)),
            ("panic: runtime error", Some(Level::Error)),
            ("2026/11/30 12:00:00 [crit] 7#7: no room", Some(Level::Error)),
            ("TRACE in", Some(Level::Debug)),
            ("warning: unused", Some(Level::Warn)),
            ("there was no error in it", None),
            ("one two three four five six seven eight ERROR", None),
            ("", None),
            ("ééééééééééééééééééééééééééééééééééééééééééééééééééééééé ERROR", None),
        ] {
            assert_eq!(Level::of_line(line), level, "{line}");
        }
    }

    #[test]
    fn numbers_of_syslog_and_pino_are_known() {
        let levels = [0, 4, 6, 7, 10, 20, 30, 40, 50, 60].map(|number| Level::numbered(number).map(Level::as_str));
        let known = ["error", "warn", "info", "debug", "debug", "debug", "info", "warn", "error", "error"];
        assert_eq!(levels, known.map(Some));
        assert_eq!(Level::numbered(99), None);
    }
}
