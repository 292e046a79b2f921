use super::*;
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::BUDGET_BYTES;
use proptest::prelude::*;

const SIZE: Size = Size { cols: 20, rows: 5 };

struct Stage {
    scrollback: Scrollback,
    screens: Screens,
    budget: Rc<Budget>,
}

fn stage(output: &[u8]) -> Stage {
    let budget = Rc::new(Budget::new());
    let mut scrollback = Scrollback::new(SessionKey(1), budget.clone());
    scrollback.append(output);
    Stage { scrollback, screens: Screens::new(SIZE), budget }
}

impl Stage {
    fn make(&mut self, from: u64) -> Made {
        self.screens.make(&self.scrollback, from, None)
    }

    fn keep(&mut self) {
        self.screens.keep(&self.scrollback, &self.budget);
    }

    /// What a terminal shows that gets the snapshot and what follows it.
    fn shown(&mut self, from: u64) -> (Screen, bool) {
        let made = self.make(from);
        let mut screen = Screen::new(SIZE);
        screen.feed(&made.bytes);
        self.scrollback.each_slice(made.at, self.scrollback.held().end, |bytes| screen.feed(bytes));
        (screen, made.exact)
    }
}

fn screen(output: &[u8]) -> Screen {
    let mut screen = Screen::new(SIZE);
    screen.feed(output);
    screen
}

#[test]
fn unit_that_is_held_as_a_whole_goes_before_the_snapshot() {
    for (sent, rest) in [
        (b"\x1b[3".as_slice(), b"1m".as_slice()),
        (b"\x1b", b"[c"),
        (b"\x1b]0;t", b"itle\x07"),
        (b"\x1b]52;c;aG", b"k=\x1b\\"),
        (b"\xe2\x82", b"\xac"),
        (b"\xc2", b"\x9b1m"),
        (b"\x1bPq", b"#0\x1b\\"),
    ] {
        let mut stage = stage(&[b"a", sent, rest, b"b"].concat());
        let made = stage.make(1 + sent.len() as u64);
        assert_eq!(made.at, 1 + (sent.len() + rest.len()) as u64, "{:?}", sent.escape_ascii());
        assert_eq!(made.bytes, screen(&[b"a", sent, rest].concat()).snapshot(true));
    }
}

#[test]
fn snapshot_ends_with_the_beginning_of_a_unit_without_an_end() {
    let long = [b"\x1b]2;".as_slice(), &[b'x'; STRING_BYTES_MAX]].concat();
    for (sent, tail) in [
        (b"\x1b[3".as_slice(), b"\x1b[3".as_slice()),
        (b"\x1b", b"\x1b"),
        (b"\x1b(", b"\x1b("),
        (b"\x1b[3\x07\x05", b"\x1b[3"),
        (b"\x1b[3\r\n\x07\t;", b"\x1b[3\r\n\t;"),
        (b"\x1b\r\n\r\n", b"\x1b\r\n\r\n"),
        (b"\x1b]2;t\r\n", b"\x1b]2;t"),
        (b"\xe2\x82", b"\xe2\x82"),
        (b"\xc2", b"\xc2"),
        (b"\x1b]2;tit", b"\x1b]2;tit"),
        (b"\x1b]8;;http://a\x1b", b"\x1b]8;;http://a\x1b"),
        (b"\xc2\x9d0;t", b"\xc2\x9d0;t"),
        (b"\x1b]1", b"\x1b]9999;"),
        (b"\x1b]52;c;aGk=", b"\x1b]9999;"),
        (b"\x1b]52;c;aGk=\x1b", b"\x1b"),
        (b"\x1bP$q", b"\x1bX"),
        (&long, b"\x1b]9999;"),
        (b"\xff", b""),
        (b"\xd3\xd3", b"\xd3"),
        (b"\xd3\xd3\xd3\xd3", b"\xd3"),
        (b"\xc2\xc2\xc2\x1b]1", b"\x1b]9999;"),
    ] {
        let mut stage = stage(&[b"a", sent].concat());
        let made = stage.make(1 + sent.len() as u64);
        assert_eq!(made.at, 1 + sent.len() as u64);
        // Bytes that are no character, and beginnings that are never completed.
        let is_invalid = |byte: &&u8| matches!(byte, 0xff | 0xd3) || sent.starts_with(b"\xc2\xc2") && **byte == 0xc2;
        let shown = sent.iter().filter(is_invalid).count() - tail.iter().filter(is_invalid).count();
        let before = screen(format!("a{}", "\u{fffd}".repeat(shown)).as_bytes());
        assert_eq!(made.bytes, [before.snapshot(true), tail.to_vec()].concat(), "{:?}", sent.escape_ascii());
    }
}

#[test]
fn snapshot_is_for_the_size_that_is_asked_for() {
    let mut stage = stage(b"1\r\n2\r\n3\r\n4 and more");
    stage.screens.resized(stage.scrollback.held().end, Size { cols: 40, rows: 9 });
    stage.scrollback.append(b" than twenty columns");
    let size = Size { cols: 10, rows: 2 };
    let made = stage.screens.make(&stage.scrollback, stage.scrollback.held().end, Some(size));
    assert_eq!(made.bytes, b"\x1bc1\r\n2\r\n3\r\n4 and more\x1b[2;10H", "columns are cut");
}

#[test]
fn kept_screen_stands_for_output_that_is_gone() {
    let drawn = b"$ \x1b[1;31mold\x1b[m\x1b[?2004h\x1b[?1049hdrawn once";
    let mut stage = stage(drawn);
    stage.keep();
    assert!(stage.budget.granted() > Budget::new().granted());
    let more: Vec<u8> = (0..9_999).flat_map(|line| format!("\x1b[2;1H{line:06}").into_bytes()).collect();
    stage.scrollback.append(&more);
    stage.keep();
    stage.scrollback.append(&more);
    stage.scrollback.append(&more[..60_000]);
    let end = stage.scrollback.held().end;
    assert!(stage.scrollback.held().start > drawn.len() as u64);
    let (shown, exact) = stage.shown(end);
    let whole = [drawn, &*more, &more, &more[..60_000]].concat();
    assert_eq!((shown.difference(&screen(&whole)), exact), (None, true));
    assert!(stage.screens.is_alternate);
    stage.scrollback.append(&more.repeat(2));
    let (_, exact) = stage.shown(stage.scrollback.held().end);
    assert!(!exact, "the kept screen is older than the output that is held");
    stage.keep();
    assert!(stage.screens.kept.is_none(), "only what is known is kept");
    assert_eq!(stage.budget.granted() - stage.budget.scrollback_granted(SessionKey(1)), Budget::new().granted());
}

#[test]
fn stream_goes_on_to_the_kept_screen_where_that_is_known_alone() {
    let mut stage = stage(b"\x1b[?1047hdrawn once");
    stage.keep();
    stage.scrollback.append(&b"\x1b[2;1Hmore".repeat(40_000));
    let sent = stage.scrollback.held().end;
    stage.scrollback.append(b"\x1b[H\x1b[2Jdrawn again");
    stage.screens.kept = None;
    stage.scrollback.append(b"\x1b[?1047l\x1b[m\x1b[H\x1b[2J$ ");
    stage.keep();
    let kept_at = stage.scrollback.held().end;
    stage.scrollback.append(b"ls");
    let made = stage.make(sent);
    assert_eq!((made.at, made.exact), (kept_at, true));
    assert!(!stage.screens.is_alternate);
}

#[test]
fn nothing_is_kept_without_memory_or_beyond_the_bound() {
    let mut stage = stage(b"text");
    let left = BUDGET_BYTES - stage.budget.granted();
    assert!(stage.budget.grant(Use::Captured, left));
    stage.keep();
    assert!(stage.screens.kept.is_none());
    stage.budget.release(Use::Captured, left);
    let size = Size { cols: 300, rows: 100 };
    stage.screens.resized(0, size);
    stage.scrollback.append(&b"many words ".repeat(2_000));
    stage.keep();
    assert!(stage.screens.kept.is_none());
}

#[test]
fn without_its_beginning_a_screen_is_shown_from_a_line_on() {
    let mut stage = stage(b"\x1b]0;title\x07\x1b[?2004h\x1b[33m");
    let lines: Vec<u8> = (0..40_000).flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
    stage.scrollback.append(&lines);
    let (shown, exact) = stage.shown(stage.scrollback.held().end);
    assert!(exact, "a flood draws everything again");
    let whole = [b"\x1b]0;title\x07\x1b[?2004h\x1b[33m".as_slice(), &lines].concat();
    assert_eq!(shown.difference(&screen(&whole)), None);
    stage.scrollback.append(&b"\x1b[3;3Hx\x08y".repeat(40_000));
    assert!(!stage.make(stage.scrollback.held().end).exact);
}

#[test]
fn saved_cursor_of_output_that_is_gone_is_unknown() {
    for saves in ["\x1b7", "\x1b[s", "\x1b[?25;1048h", "\x1b[?1049h\x1b[?1049l"] {
        let mut stage = stage(saves.as_bytes());
        stage.scrollback.append(&b"line\r\n".repeat(50_000));
        assert!(!stage.make(stage.scrollback.held().end).exact, "{saves:?}");
        stage.scrollback.append(b"\x1b[H\x1b[s\r\n");
        assert!(stage.make(stage.scrollback.held().end).exact, "{saves:?}");
    }
}

#[test]
fn middle_of_a_string_is_not_shown() {
    let mut stage = stage(&[b"\x1b]52;c;".as_slice(), &[b'A'; 300 << 10]].concat());
    let made = stage.make(stage.scrollback.held().end);
    assert_eq!(made.bytes, b"\x1bc\r\n\r\n\r\n\r\n\x1b[5;1H\x1b]9999;");
    stage.scrollback.append(b"A\x07text");
    let made = stage.make(stage.scrollback.held().end);
    assert_eq!(made.bytes, b"\x1bc\r\n\r\n\r\n\r\ntext\x1b[5;5H");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn snapshot_and_the_rest_show_what_was_printed(
        parts in prop::collection::vec(prop::sample::select(vec![
            "text", "é", "界", "\r\n", "\x1b[31m", "\x1b[5;5H", "\x1b[2J", "\x1b]0;title\x07", "\x1b[?1049h",
            "\x1b[?1049l", "\x1b7", "\x1b8", "\u{9b}1m", "\x1b[K", "\x1bM", "\x1b]8;;http://a\x1b\\",
        ]), 0..60),
        sent in any::<prop::sample::Index>(), kept in any::<prop::sample::Index>(),
    ) {
        let output = parts.concat().into_bytes();
        let mut stage = stage(output.get(..kept.index(output.len() + 1)).expect("within"));
        stage.keep();
        stage.scrollback.append(output.get(kept.index(output.len() + 1)..).expect("within"));
        let (shown, exact) = stage.shown(sent.index(output.len() + 1) as u64);
        prop_assert!(exact);
        prop_assert_eq!(shown.difference(&screen(&output)), None);
    }
}
