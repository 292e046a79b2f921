//! A shell as its user sees it: echo, size, keys, jobs, exit codes, environment.

use crate::support;
use crate::support::{Agent, Setup};
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};

/// A console, an agent, and what a user types.
struct Desk {
    console: Console,
    agent: Agent,
}

impl Desk {
    fn new() -> Desk {
        let console = Console::start(Personality::production());
        let agent = Agent::spawn(&console, &[("SHELL", "/bin/bash")]);
        Desk { console, agent }
    }

    /// Opens a shell without line editing, so that only the terminal echoes.
    fn open(&self, session: &str) -> &Desk {
        self.console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
        self
    }

    fn line(&self, session: &str, line: &str) -> &Desk {
        self.console.browser().input(session, format!("{line}\n").as_bytes());
        self
    }

    fn sees(&self, session: &str, text: &str) -> &Desk {
        self.console.wait_text(session, text);
        self
    }

    fn closed(&self, session: &str) -> (Value, Value) {
        let closed = self.console.closed(session);
        (closed["exit_code"].clone(), closed["reason"].clone())
    }
}

#[test]
fn typed_line_is_echoed_and_run() {
    let desk = Desk::new();
    desk.open("s").line("s", "echo $((6 * 7))").sees("s", "echo $((6 * 7))\r\n").sees("s", "42\r\n");
    let stream = desk.console.stream("s");
    assert_eq!((stream.gaps.len(), stream.repeated_bytes, stream.unnumbered_bytes), (0, 0, 0));
    desk.agent.drain();
}

#[test]
fn size_is_that_of_the_window() {
    let desk = Desk::new();
    desk.console.browser().create("default", 0, 0).create("s", 132, 43);
    desk.line("default", "stty size").sees("default", "24 80\r\n");
    desk.line("s", "stty size").sees("s", "43 132\r\n");
    desk.line("s", "trap 'echo \"now $(stty size)\"' WINCH; echo trap''ped").sees("s", "trapped\r\n");
    desk.console.browser().resize("s", 100, 30);
    desk.line("s", "").sees("s", "now 30 100\r\n");
    // The agent ignores invalid sizes and clamps large ones.
    let resize = |cols: Value, rows: Value| {
        let payload = json!({"session_id": "s", "cols": cols, "rows": rows});
        desk.console.browser().send(&json!({"protocol_version": "1.0", "type": "terminal:resize", "payload": payload}));
    };
    resize(json!("wide"), json!(10));
    resize(json!(70_000), json!(20.6));
    desk.line("s", "stty size").sees("s", "65535");
}

#[test]
fn control_c_interrupts_and_control_d_ends() {
    let desk = Desk::new();
    desk.open("s").line("s", "sh -c \"echo rea''dy; exec sleep 100\"").sees("s", "ready\r\n");
    desk.console.browser().input("s", b"\x03");
    desk.line("s", "echo \"status $?\"").sees("s", "status 130\r\n");
    desk.console.browser().input("s", b"\x04");
    assert_eq!(desk.closed("s").1, "exited");
}

#[test]
fn exit_is_reported_with_code_or_signal() {
    let desk = Desk::new();
    desk.open("zero").line("zero", "exit");
    desk.open("seven").line("seven", "exit 7");
    desk.open("term").line("term", "kill -KILL $$");
    assert_eq!(desk.closed("zero"), (json!(0), json!("exited")));
    assert_eq!(desk.closed("seven"), (json!(7), json!("exited")));
    assert_eq!(desk.closed("term"), (json!(137), json!("exited")));
}

#[test]
fn jobs_are_controlled() {
    let desk = Desk::new();
    desk.console.browser().create("s", 80, 24);
    // The prompt counts the commands: a key pressed before the prompt could be lost or go to another program.
    desk.line("s", "PS1='<\\#>'").sees("s", "<2>");
    desk.line("s", "sh -c \"echo rea''dy; exec sleep 100\"").sees("s", "ready\r\n");
    desk.console.browser().input("s", b"\x1a");
    desk.sees("s", "Stopped").sees("s", "<3>");
    desk.line("s", "bg; echo in ba''ck").sees("s", "in back\r\n").sees("s", "<4>");
    desk.line("s", "kill %1; wait; sh -c \"trap 'echo contin''ued' CONT; echo read''ing; while :; do read x; done\"");
    desk.sees("s", "reading\r\n");
    desk.console.browser().input("s", b"\x1a");
    // It is continued once it has the terminal again.
    desk.sees("s", "<5>").line("s", "fg").sees("s", "continued\r\n");
    desk.console.browser().input("s", b"\x03");
    desk.sees("s", "<6>").line("s", "echo jobs do''ne").sees("s", "jobs done\r\n");
}

#[test]
fn the_default_shell_is_a_login_shell_at_home() {
    let desk = Desk::new();
    desk.console.browser().create("s", 80, 24);
    desk.line("s", "shopt -q login_shell && echo \"<$0|$TERM|$COLORTERM|$PWD|$SHELL>\"");
    let home = desk.agent.home().path().display().to_string();
    desk.sees("s", &format!("<-bash|xterm-256color|truecolor|{home}|/bin/bash>\r\n"));
}

#[test]
fn terminal_without_locale_gets_utf8() {
    let locale = |variables: &[(&str, &str)]| {
        let console = Console::start(Personality::production());
        let agent = Agent::spawn(&console, variables);
        console.browser().create_with("s", &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
        console.browser().input("s", b"stty -echo; PS1=; echo \"<$LC_ALL|$LC_CTYPE|$LANG|$(locale charmap)>\"; exit\n");
        console.closed("s");
        agent.kill();
        let text = console.stream("s").text().into_owned();
        text.get(text.rfind('<').expect("it was printed")..).expect("a place").trim_end().to_owned()
    };
    assert_eq!(locale(&[("LANG", "")]), "<||C.UTF-8|UTF-8>");
    assert!(locale(&[("LC_ALL", "C")]).starts_with("<C|||"));
    assert!(locale(&[("LC_CTYPE", "C")]).starts_with("<|C||"));
    assert!(locale(&[("LANG", "C")]).starts_with("<||C|"));
}

#[test]
fn shell_of_a_service_account_is_replaced_and_logged() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SHELL", "/bin/false")]);
    agent.wait_log(|line| line["message"].as_str().is_some_and(|text| text.starts_with("SHELL is /bin/false")));
    console.browser().create("s", 80, 24).input("s", b"exit 3\n");
    assert_eq!(console.closed("s")["exit_code"], 3);
    agent.drain();
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_SHELL", "/bin/false")]);
    console.on(2).frame("heartbeat");
    console.browser().create("t", 80, 24);
    assert_eq!(console.closed("t")["exit_code"], 1);
    agent.drain();
}

#[test]
fn the_key_is_nowhere_to_be_found() {
    let desk = Desk::new();
    let key = desk.console.key();
    desk.open("s").line("s", "env; echo env do''ne").sees("s", "env done\r\n");
    desk.line("s", "tr '\\0' '\\n' </proc/$PPID/environ; echo environ do''ne").sees("s", "environ done\r\n");
    desk.line("s", "tr '\\0' '\\n' </proc/self/environ; echo own do''ne").sees("s", "own done\r\n");
    let text = desk.console.stream("s").text().into_owned();
    assert!(text.contains("SINDRI_CONSOLE_URL="), "both environments were shown: {text}");
    assert!(!text.contains(&key) && !text.contains("SINDRI_CONSOLE_API_KEY=d"), "{text}");
}

#[test]
fn an_agent_started_by_nohup_gives_ordinary_shells() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console);
    let program = support::agent_program();
    let line = "trap '' INT HUP QUIT TERM PIPE USR1; exec \"$@\"";
    let agent = setup.program("/bin/sh").arg("-c").arg(line).arg("sh").arg(program).spawn();
    console.browser().create_with("s", &json!({"shell": "/bin/bash"}));
    console.browser().input("s", b"exec grep -E '^Sig(Ign|Blk)' /proc/self/status\n");
    console.closed("s");
    let text = console.stream("s").text().into_owned();
    assert!(text.contains("SigIgn:\t0000000000000000") && text.contains("SigBlk:\t0000000000000000"), "{text}");
    agent.kill();
}

#[test]
fn no_descriptor_of_the_agent_reaches_a_shell() {
    let desk = Desk::new();
    desk.open("other").line("other", "echo op''en").sees("other", "open\r\n");
    desk.open("s").line("s", "exec ls -l /proc/self/fd");
    desk.console.closed("s");
    let text = desk.console.stream("s").text().into_owned();
    let open: Vec<&str> = text.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(open.len(), 4, "the terminal three times, and the directory: {text}");
    assert_eq!(open.iter().filter(|line| line.contains("/dev/pts/")).count(), 3, "{text}");
}

#[test]
fn failed_shell_start_gives_the_reason() {
    let desk = Desk::new();
    let create = |session: &str, shell: &str| {
        desk.console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": shell}));
        let closed = desk.console.closed(session);
        assert_eq!(closed["reason"], "spawn_failed");
        (closed["exit_code"].clone(), desk.console.stream(session).text().into_owned())
    };
    assert_eq!(create("none", "/no/such/shell"), (json!(127), "/no/such/shell: not found\r\n".to_owned()));
    let (code, text) = create("data", "/etc/passwd");
    assert_eq!(code, 126);
    assert!(text.starts_with("/etc/passwd: Permission denied") && text.ends_with("\r\n"), "{text}");
    let event = desk.console.event("error");
    assert!(event.payload()["message"].as_str().is_some_and(|text| text.contains("/no/such/shell")), "{event:?}");
}

#[test]
fn invalid_terminal_frames_do_no_harm() {
    let desk = Desk::new();
    desk.open("s").line("s", "echo be''fore").sees("s", "before\r\n");
    let send = |kind: &str, payload: Value| {
        desk.console.browser().send(&json!({"protocol_version": "1.0", "type": kind, "payload": payload}));
    };
    send("terminal:input", json!({"session_id": "s", "data": "not base64!"}));
    send("terminal:input", json!({"session_id": "s", "data": 7}));
    send("terminal:input", json!({"session_id": "unknown", "data": "bHM="}));
    send("terminal:resize", json!({"session_id": "unknown", "cols": 10, "rows": 10}));
    send("terminal:close", json!({"session_id": "unknown"}));
    send("terminal:close", json!({}));
    desk.line("s", "echo af''ter").sees("s", "after\r\n");
    assert_eq!(desk.console.frames("terminal:closed").len(), 0);
    desk.agent.drain();
}
