//! The key leaves the process only in the request header, and no other process on the machine can read it.

use crate::support;
use crate::support::stranger;
use crate::support::tls;
use crate::support::{Agent, Setup};
use draupnir_console::{Answer, Console, Personality};
use serde_json::json;

#[test]
fn key_is_in_no_readable_environment() {
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
    let limits = match std::fs::read_to_string(format!("/proc/{}/limits", agent.process().pid())) {
        Err(error) if is_hidden(&error) => {
            return support::skip("the_process_leaves_no_core", "hidepid hides the agent");
        }
        limits => limits.expect("Linux tells"),
    };
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line for cores");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Only the agent has this limit: programs that an operator runs may write a core file.
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

/// On no network. The one thing that listens is the Unix socket of the status, for its own user.
#[cfg(target_os = "linux")]
#[test]
fn the_agent_listens_nowhere() {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    if !agent.process().shows_descriptors() {
        return support::skip("the_agent_listens_nowhere", "only root can list the descriptors of an agent");
    }
    console.browser().create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    let socket = agent.home().state_dir().join("status.sock");
    support::settles(&console, "the status socket is served", || !listening(&agent).is_empty());
    let found = listening(&agent);
    assert!(
        found.len() == 1 && found[0].starts_with("unix: ") && found[0].ends_with(&*socket.to_string_lossy()),
        "{found:?}"
    );
    let metadata = std::fs::symlink_metadata(&socket).expect("it is there");
    assert!(metadata.file_type().is_socket() && metadata.mode() & 0o777 == 0o600, "{:o}", metadata.mode());
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    agent.drain();
}

/// Where AI tools are pointed at the agent, their proxy is the one thing that listens.
#[cfg(target_os = "linux")]
#[test]
fn pointed_at_it_listens_on_loopback_alone() {
    let console = Console::start(Personality::production());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let agent = Agent::spawn(&console, &[("OPENAI_BASE_URL", &format!("http://localhost:{port}/v1/openai"))]);
    if !agent.process().shows_descriptors() {
        let why = "only root can list the descriptors of an agent";
        return support::skip("pointed_at_it_listens_on_loopback_alone", why);
    }
    console.frame("heartbeat");
    agent.wait_log(|line| support::mentions(line, &format!("127.0.0.1:{port}")));
    let found: Vec<String> = listening(&agent).into_iter().filter(|line| !line.starts_with("unix: ")).collect();
    // As the kernel writes them: 127.0.0.1 and ::1.
    let loopback = [format!("0100007F:{port:04X}"), format!("00000000000000000000000001000000:{port:04X}")];
    assert!(!found.is_empty(), "the proxy listens");
    assert!(found.iter().all(|line| loopback.iter().any(|address| line.contains(address))), "{found:?}");
    agent.drain();
}

/// The lines of the kernel's tables about what is open to others.
#[cfg(target_os = "linux")]
fn listening(agent: &Agent) -> Vec<String> {
    let mut found = Vec::new();
    let sockets: Vec<String> = agent.process().descriptors().into_iter().map(|(_, target)| target).collect();
    // These tables list every bound or listening socket with its inode.
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
            if is_ours && is_open_to_others {
                found.push(format!("{table}: {line}"));
            }
        }
    }
    found
}

/// The errors with which the kernel refuses access to a process; the last two if `/proc` is mounted with `hidepid`.
#[cfg(target_os = "linux")]
const REFUSALS: [&str; 3] = ["Permission denied", "Operation not permitted", "No such file or directory"];

/// Whether `hidepid` hides a running process from a user who is not root.
#[cfg(target_os = "linux")]
fn is_hidden(error: &std::io::Error) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    !is_root && matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
}

/// A process of the same user, such as every shell of the agent, may read dumpable processes even if it is not root.
#[cfg(target_os = "linux")]
#[test]
fn process_of_same_user_cannot_read_the_agent() {
    use std::os::unix::fs::MetadataExt as _;
    let console = Console::start(Personality::production());
    let (setup, _program) = stranger::as_limited_user(&console, &[]);
    let agent = setup.spawn();
    let tried =
        "for file in environ mem maps fd/0; do cat /proc/$PPID/$file >/dev/null && echo $file was read; done; true";
    let result = console.browser().run(tried);
    assert_eq!(result["stdout"], "", "{result}");
    let refusals: Vec<&str> = result["stderr"].as_str().into_iter().flat_map(str::lines).collect();
    let is_refusal = |line: &&str| REFUSALS.iter().any(|refusal| line.contains(refusal));
    assert!(refusals.len() == 4 && refusals.iter().all(is_refusal), "{result}");
    // The files of a process that is not dumpable belong to root, and the kernel may hide them from others.
    match std::fs::metadata(format!("/proc/{}/environ", agent.process().pid())) {
        Ok(environ) => assert_eq!(environ.uid(), 0),
        Err(error) => assert!(is_hidden(&error), "{error}"),
    }
    // A command is not protected: other processes of its user may read it.
    assert_eq!(console.browser().run("cat /proc/$$/environ >/dev/null")["exit_code"], 0);
    agent.drain();
}

/// Counts a text in the memory of a process.
#[cfg(target_os = "linux")]
fn occurrences(pid: u32, text: &str) -> usize {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("root may");
    let mut found = 0;
    for map in maps.lines().filter(|map| map.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r'))) {
        let range = map.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [start, end] = [range.0, range.1].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits in its own memory")];
        // The kernel's own mapping (vvar) cannot be read in this way.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            found += memchr::memmem::find_iter(&bytes, text).count();
        }
    }
    found
}

/// How many copies of the key are necessary: in the configuration, the link, the log writer, and the panic hook, which
/// starts the program again with it.
#[cfg(target_os = "linux")]
const COPIES: usize = 4;

#[cfg(target_os = "linux")]
#[test]
fn memory_holds_the_key_only_where_it_must() {
    const TEST: &str = "memory_holds_the_key_only_where_it_must";
    if !rustix::process::geteuid().is_root() {
        return support::skip(TEST, "only root can look into the memory of an agent");
    }
    let authority = support::authority::Authority::new();
    for console in [Console::start(Personality::production()), tls::valid_console(&authority)] {
        let agent = Setup::new(&console).env("SINDRI_AGENT_CA_FILE", authority.file()).spawn();
        console.on(1).frame("heartbeat");
        // A second dial, a command and a terminal.
        console.connection(1).reset();
        console.on(2).frame("heartbeat");
        assert_eq!(console.browser().run("true")["exit_code"], 0);
        console.browser().create("s", 80, 24).input("s", b"exit 3\n");
        assert_eq!(console.closed("s")["exit_code"], 3);
        let (pid, key) = (agent.process().pid(), console.key());
        assert_eq!(occurrences(pid, console.url().rsplit('/').next().expect("a host")).min(1), 1, "nothing was read");
        assert_eq!(occurrences(pid, &key), COPIES, "{}", console.url());
        assert_eq!(occurrences(pid, &format!("Bearer {key}")), 0, "{}", console.url());
        // An allocator overwrites only the beginning of a freed block.
        let (_, half) = key.split_at(key.len() / 2);
        assert_eq!(occurrences(pid, half), COPIES, "{}", console.url());
        agent.drain();
    }
}

#[test]
fn key_with_every_legal_character_is_sent_and_never_shown() {
    // When `Agent` is dropped, it looks for every form of the key in everything that was written.
    let key = r##"drp!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~0123456789"##;
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

#[test]
fn key_in_clear_text_warns_once() {
    // The proxy refuses connections, so that nothing leaves this machine.
    let proxy = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let far = |url: &str| {
        let setup = Setup::alone().key("drp_0123456789").env("ALL_PROXY", format!("http://{proxy}"));
        setup.env("SINDRI_CONSOLE_URL", url).spawn()
    };
    let console = Console::start(Personality::production());
    for (agent, warnings) in [
        (far("http://console.test"), 1),
        (far("https://console.test"), 0),
        (far("http://console.internal"), 0),
        (Agent::spawn(&console, &[]), 0),
    ] {
        agent.wait_log(|line| line["message"] == "registered" || line["attempt"] == 2);
        let count = agent.log().count(|line| line["level"] == "WARN" && line.to_string().contains("clear text"));
        assert_eq!(count, warnings, "{}", agent.log().text());
        agent.drain();
    }
}
