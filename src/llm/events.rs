//! Server-sent events (HTML standard, section 9.2), as far as they matter here: the data, and where an event ends.

/// How far it has come in the lines of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lines {
    /// So many bytes of `data:` have come.
    Begun(usize),
    /// In the data of a line.
    Data,
    /// In a line that is no data.
    Other,
    /// After a CR: a line begins, unless an LF belongs to it.
    AfterCr,
    /// Where a line begins.
    #[default]
    Start,
}

/// What a piece holds.
pub(super) enum Part<'a> {
    /// Data of the event.
    Data(&'a [u8]),
    /// The event is over.
    End,
}

const FIELD: &[u8] = b"data:";

impl Lines {
    /// Gives the data of the next piece, and the ends of events, to `take`.
    pub(super) fn feed(&mut self, piece: &[u8], mut take: impl FnMut(Part<'_>)) {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            let is_end = matches!(byte, b'\n' | b'\r');
            (*self, rest) = match *self {
                Self::AfterCr if *byte == b'\n' => (Self::Start, after),
                Self::AfterCr => (Self::Start, rest),
                Self::Start if is_end => {
                    take(Part::End);
                    (Self::of_end(*byte), after)
                }
                Self::Start => (Self::Begun(0), rest),
                Self::Begun(_) | Self::Other if is_end => (Self::of_end(*byte), after),
                Self::Begun(count) if FIELD.get(count) == Some(byte) => {
                    (if count + 1 == FIELD.len() { Self::Data } else { Self::Begun(count + 1) }, after)
                }
                Self::Begun(_) => (Self::Other, after),
                Self::Other => (Self::Other, rest.get(end_of_line(rest)..).unwrap_or_default()),
                Self::Data => {
                    let (data, tail) = rest.split_at(end_of_line(rest));
                    take(Part::Data(data));
                    match tail.split_first() {
                        None => (Self::Data, tail),
                        Some((end, after)) => {
                            // Lines of one event belong together; within JSON the break is a blank.
                            take(Part::Data(b"\n"));
                            (Self::of_end(*end), after)
                        }
                    }
                }
            };
        }
    }

    fn of_end(byte: u8) -> Self {
        if byte == b'\r' { Self::AfterCr } else { Self::Start }
    }
}

/// Where the line ends, in bytes; behind the piece where it does not.
fn end_of_line(rest: &[u8]) -> usize {
    memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
}
