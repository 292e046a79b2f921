//! The locks of the machine's owner, which the console cannot lift: no terminal, no command, or only listed programs.

use crate::support;
use crate::support::Agent;
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};

/// Checks the answer to a refused request of either kind.
#[track_caller]
fn assert_refused(answer: &Value) {
    assert_eq!(answer["reason"], "refused_by_policy", "{answer}");
    assert_eq!(answer["exit_code"], 126, "{answer}");
}

#[test]
fn terminals_can_be_locked_and_commands_go_on() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_TERMINAL", "off")]);
    console.browser().create("locked", 80, 24);
    assert_refused(&console.closed("locked"));
    assert_eq!(console.event("error").payload()["metadata"]["session_id"], "locked");
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    agent.drain();
}

#[test]
fn commands_can_be_locked_and_terminals_go_on() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_COMMANDS", "off")]);
    console.browser().dispatch("locked", "touch ~/ran");
    let result = console.result("locked");
    assert_refused(&result);
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("SINDRI_AGENT_COMMANDS")), "{result}");
    assert_eq!(console.event("error").payload()["metadata"]["command_id"], "locked");
    assert!(!agent.home().path().join("ran").exists());
    console.browser().create("open", 80, 24).input("open", b"echo o''n\n");
    console.wait_text("open", "on");
    agent.drain();
}

#[test]
fn only_listed_programs_run_and_never_a_shell_line() {
    let console = Console::start(Personality::production());
    let list = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(list.path(), "# what may run\n\n/bin/echo\n  /usr/bin/env  \nrelative/path\n").expect("writable");
    let allow = format!("allow:{}", list.path().display());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_COMMANDS", &allow)]);
    let browser = console.browser();
    browser.dispatch_with("listed", &json!({"command": "/bin/echo", "args": ["$HOME; id"]}));
    assert_eq!(console.result("listed")["stdout"], "$HOME; id\n");
    let refused = [
        ("a shell line", json!({"command": "/bin/echo hello"})),
        ("a listed program without arguments is a shell line", json!({"command": "/bin/echo"})),
        ("empty arguments too", json!({"command": "/bin/echo", "args": []})),
        ("another program", json!({"command": "/bin/sh", "args": ["-c", "touch ~/ran"]})),
        ("by its name alone", json!({"command": "echo", "args": ["x"]})),
        ("another spelling", json!({"command": "/bin/../bin/echo", "args": ["x"]})),
        ("a line of the list that is no absolute path", json!({"command": "relative/path", "args": ["x"]})),
    ];
    for (id, fields) in &refused {
        browser.dispatch_with(id, fields);
        assert_refused(&console.result(id));
    }
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

/// The console chooses neither environment nor standard input of a listed program. Otherwise a listed script or
/// interpreter would be a shell for the console.
#[test]
fn allowed_program_gets_only_its_arguments() {
    let console = Console::start(Personality::production());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (script, list) = (directory.path().join("harmless"), directory.path().join("list"));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::write(&script, "#!/bin/bash\necho \"$1 $PWD\"\ncat\n").expect("writable");
    std::fs::set_permissions(&script, open).expect("it is ours");
    std::fs::write(&list, script.display().to_string()).expect("writable");
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_COMMANDS", &format!("allow:{}", list.display()))]);
    let (browser, home) = (console.browser(), agent.home().path().to_owned());
    let program = script.to_str().expect("text");
    let fed = format!("SINDRI_SCRIPT_B64={}", data_encoding::BASE64.encode(b"fed\n"));
    let smuggled = [
        ("a file to read first", json!({"env": ["BASH_ENV=$(touch ~/ran)"]})),
        ("a function in the place of a command", json!({"env": ["BASH_FUNC_cat%%=() { touch ~/ran; }"]})),
        ("a library", json!({"env": ["LD_PRELOAD=/tmp/any.so"]})),
        ("an input", json!({"env": [fed]})),
        ("another directory", json!({"working_dir": "/"})),
    ];
    for (id, mut fields) in smuggled {
        (fields["command"], fields["args"]) = (json!(program), json!(["x"]));
        browser.dispatch_with(id, &fields);
        assert_refused(&console.result(id));
    }
    assert!(!home.join("ran").exists());
    browser.dispatch_with("plain", &json!({"command": program, "args": ["x"], "env": [], "timeout_ms": 5000}));
    assert_eq!(console.result("plain")["stdout"], format!("x {}\n", home.display()));
    agent.drain();
}

#[test]
fn unreadable_list_lets_nothing_run() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_COMMANDS", "allow:/no/such/list")]);
    console.browser().dispatch_with("c", &json!({"command": "/bin/echo", "args": ["x"]}));
    let result = console.result("c");
    assert_refused(&result);
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("list of programs cannot be used")), "{result}");
    agent.wait_log(|line| line["level"] == "ERROR" && line["file"] == "/no/such/list");
    agent.drain();
}

/// A file that is cut in the middle of a line holds another path: /bin/sh instead of /bin/shred.
#[test]
fn oversized_list_lets_nothing_run() {
    const LIST_BYTES_MAX: usize = 1 << 20;
    let console = Console::start(Personality::production());
    let list = tempfile::NamedTempFile::new().expect("a temporary file");
    let first = "/bin/echo\n";
    let padding = "#".repeat(LIST_BYTES_MAX - first.len() - "\n/bin/sh".len());
    for (n, (last, is_too_long)) in (1..).zip([("/bin/shred", true), ("/bin/sh", false)]) {
        std::fs::write(list.path(), format!("{first}{padding}\n{last}")).expect("there is room");
        let agent = Agent::spawn(&console, &[("SINDRI_AGENT_COMMANDS", &format!("allow:{}", list.path().display()))]);
        console.on(n).frame("heartbeat");
        for (program, args) in [("/bin/sh", json!(["-c", "echo x"])), ("/bin/echo", json!(["x"]))] {
            let id = format!("{n} {program}");
            console.browser().dispatch_with(&id, &json!({"command": program, "args": args}));
            let result = console.result(&id);
            if is_too_long {
                assert_refused(&result);
            } else {
                assert_eq!(result["stdout"], "x\n", "{result}");
            }
        }
        if is_too_long {
            agent.wait_log(|line| line["level"] == "ERROR" && line["error"] == "it is longer than 1 MiB");
        }
        agent.drain();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn with_both_locks_nothing_is_executed() {
    const NAME: &str = "with_both_locks_nothing_is_executed";
    let Some(strace) = ["/usr/bin/strace", "/bin/strace"].iter().find(|path| std::path::Path::new(path).exists())
    else {
        return support::skip(NAME, "there is no strace");
    };
    let console = Console::start(Personality::production());
    let trace = tempfile::NamedTempFile::new().expect("a temporary file");
    let agent = support::Setup::new(&console)
        .env("SINDRI_AGENT_TERMINAL", "off")
        .env("SINDRI_AGENT_COMMANDS", "off")
        .program(strace)
        // Traced from a process beside it, so that signals reach the agent itself.
        .arg("-D")
        .arg("-fqq")
        .arg("-etrace=execve,execveat")
        .arg("-o")
        .arg(trace.path())
        .arg(support::agent_program())
        .spawn();
    let browser = console.browser();
    browser.create("s", 80, 24).create_with("t", &json!({"cols": 1, "rows": 1, "shell": "/bin/sh"}));
    browser.input("s", b"id\n").resize("s", 1, 1).close("s");
    browser.dispatch("shell", "id").dispatch_with("program", &json!({"command": "/bin/id", "args": ["-u"]}));
    browser
        .dispatch_with("script", &json!({"command": "/bin/bash", "args": ["-s"], "env": ["SINDRI_SCRIPT_B64=aWQ="]}));
    browser.cancel("shell");
    let native = json!({"protocolVersion": "1.0", "channel": "commands", "type": "command:dispatch", "data": {},
        "protocol_version": "1.0", "payload": {"command_id": "forged", "command": "id"}});
    browser.send(&native);
    // And all captured messages of a real console.
    let captured = include_str!("vectors/console_to_agent.jsonl").lines();
    let captured = captured.map(|line| serde_json::from_str::<Value>(line).expect("a vector is JSON"));
    for frame in captured.filter_map(|line| line["raw"].as_str().map(str::to_owned)) {
        console.link().send_text(&frame);
    }
    for id in ["shell", "program", "script"] {
        assert_refused(&console.result(id));
    }
    for id in ["s", "t"] {
        assert_refused(&console.closed(id));
    }
    browser.dispatch("last", "id");
    assert_refused(&console.result("last"));
    agent.drain();
    let calls = std::fs::read_to_string(trace.path()).expect("strace wrote it");
    let executed: Vec<&str> = calls.lines().filter(|line| line.contains("exec")).collect();
    assert_eq!(executed.len(), 1, "more than the agent itself was executed: {executed:?}");
}
