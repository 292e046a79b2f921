//! How a dispatched command runs: as a shell line or a program, with input, variables and directory; and which exit
//! code each end gives.

use crate::support::{Agent, Setup};
use data_encoding::BASE64;
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};

fn start() -> (Console, Agent) {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    (console, agent)
}

/// Dispatches a command and waits for its result.
#[track_caller]
fn run(console: &Console, id: &str, fields: &Value) -> Value {
    console.browser().dispatch_with(id, fields);
    console.result(id)
}

/// A program and its arguments.
fn program(program: &str, arguments: &[&str]) -> Value {
    json!({"command": program, "args": arguments})
}

#[test]
fn a_line_without_arguments_is_for_the_shell() {
    let (console, agent) = start();
    let home = agent.home().path();
    for name in ["b.txt", "a.txt"] {
        std::fs::write(home.join(name), name).expect("the home is writable");
    }
    let result = console.browser().run("cat ~/*.txt | tr a-z A-Z; pwd; echo err >&2; exit 3");
    assert_eq!(result["stdout"], format!("A.TXTB.TXT{}\n", home.display()));
    assert_eq!(result["stderr"], "err\n");
    assert_eq!(result["exit_code"], 3);
    assert!(result["duration_ms"].is_u64(), "{result}");
    let empty = run(&console, "empty list", &json!({"command": "echo a | cat", "args": []}));
    assert_eq!(empty["stdout"], "a\n");
    for field in ["timed_out", "cancelled", "stdout_truncated", "stderr_truncated", "reason"] {
        assert_eq!(empty[field], Value::Null, "{field} says something unusual");
    }
    agent.drain();
}

#[test]
fn arguments_are_left_alone() {
    let (console, agent) = start();
    let result = run(&console, "c", &program("printf", &["%s|", "a b", "\"c'", "$HOME", "*", "~", "\\n", ""]));
    assert_eq!(result["stdout"], "a b|\"c'|$HOME|*|~|\\n||");
    agent.drain();
}

#[test]
fn a_script_arrives_on_standard_input_and_nowhere_else() {
    let (console, agent) = start();
    let mut script = String::from("echo \"${SINDRI_SCRIPT_B64-unset} $FLAVOUR\"\n");
    while script.len() < 64 << 10 {
        script.push_str(&format!("total=$((total + {}))\n", script.len() % 7));
    }
    script.push_str("echo lines $total; exit 6\n");
    let entry = format!("SINDRI_SCRIPT_B64={}", BASE64.encode(script.as_bytes()));
    let fields = json!({"command": "/bin/bash", "args": ["-s"], "env": [entry, "FLAVOUR=sweet"]});
    let result = run(&console, "script", &fields);
    let total: usize = script
        .lines()
        .filter_map(|line| line.strip_prefix("total=$((total + ")?.strip_suffix("))")?.parse::<usize>().ok())
        .sum();
    assert_eq!(result["stdout"], format!("unset sweet\nlines {total}\n"));
    assert_eq!(result["exit_code"], 6);
    let result = console.browser().run("wc -c");
    assert_eq!(result["stdout"].as_str().map(str::trim), Some("0"), "without a script the input is empty");
    agent.drain();
}

#[test]
fn environment_has_the_payload_and_no_secret() {
    let console = Console::start(Personality::production());
    let agent = Setup::new(&console).env("FLAVOUR", "sweet").env("COLOUR", "red").spawn();
    let fields = json!({"command": "env", "args": ["--"], "env": ["COLOUR=blue", "EMPTY=", "SUM=1+1=2"]});
    let result = run(&console, "env", &fields);
    let text = result["stdout"].as_str().expect("text");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(value("FLAVOUR"), Some("sweet"));
    assert_eq!(value("COLOUR"), Some("blue"));
    assert_eq!((value("EMPTY"), value("SUM")), (Some(""), Some("1+1=2")));
    assert_eq!(value("HOME"), agent.home().path().to_str());
    assert_eq!(value("SINDRI_CONSOLE_API_KEY"), None);
    assert!(!text.contains(&console.key()));
    agent.drain();
}

#[test]
fn a_variable_named_like_the_key_is_the_payloads() {
    let (console, agent) = start();
    let fields =
        json!({"command": "echo \"$SINDRI_CONSOLE_API_KEY\"", "env": ["SINDRI_CONSOLE_API_KEY=from the payload"]});
    assert_eq!(run(&console, "named", &fields)["stdout"], "from the payload\n");
    assert_eq!(
        console.browser().run("echo \"[$SINDRI_CONSOLE_API_KEY]\"")["stdout"],
        "[]\n",
        "it is that command's only"
    );
    agent.drain();
}

#[test]
fn malformed_variables_are_named_and_nothing_runs() {
    let (console, agent) = start();
    let fields = json!({"command": "touch ~/ran", "env": ["GOOD=1", "NOVALUE", "=x"]});
    let result = run(&console, "malformed", &fields);
    let reason = result["stderr"].as_str().expect("text");
    assert!(reason.contains("\"NOVALUE\"") && reason.contains("\"…\""), "named, but for a value: {reason}");
    assert_ne!(result["exit_code"], 0);
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

#[test]
fn working_directory_is_home_or_the_named_one() {
    let (console, agent) = start();
    let home = agent.home().path().display().to_string();
    assert_eq!(console.browser().run("pwd; echo $PWD")["stdout"], format!("{home}\n{home}\n"));
    let named = run(&console, "named", &json!({"command": "pwd", "working_dir": "/usr/bin/.."}));
    assert_eq!(named["stdout"], "/usr\n");
    let missing = run(&console, "missing", &json!({"command": "touch ~/ran", "working_dir": "/no/such"}));
    assert_eq!(missing["exit_code"], 126);
    assert!(missing["stderr"].as_str().is_some_and(|text| text.contains("/no/such")), "{missing}");
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

#[test]
fn exit_code_shows_exit_or_signal() {
    let (console, agent) = start();
    for (line, code) in [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(console.browser().run(line)["exit_code"], code, "{line}");
    }
    let plain = agent.home().path().join("plain");
    std::fs::write(&plain, "no program").expect("the home is writable");
    let plain = plain.to_str().expect("text");
    let interpreter = agent.home().path().join("script");
    std::fs::write(&interpreter, "#!/no/such/interpreter\n").expect("the home is writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&interpreter, mode).expect("ours");
    let interpreter = interpreter.to_str().expect("text");
    let cases = [
        ("no-such-program", 127, "not found"),
        ("/no/such/program", 127, "not found"),
        (plain, 126, "ermission denied"),
        ("/usr", 126, "ermission denied"),
        (interpreter, 126, "interpreter"),
    ];
    for (name, code, why) in cases {
        let result = run(&console, name, &program(name, &["x"]));
        assert_eq!(result["exit_code"], code, "{result}");
        let reason = result["stderr"].as_str().expect("text");
        assert!(reason.contains(name) && reason.contains(why), "{reason}");
    }
    let line = console.browser().run("no-such-program");
    assert_eq!(line["exit_code"], 127);
    assert!(line["stderr"].as_str().is_some_and(|text| text.contains("not found")));
    agent.drain();
}

#[test]
#[cfg(target_os = "linux")]
fn command_has_own_session_signals_and_descriptors() {
    let (console, agent) = start();
    let result = run(&console, "self", &program("cat", &["/proc/self/stat", "/proc/self/status"]));
    let text = result["stdout"].as_str().expect("text");
    let fields: Vec<&str> = text.rsplit_once(") ").map_or(text, |(_, rest)| rest).split(' ').collect();
    let pid = text.split(' ').next().expect("its number");
    let (group, session, terminal) = (fields.get(2), fields.get(3), fields.get(4));
    assert_eq!((group, session, terminal), (Some(&pid), Some(&pid), Some(&"0")));
    for mask in ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:"] {
        let value = text.lines().find_map(|line| line.strip_prefix(mask)).expect("a mask").trim();
        // The C library reserves the two signals behind 32 and may block or catch them.
        let mask_of = u64::from_str_radix(value, 16).expect("hexadecimal");
        assert_eq!(mask_of & 0x7fff_ffff, 0, "{mask} {value}");
    }
    let listed = run(&console, "descriptors", &program("ls", &["-l", "/proc/self/fd"]));
    let listed = listed["stdout"].as_str().expect("text");
    // Its three standard descriptors, and the directory that it reads.
    assert_eq!(listed.matches(" -> ").count(), 4, "{listed}");
    assert!(listed.contains(" 0 -> /dev/null"), "{listed}");
    agent.drain();
}

#[test]
fn unreadable_dispatch_gets_a_result_or_an_event() {
    let (console, agent) = start();
    let wrong = [
        json!({"command": 7}),
        json!({"command": null}),
        json!({}),
        json!({"command": ["ls"]}),
        json!({"command": "touch ~/ran", "args": "x"}),
        json!({"command": "touch", "args": ["ran", 1]}),
        json!({"command": "touch ~/ran", "args": {}}),
        json!({"command": "touch ~/ran", "env": {"A": "1"}}),
        json!({"command": "touch ~/ran", "env": [1]}),
        json!({"command": "touch ~/ran", "env": "A=1"}),
        json!({"command": "touch ~/ran", "env": ["SINDRI_SCRIPT_B64=%%%"]}),
        json!({"command": "touch ~/ran", "timeout_ms": "soon"}),
        json!({"command": "touch ~/ran", "timeout_ms": [1]}),
        json!({"command": "touch ~/ran", "working_dir": 5}),
        json!({"command": "touch ~/ran", "stream": "yes"}),
        json!({"command": "touch ~/ran\u{0}"}),
    ];
    for (number, fields) in wrong.iter().enumerate() {
        let result = run(&console, &format!("wrong {number}"), fields);
        assert_ne!(result["exit_code"], 0, "{fields} gave {result}");
        assert_eq!(result["reason"], "invalid", "{fields} gave {result}");
        assert_ne!(result["stderr"], "", "{fields} gave {result}");
    }
    let long = "x".repeat(129);
    for id in [json!(null), json!(7), json!(""), json!(long), json!(["id"]), json!({})] {
        let before = console.from_now();
        let payload = json!({"command_id": id, "command": "touch ~/ran"});
        console.browser().send(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": payload}));
        // The first one causes an event. The agent sends the same error at most once a minute.
        if id.is_null() {
            before.event("error");
        }
    }
    let longest = "é".repeat(128);
    assert_eq!(run(&console, &longest, &json!({"command": "echo fine"}))["stdout"], "fine\n");
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

#[test]
fn shell_line_longer_than_an_argument_runs() {
    let (console, agent) = start();
    const ARGUMENT_BYTES_MAX: usize = 131_071;
    let end = "; echo \"$0 $# ${1-none}\" 'ü'; exit 3";
    for bytes in [ARGUMENT_BYTES_MAX, ARGUMENT_BYTES_MAX + 1, 3 * ARGUMENT_BYTES_MAX, 600_000] {
        // Two-byte characters from an odd offset on, so that one of them lies across the cut.
        let room = bytes - ":  ".len() - end.len();
        let line = format!(":  {}{}{end}", "x".repeat(room % 2), "é".repeat(room / 2));
        assert_eq!(line.len(), bytes);
        let result = run(&console, &bytes.to_string(), &json!({"command": line}));
        assert_eq!((&result["stdout"], &result["exit_code"]), (&json!("/bin/sh 0 none ü\n"), &json!(3)), "{bytes}");
        assert_eq!(result["stderr"], "");
    }
    agent.drain();
}

#[test]
#[cfg(target_os = "linux")]
fn too_long_argument_is_refused_with_that_reason() {
    let (console, agent) = start();
    let result = run(&console, "long", &program("/bin/echo", &[&"x".repeat(131_072)]));
    assert_eq!((&result["exit_code"], &result["reason"]), (&json!(126), &json!("spawn_failed")), "{result}");
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("longer than this system takes (128 KiB")));
    agent.drain();
}

#[test]
fn starters_variables_reach_neither_commands_nor_terminals() {
    use draupnir::sys::environment::NOT_INHERITED;
    for name in ["TMUX", "STY", "TERM_PROGRAM", "SSH_CONNECTION", "COLUMNS", "NOTIFY_SOCKET", "LISTEN_FDNAMES"] {
        assert!(NOT_INHERITED.contains(&name), "{name}");
    }
    let console = Console::start(Personality::production());
    let setup = NOT_INHERITED.iter().fold(Setup::new(&console), |setup, name| setup.env(name, "from-starter"));
    let agent = setup.env("KEPT", "from-starter").spawn();
    assert_eq!(console.browser().run("env | grep from-starter")["stdout"], "KEPT=from-starter\n");
    console.browser().create("s", 80, 24).input("s", b"echo left=$(env | grep -c from-star''ter)=\n");
    console.wait_text("s", "left=1=");
    let asked_for = json!({"command": "echo $COLUMNS", "env": ["COLUMNS=99"]});
    assert_eq!(run(&console, "asked for", &asked_for)["stdout"], "99\n");
    agent.drain();
}
