//! Every diagnosis of `doctor` that a test provokes: no two faults may have the same text.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// Verdict, check, and a part of the text that only this fault has.
type Diagnosis = (&'static str, &'static str, &'static str);

/// All diagnoses. Two faults with one diagnosis count as one fault.
const ALL: &[Diagnosis] = &[
    ("fail", "configuration", "SINDRI_CONSOLE_API_KEY is not set"),
    ("warn", "configuration", "did you mean SINDRI_AGENT_HEARTBEAT?"),
    ("warn", "clear text", "the API key travels to console.test in clear text"),
    ("warn", "state", "Not a directory"),
    ("warn", "state", "is damaged"),
    ("warn", "state", "Read-only file system"),
    ("warn", "home", "/no/such/home is no directory"),
    ("warn", "home", "HOME is not set"),
    ("fail", "pty", "no terminal can be opened"),
    ("fail", "shell", "/no/such/shell: not found"),
    ("fail", "shell", "Permission denied"),
    ("fail", "shell", "ran `exit 0` and exited with 3"),
    ("fail", "shell", "ran `exit 0` and did not exit within 5 s"),
    ("warn", "descriptors", "only 64 may be open"),
    ("warn", "limits", "too little for the agent and a shell"),
    ("warn", "limits", "only 32 processes, by a control group: too few for sessions and commands"),
    ("warn", "limits", "only 40 processes, by ulimit -u: too few for sessions and commands"),
    ("warn", "disk", "make room"),
    ("warn", "disk", "but no inode: remove files"),
    ("fail", "roots", "SINDRI_AGENT_CA_FILE: /no/such/file cannot be used"),
    ("fail", "roots", "its file system did not answer within 5 s"),
    ("fail", "roots", "SSL_CERT_FILE and SSL_CERT_DIR name no"),
    ("fail", "dns", "the name console.test of the console cannot be resolved"),
    ("fail", "dns", "the name proxy.test of the proxy cannot be resolved"),
    ("fail", "dns", "no name server answered for the console console:"),
    ("fail", "tcp", "the console 127.0.0.1:"),
    ("fail", "tcp", "the proxy 127.0.0.1:"),
    ("fail", "tcp", "a firewall drops the packets, or the host is down"),
    ("warn", "tcp", "but not everywhere: "),
    ("fail", "proxy", "HTTP_PROXY names a proxy that is not"),
    ("fail", "proxy", "demands credentials"),
    ("fail", "proxy", "it refuses the credentials in HTTP_PROXY"),
    ("fail", "proxy", "it could not reach the server"),
    ("fail", "proxy", "accepts connections but opens no tunnel; look into its log, or correct HTTP_PROXY"),
    ("fail", "tls", "signed by an issuer that this machine does not trust"),
    ("fail", "tls", "does not fit the trusted authority of that name"),
    ("fail", "tls", "expired at 2001-01-01T00:00:00Z"),
    ("fail", "tls", "not valid before 3999-01-01T00:00:00Z"),
    ("fail", "tls", "is for other.test, not for 127.0.0.1"),
    ("fail", "tls", "it is a certificate of an authority (CA:TRUE)"),
    ("warn", "tls", "ends within two days; renew it"),
    ("fail", "tls", "it broke off the handshake"),
    ("fail", "tls", "does not complete the TLS handshake"),
    ("fail", "registration", "speaks TLS on this port"),
    ("fail", "registration", "pointing to https://other.test/: redirects are not followed"),
    ("fail", "registration", "it says: maintenance"),
    ("warn", "registration", "too many requests"),
    ("warn", "registration", "text/html instead of JSON"),
    ("fail", "registration", "does not speak HTTP on this port"),
    ("fail", "registration", "closed the connection without an answer"),
    ("fail", "registration", "does not answer it"),
    ("warn", "clock", "ahead of the console's (2010-11-06T08:49:37Z)"),
    ("warn", "clock", "behind the console's (2100-11-06T08:49:37Z)"),
    ("fail", "websocket", "is the path in SINDRI_CONSOLE_URL right?"),
    ("fail", "websocket", "HTTP status 502"),
    ("fail", "websocket", "without a valid Sec-WebSocket-Accept header"),
    ("fail", "websocket", "broke the connection off"),
    ("fail", "websocket", "upgraded, and then lost"),
    ("fail", "websocket", "does not answer it"),
    ("warn", "websocket", "closed by the console with 1013 \"try again later\""),
    ("fail", "key", "it stands in quotes, and the agent sends them too"),
    ("fail", "key", "set a valid one in SINDRI_CONSOLE_API_KEY"),
];

/// The diagnoses that tests of this program have seen so far, as indices of [`ALL`].
static SEEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Checks that the text is the diagnosis with these words, fits no other one, and was not the diagnosis of an earlier
/// fault.
#[track_caller]
pub(crate) fn judge(verdict: &str, check: &str, words: &str, text: &str) {
    let fits = |(its_verdict, its_check, its_words): &Diagnosis| {
        (*its_verdict, *its_check) == (verdict, check) && text.contains(its_words)
    };
    let fitting: Vec<usize> = (0..).zip(ALL).filter(|(_, diagnosis)| fits(diagnosis)).map(|(at, _)| at).collect();
    let [at] = fitting[..] else { panic!("{verdict} {check}: {text}\nis the diagnosis of {} faults", fitting.len()) };
    assert_eq!(ALL[at].2, words, "{verdict} {check}: {text}\nis the diagnosis of another fault");
    let is_new = SEEN.lock().expect("no other test panics here").insert(at);
    assert!(is_new, "{verdict} {check}: {text}\nis the diagnosis of an earlier fault, too");
}
