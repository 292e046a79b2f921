//! The key: it leaves the process in the header and in nothing else, and nobody on the machine can read it there.

mod support;

#[cfg(target_os = "linux")]
#[path = "support/stranger.rs"]
mod stranger;

use draupnir_console::{Answer, Console, Personality};
use serde_json::json;
use support::{Agent, Setup};

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

#[cfg(target_os = "linux")]
#[test]
fn the_agent_listens_nowhere() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.browser().create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    let sockets: Vec<String> = agent.process().descriptors().into_iter().map(|(_, target)| target).collect();
    // A bound or listening socket of any kind stands in these tables with its inode.
    for table in ["tcp", "tcp6", "udp", "udp6", "unix", "raw", "raw6", "packet"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{}/net/{table}", agent.process().pid())) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (inode, is_open_to_others) = match table {
                "unix" => (fields.get(6), fields.len() > 7),
                "tcp" | "tcp6" => (fields.get(9), fields.get(3) == Some(&"0A")),
                "packet" => (fields.last(), true),
                _ => (fields.get(9), true),
            };
            let is_ours = inode.is_some_and(|inode| sockets.contains(&format!("socket:[{inode}]")));
            assert!(!(is_ours && is_open_to_others), "{table}: {line}");
        }
    }
    agent.drain();
}

/// A process of the same user that is not root, such as every shell of the agent, may look into those that are dumpable.
#[cfg(target_os = "linux")]
#[test]
fn nobody_of_the_same_user_looks_into_the_process() {
    use std::os::unix::fs::MetadataExt as _;
    let console = Console::start(Personality::production());
    let (setup, _program) = stranger::as_somebody(&console, &[]);
    let agent = setup.spawn();
    let tried =
        "for file in environ mem maps fd/0; do cat /proc/$PPID/$file >/dev/null && echo $file was read; done; true";
    let result = console.browser().run(tried);
    assert_eq!(result["stdout"], "", "{result}");
    assert_eq!(result["stderr"].as_str().map(|text| text.matches("Permission denied").count()), Some(4), "{result}");
    // The kernel gives what belongs to a process that is not dumpable to root.
    let environ = std::fs::metadata(format!("/proc/{}/environ", agent.process().pid())).expect("it runs");
    assert_eq!(environ.uid(), 0);
    // A command is not the agent: it may be looked into as any other of its user.
    assert_eq!(console.browser().run("cat /proc/$$/environ >/dev/null")["exit_code"], 0);
    agent.drain();
}

#[test]
fn a_key_with_every_legal_character_is_sent_as_it_is_and_told_in_no_form() {
    // `Agent` looks for every form in everything that was written when it is dropped.
    let key = r##"drp !"#$%&'()*+,-./:;<=>?@[\]^_`{|}~ 0123456789"##;
    let console = Console::start(Personality::designed());
    console.set_key(key);
    let echoes = format!("the key {key} is not one of ours, nor is {key:?}");
    console.answer_registration(Answer::status(400).json(&json!({"message": echoes})));
    let home = support::Home::new();
    let [audit, record] = ["audit", "record"].map(|name| home.path().join(name));
    let setup = Setup::new(&console).home(&home).env("SINDRI_AGENT_AUDIT", audit).env("SINDRI_AGENT_RECORD", record);
    let agent = setup.spawn();
    agent.wait_log(|line| line.to_string().contains("is not one of ours"));
    console.frame("heartbeat");
    let sent = console.upgrade(1);
    assert_eq!(sent.request().header("authorization"), Some(format!("Bearer {key}").as_str()));
    let result = console.browser().run("env; cat /proc/self/environ");
    assert!(!result.to_string().contains("0123456789"), "{result}");
    console.link().close(1011, &format!("bad {key}"));
    agent.wait_log(|line| line["code"] == 1011);
    agent.drain();
}
