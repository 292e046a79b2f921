//! The key: it leaves the process in the header and in nothing else, and nobody on the machine can read it there.

mod support;

use draupnir_console::{Console, Personality};
use support::Agent;

#[test]
fn the_key_is_in_no_environment_that_anybody_can_read() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    let key = console.key();
    assert!(console.upgrade(1).request().header("authorization").is_some_and(|header| header.ends_with(&key)));
    let result = console.browser().run("env; cat /proc/self/environ /proc/$PPID/environ | tr '\\0' '\\n'");
    let text = result["stdout"].as_str().expect("text");
    assert!(text.contains("HOME="), "{text}");
    assert!(!text.contains(&key), "a command reads the key");
    console.browser().create("s", 200, 50).input("s", b"env; tr '\\0' '\\n' </proc/$PPID/environ; echo do''ne\n");
    let stream = console.wait_text("s", "done");
    assert!(!stream.text().contains(&key), "a shell reads the key");
    let environment = std::fs::read(format!("/proc/{}/environ", agent.process().pid())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environment).contains(&key), "the agent's own block holds the key");
    agent.drain();
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_leaves_no_core() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.frame("heartbeat");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.process().pid())).expect("Linux tells");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line for cores");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // The limit is the agent's own: what an operator runs may leave a core.
    let inherited = std::fs::read_to_string("/proc/self/limits").expect("Linux tells");
    let ours = inherited
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .and_then(|line| line.split_whitespace().nth(4));
    let result = console.browser().run("ulimit -S -c");
    let theirs = result["stdout"].as_str().map(str::trim);
    let in_blocks =
        ours.map(|soft| soft.parse::<u64>().map_or_else(|_| soft.to_owned(), |bytes| (bytes / 512).to_string()));
    assert_eq!(theirs.map(str::to_owned), in_blocks);
    agent.drain();
}
