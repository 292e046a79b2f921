//! The grammar of terminal output: splits it into text, control characters, control sequences and strings (ECMA-48).
//!
//! It knows where each begins and ends, not what it means. It takes bytes as they come, cut anywhere, and its state has
//! a fixed size. A C1 control counts in its UTF-8 form (U+0080–U+009F) and stands for its pair of ESC and a letter. A
//! byte 0x80–0x9F outside a character is not UTF-8, and no control.

use memchr::{memchr2, memchr3};

/// The longest control sequence that has a meaning, in bytes between `ESC [` and its last: some dozen colours.
const SEQUENCE_BYTES_MAX: u16 = 256;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;

/// The first byte of U+0080–U+00BF. It continues no character.
pub(super) const C1_LEAD: u8 = 0xC2;

/// What one byte completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Nothing that takes effect.
    Nothing,
    /// A byte of a character.
    Text(u8),
    /// A control character, which takes effect within a sequence, too, and does not end it.
    Control(u8),
    /// The beginning of a control sequence or a string.
    Begin,
    /// A byte of a control sequence before its last, or of a string.
    Part(u8),
    /// An escape sequence with this last byte.
    Escape(u8),
    /// A control sequence (`ESC [`) with this last byte.
    Sequence(u8),
    /// An operating system command (`ESC ]`) with its terminator.
    Command,
}

/// Where the parser is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// In text.
    #[default]
    Ground,
    /// Behind ESC.
    Escape,
    /// Behind ESC and an intermediate byte, such as the one that names a slot for a character set.
    Intermediate,
    /// Behind `ESC [`.
    Sequence,
    /// In a string.
    String(Kind),
    /// Behind an ESC that ends a string if `\` follows, and breaks it off if not.
    StringEscape(Kind),
}

/// A kind of string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Operating system command; BEL ends it, too.
    Command,
    /// Device control, application, privacy message, or start of string.
    Other,
}

/// All states, in the order of their numbers in a saved one.
const STATES: [State; 8] = [
    State::Ground,
    State::Escape,
    State::Intermediate,
    State::Sequence,
    State::String(Kind::Command),
    State::String(Kind::Other),
    State::StringEscape(Kind::Command),
    State::StringEscape(Kind::Other),
];

/// What a control or escape sequence holds besides its last byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    /// `?`, `>`, `<` or `=` before everything else; 0 without.
    pub(super) marker: u8,
    /// The byte 0x20–0x2F behind the numbers; 0 without.
    pub(super) intermediate: u8,
    /// It is too long, or a byte stands where no terminal expects it: there is no agreed meaning for it.
    pub(super) malformed: bool,
    /// How many bytes were read.
    length: u16,
}

impl Sequence {
    fn take(&mut self, byte: u8) {
        let is_first = self.length == 0;
        self.length = self.length.saturating_add(1);
        self.malformed |= self.length > SEQUENCE_BYTES_MAX;
        match byte {
            b'0'..=b';' => self.malformed |= self.intermediate != 0,
            b' '..=b'/' if self.intermediate == 0 => self.intermediate = byte,
            b'<'..=b'?' if is_first => self.marker = byte,
            _ => self.malformed = true,
        }
    }
}

/// Reads output. `Default` is a terminal that has read nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    state: State,
    sequence: Sequence,
    /// The last byte was [`C1_LEAD`].
    after_lead: bool,
}

impl Parser {
    /// Its state as bytes, for [`restore`](Self::restore).
    pub(super) fn save(&self) -> Vec<u8> {
        let Sequence { marker, intermediate, malformed, length } = self.sequence;
        let state = STATES.iter().position(|state| *state == self.state).and_then(|state| u8::try_from(state).ok());
        let [low, high] = length.to_le_bytes();
        [state.unwrap_or_default(), marker, intermediate, malformed.into(), self.after_lead.into(), low, high].to_vec()
    }

    /// A parser in this state; `None` for bytes that are none.
    pub(super) fn restore(saved: &[u8]) -> Option<Self> {
        let [state, marker, intermediate, malformed @ 0..2, after_lead @ 0..2, low, high] = *saved else { return None };
        let length = u16::from_le_bytes([low, high]);
        Some(Self {
            state: *STATES.get(usize::from(state))?,
            sequence: Sequence { marker, intermediate, malformed: malformed == 1, length },
            after_lead: after_lead == 1,
        })
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Whether the next byte begins a character, a control or a sequence.
    pub(super) fn is_in_text(&self) -> bool {
        self.state == State::Ground && !self.after_lead
    }

    /// The marker and the intermediate byte of the last sequence, and whether it has no agreed meaning.
    pub(super) const fn kind(&self) -> (u8, u8, bool) {
        (self.sequence.marker, self.sequence.intermediate, self.sequence.malformed)
    }

    /// How many of the next bytes are certain to complete nothing.
    pub(super) fn skippable(&self, bytes: &[u8]) -> usize {
        match self.state {
            _ if self.after_lead => 0,
            State::Ground => memchr2(ESC, C1_LEAD, bytes).unwrap_or(bytes.len()),
            State::String(_) => {
                let end = memchr3(ESC, BEL, CANCEL, bytes).unwrap_or(bytes.len());
                memchr2(SUBSTITUTE, C1_LEAD, bytes.get(..end).unwrap_or_default()).unwrap_or(end)
            }
            State::Escape | State::Intermediate | State::Sequence | State::StringEscape(_) => 0,
        }
    }

    /// Reads one byte.
    pub(super) fn step(&mut self, byte: u8) -> Token {
        let after_lead = std::mem::replace(&mut self.after_lead, byte == C1_LEAD);
        if after_lead && matches!(byte, 0x80..=0x9F) {
            self.escape_begins();
            return self.plain_step(byte - 0x40);
        }
        self.plain_step(byte)
    }

    fn plain_step(&mut self, byte: u8) -> Token {
        match (byte, self.state) {
            (ESC, _) => {
                self.escape_begins();
                Token::Nothing
            }
            (CANCEL | SUBSTITUTE, _) => self.end(Token::Nothing),
            (BEL, State::String(Kind::Command)) => self.end(Token::Command),
            (0..0x20, State::String(_)) => Token::Nothing,
            (_, State::String(_)) => Token::Part(byte),
            (0..0x20, _) => Token::Control(byte),
            (0x7f, _) => Token::Nothing,
            (_, State::Ground) => Token::Text(byte),
            (b'\\', State::StringEscape(kind)) => self.end(match kind {
                Kind::Command => Token::Command,
                Kind::Other => Token::Nothing,
            }),
            (b'[', State::Escape | State::StringEscape(_)) => self.begin(State::Sequence),
            (b']', State::Escape | State::StringEscape(_)) => self.begin(State::String(Kind::Command)),
            (b'P' | b'X' | b'^' | b'_', State::Escape | State::StringEscape(_)) => {
                self.begin(State::String(Kind::Other))
            }
            (b' '..=b'/', State::Escape | State::StringEscape(_) | State::Intermediate) => {
                self.state = State::Intermediate;
                self.sequence.take(byte);
                Token::Nothing
            }
            // As the model of a terminal reads it.
            (0x80.., State::Escape | State::StringEscape(_) | State::Intermediate) => Token::Nothing,
            (_, State::Escape | State::StringEscape(_) | State::Intermediate) => self.end(Token::Escape(byte)),
            (0x40..=0x7e, State::Sequence) => self.end(Token::Sequence(byte)),
            (_, State::Sequence) => {
                self.sequence.take(byte);
                Token::Part(byte)
            }
        }
    }

    fn escape_begins(&mut self) {
        self.sequence = Sequence::default();
        self.state = match self.state {
            State::String(kind) => State::StringEscape(kind),
            State::Ground | State::Escape | State::Intermediate | State::Sequence | State::StringEscape(_) => {
                State::Escape
            }
        };
    }

    fn begin(&mut self, state: State) -> Token {
        self.state = state;
        Token::Begin
    }

    fn end(&mut self, token: Token) -> Token {
        self.state = State::Ground;
        token
    }
}
