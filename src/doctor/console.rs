//! Checks the way to the console step by step, from this machine outwards; a failed step ends the walk.
//!
//! The deadlines are those of the machine's policy. The check registers nothing: it sends a GET to the registration
//! paths and opens the WebSocket under the id [`VISITOR`], which no instance has.

use super::finding::Sheet;
use crate::config::API_KEY_VARIABLE;
use crate::link::probe::{Asked, Greeting, Handshake, Probe, Ready};
use crate::link::{Error, RootsFrom, Target};
use crate::protocol::{InstanceId, close};
use async_io::Timer;
use draupnir_fsm::driver::CloseReason;
use draupnir_fsm::driver::Policy;
use futures_lite::future;
use smol::LocalExecutor;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// The instance id under which the check opens its WebSocket.
const VISITOR: &str = "sindri-agent-doctor";

/// How many addresses of a name the check tries, one after the other.
const ADDRESSES_MAX: usize = 8;

/// How long one address has to accept a connection.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);

/// A certificate that ends sooner than this should be renewed by now: those that live shortest live 6 days, and are
/// renewed after 4; the usual 90 days are renewed after 60.
const EXPIRY_WARNING: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A clock that is off by more is wrong; a slow network explains only a few seconds.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// How long the check waits for the console's first message: as long as the agent holds all messages back for it.
fn greeting_patience(policy: &Policy) -> Duration {
    Duration::from_millis(policy.all_gate_ms)
}

/// The checks in their order, to list those that were not reached.
const ORDER: [&str; 8] = ["dns", "tcp", "proxy", "tls", "registration", "clock", "websocket", "key"];

/// Runs all checks of the way to the console.
pub(super) async fn check(target: Target, executor: Rc<LocalExecutor<'static>>, sheet: &mut Sheet) {
    let (tls, proxied) = (target.url.is_tls(), target.proxy.is_some());
    let mistake = target.key.likely_mistake();
    let applies = |check: &str| applies(check, tls, proxied);
    let probe = match Probe::new(target, executor) {
        Ok(probe) => probe,
        Err(error) => {
            sheet.fail("key", error.to_string());
            let rest = ORDER.into_iter().filter(|check| *check != "key" && applies(check));
            return sheet.skip(rest, "the key cannot be sent");
        }
    };
    let visit = Visit { probe, policy: Policy::default(), tls, proxied, mistake };
    if let Err(Stopped { at, because }) = visit.walk(sheet).await {
        let rest = ORDER.into_iter().skip_while(|check| *check != at).skip(1);
        sheet.skip(rest.filter(|check| applies(check)), because);
    }
}

/// Reports all checks of the way as skipped, because the configuration names no usable way.
pub(super) fn skip(tls: bool, sheet: &mut Sheet) {
    let all = ["roots"].into_iter().chain(ORDER);
    sheet.skip(all.filter(|check| applies(check, tls, false)), "the way to the console is not known");
}

/// Whether a check applies to such a way.
fn applies(check: &str, tls: bool, proxied: bool) -> bool {
    match check {
        "proxy" => proxied,
        "roots" | "tls" => tls,
        _ => true,
    }
}

/// The check that failed, and the reason that the skipped checks report.
struct Stopped {
    at: &'static str,
    because: &'static str,
}

struct Visit {
    probe: Probe,
    policy: Policy,
    tls: bool,
    proxied: bool,
    /// A likely mistake in the key.
    mistake: Option<&'static str>,
}

impl Visit {
    async fn walk(&self, sheet: &mut Sheet) -> Result<(), Stopped> {
        if self.tls {
            self.roots(sheet).await;
        }
        let addresses = self.resolve(sheet).await?;
        self.connect(&addresses, sheet).await?;
        if self.proxied {
            self.tunnel(&addresses, sheet).await?;
        }
        if self.tls {
            self.secure(&addresses, sheet).await?;
        }
        let asked = self.ask(&addresses, sheet).await?;
        clock(asked.date, SystemTime::now(), sheet);
        self.greet(&addresses, &asked, sheet).await
    }

    async fn roots(&self, sheet: &mut Sheet) {
        match self.probe.roots().await {
            Ok(trusting) => {
                let from = match trusting.from {
                    RootsFrom::Variables => "named by SSL_CERT_FILE or SSL_CERT_DIR",
                    RootsFrom::System => "of this machine",
                    RootsFrom::Bundled => "of Mozilla, bundled with the agent because this machine has none",
                };
                let private = match trusting.private {
                    0 => String::new(),
                    count => format!(", {count} of them from SINDRI_AGENT_CA_FILE"),
                };
                sheet.ok("roots", format!("{} trusted roots {from}{private}", trusting.roots));
            }
            Err(error) => sheet.fail("roots", error.to_string()),
        }
    }

    async fn resolve(&self, sheet: &mut Sheet) -> Result<Vec<SocketAddr>, Stopped> {
        let (hop, began) = (self.hop(), Instant::now());
        let late = || format!("no name server answered for {hop}; check this machine's DNS");
        match self.in_time(self.probe.resolve(), late).await {
            Ok(addresses) => {
                let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                sheet.ok("dns", format!("{hop} is {} ({} ms)", list.join(", "), began.elapsed().as_millis()));
                Ok(addresses)
            }
            Err(error) => {
                sheet.fail("dns", error);
                Err(Stopped { at: "dns", because: "no address is known" })
            }
        }
    }

    /// The name of what the agent connects to: the proxy, or the console.
    fn hop(&self) -> String {
        format!("{}{}", self.probe.hop().title(), self.probe.next_hop())
    }

    /// Tries the addresses one after the other: a race would hide those that do not work.
    async fn connect(&self, addresses: &[SocketAddr], sheet: &mut Sheet) -> Result<(), Stopped> {
        let (mut works, mut fails) = (Vec::new(), Vec::new());
        for address in addresses.iter().take(ADDRESSES_MAX) {
            let began = Instant::now();
            match within(ADDRESS_PATIENCE, self.probe.connect(&[*address])).await {
                Some(Ok(_)) => works.push(format!("{address} ({} ms)", began.elapsed().as_millis())),
                Some(Err(error)) => fails.push(error.to_string()),
                None => fails.push(format!(
                    "{}{address} does not answer within {} s: a firewall drops the packets, or the host is down{}",
                    self.probe.hop().title(),
                    ADDRESS_PATIENCE.as_secs(),
                    self.probe.hop().or_correct(),
                )),
            }
        }
        if works.is_empty() {
            sheet.fail("tcp", fails.join("; "));
            return Err(Stopped { at: "tcp", because: "there is no connection" });
        }
        if fails.is_empty() {
            sheet.ok("tcp", format!("connected to {}", works.join(", ")));
        } else {
            let text = format!("connected to {}, but not everywhere: {}", works.join(", "), fails.join("; "));
            sheet.warn("tcp", text);
        }
        Ok(())
    }

    async fn tunnel(&self, addresses: &[SocketAddr], sheet: &mut Sheet) -> Result<(), Stopped> {
        let asked = async {
            let mut connected = self.probe.connect(addresses).await?;
            self.probe.tunnel(&mut connected).await
        };
        let late = || {
            let correct = self.probe.hop().or_correct();
            format!("{} accepts connections but opens no tunnel; look into its log{correct}", self.hop())
        };
        match self.in_time(asked, late).await {
            Ok(()) => {
                sheet.ok("proxy", format!("{} leads on to the console", self.hop()));
                Ok(())
            }
            Err(error) => {
                sheet.fail("proxy", error);
                Err(Stopped { at: "proxy", because: "there is no way through the proxy" })
            }
        }
    }

    async fn secure(&self, addresses: &[SocketAddr], sheet: &mut Sheet) -> Result<(), Stopped> {
        let late = || {
            let found = "the console accepts connections but does not complete the TLS handshake";
            format!("{found}; check that this port serves TLS")
        };
        match self.in_time(self.open(addresses), late).await {
            Ok((_, Some(handshake))) => certificate(&handshake, sheet),
            Ok((_, None)) => {}
            // The check `roots` has already reported the unusable certificate file.
            Err(error) if error.is_empty() => return Err(Stopped { at: "tls", because: "no root is trusted" }),
            Err(error) => {
                sheet.fail("tls", error);
                return Err(Stopped { at: "tls", because: "there is no TLS" });
            }
        }
        Ok(())
    }

    async fn open(&self, addresses: &[SocketAddr]) -> Result<(Ready, Option<Handshake>), Error> {
        let mut connected = self.probe.connect(addresses).await?;
        self.probe.tunnel(&mut connected).await?;
        self.probe.secure(connected, EXPIRY_WARNING).await
    }

    async fn ask(&self, addresses: &[SocketAddr], sheet: &mut Sheet) -> Result<Asked, Stopped> {
        let open = async || self.open(addresses).await.map(|(ready, _)| ready);
        let answered = within(Duration::from_millis(self.policy.registration_ms), self.probe.ask(open)).await;
        let (text, because) = match answered {
            None => ("the console accepts a request but does not answer it".to_owned(), "the console does not answer"),
            Some(Err(error)) => (error.to_string(), "no console answers there"),
            Some(Ok(asked)) => match asked.status {
                300..=399 => (redirect(&asked), "the console redirects"),
                500..=599 => (
                    format!("{}: look into its log{}", status(&asked), says(&asked)),
                    "the console reports an internal error",
                ),
                429 => {
                    sheet.warn("registration", format!("{}: too many requests come from this address", status(&asked)));
                    return Ok(asked);
                }
                _ => {
                    match asked.media_type.as_deref().filter(|_| (200..300).contains(&asked.status)) {
                        None => sheet.ok("registration", status(&asked)),
                        Some(media_type) => sheet.warn("registration", not_json(&asked, media_type)),
                    }
                    return Ok(asked);
                }
            },
        };
        sheet.fail("registration", text);
        Err(Stopped { at: "registration", because })
    }

    async fn greet(&self, addresses: &[SocketAddr], asked: &Asked, sheet: &mut Sheet) -> Result<(), Stopped> {
        let id = InstanceId::new(VISITOR).expect("the visitor's id is a legal one");
        let visited = async {
            let (ready, _) = self.open(addresses).await?;
            self.probe.greet(ready, &id, greeting_patience(&self.policy)).await
        };
        let patience = Duration::from_millis(self.policy.dial_ms) + greeting_patience(&self.policy);
        let refused_before = matches!(asked.status, 401 | 403).then(|| asked.console_text.clone());
        let greeting = match within(patience, visited).await {
            Some(Ok(greeting)) => greeting,
            Some(Err(Error::KeyRefused { status, console_text, .. })) => {
                sheet.ok("websocket", format!("the console checks the key before the upgrade (HTTP status {status})"));
                self.key(Some(console_text), sheet);
                return Ok(());
            }
            Some(Err(error)) => {
                let hint = match error {
                    Error::Refused { status: 404, .. } => "; is the path in SINDRI_CONSOLE_URL right?",
                    _ => "",
                };
                sheet.fail("websocket", format!("{error}{hint}"));
                return Err(Stopped { at: "websocket", because: "there is no WebSocket" });
            }
            None => {
                sheet.fail("websocket", "the console accepts the upgrade request but does not answer it");
                return Err(Stopped { at: "websocket", because: "there is no WebSocket" });
            }
        };
        let refused = websocket(greeting, sheet)?;
        self.key(refused.or(refused_before), sheet);
        Ok(())
    }

    fn key(&self, refused: Option<String>, sheet: &mut Sheet) {
        let Some(text) = refused else { return sheet.ok("key", "the console accepts it") };
        let text = if text.is_empty() { String::new() } else { format!(" ({text})") };
        let cure = match self.mistake {
            Some(mistake) => format!("{mistake}, in {API_KEY_VARIABLE}"),
            None => format!("set a valid one in {API_KEY_VARIABLE}"),
        };
        sheet.fail("key", format!("the console refuses it{text}: {cure}"));
    }

    /// The outcome of one step of a dial. An error is a text for the operator; `late` is the text for a step that
    /// misses its deadline. The text is empty where an earlier check has reported the error.
    async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, Error>>,
        late: impl FnOnce() -> String,
    ) -> Result<T, String> {
        match within(Duration::from_millis(self.policy.dial_ms), step).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(Error::Roots(_))) => Err(String::new()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("within {} s {}", self.policy.dial_ms / 1000, late())),
        }
    }
}

fn certificate(handshake: &Handshake, sheet: &mut Sheet) {
    let version = handshake.version.replace("TLSv1_", "TLS 1.");
    let until = handshake.valid_until.map(|at| format!(", valid until {}", humantime::format_rfc3339_seconds(at)));
    let signed: String = handshake.issuers.iter().map(|issuer| format!(", signed by {issuer}")).collect();
    let (until, names) = (until.unwrap_or_default(), &handshake.names);
    let text = format!("{version}, the certificate is trusted{until}; it is for {names}{signed}");
    match &handshake.soon {
        None => sheet.ok("tls", text),
        Some(_) => sheet.warn("tls", format!("{text}: it, or one of its issuers, ends within two days; renew it")),
    }
}

/// Reports what the console did after the upgrade. Returns the reason of a refused key: the check `key` reports it.
fn websocket(greeting: Greeting, sheet: &mut Sheet) -> Result<Option<String>, Stopped> {
    match greeting {
        Greeting::Message => sheet.ok("websocket", "upgraded; the console sent its first message at once"),
        Greeting::Silence => {
            sheet.ok("websocket", "upgraded; the console sent no first message, which the protocol allows");
        }
        Greeting::Lost { error } => {
            sheet.fail(
                "websocket",
                format!("upgraded, and then lost ({error}): a proxy or firewall between may end WebSockets"),
            );
            return Err(Stopped { at: "websocket", because: "the WebSocket does not last" });
        }
        Greeting::Close { code, reason } => match close::reason(code, &reason) {
            CloseReason::UnknownInstance => {
                sheet.ok("websocket", "upgraded; the console does not know the id of this check, as it should not");
            }
            CloseReason::Authentication => {
                sheet.ok("websocket", "upgraded");
                return Ok(Some(reason));
            }
            CloseReason::Replaced | CloseReason::Other => {
                sheet.warn("websocket", format!("upgraded, and closed by the console with {code} {reason:?}"));
            }
        },
    }
    Ok(None)
}

fn clock(date: Option<SystemTime>, now: SystemTime, sheet: &mut Sheet) {
    let Some(date) = date else {
        return sheet.skip(["clock"], "the console sends no valid Date header");
    };
    let (skew, ahead) = match now.duration_since(date) {
        Ok(ahead) => (ahead, true),
        Err(error) => (error.duration(), false),
    };
    if skew <= SKEW_MAX {
        return sheet.ok("clock", format!("within {} s of the console's", skew.as_secs()));
    }
    let shown = |time| humantime::format_rfc3339_seconds(time).to_string();
    let direction = if ahead { "ahead of" } else { "behind" };
    let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
    let text = format!(
        "this machine's clock ({}) is {skew} {direction} the console's ({}): set it right, or run NTP",
        shown(now),
        shown(date)
    );
    sheet.warn("clock", text);
}

fn status(asked: &Asked) -> String {
    format!("{} answers a GET with HTTP status {}", asked.path, asked.status)
}

fn not_json(asked: &Asked, media_type: &str) -> String {
    format!(
        "{} and {media_type} instead of JSON: something else may stand in the console's place, such as a captive portal; \
         log in to this network, or correct SINDRI_CONSOLE_URL",
        status(asked)
    )
}

fn says(asked: &Asked) -> String {
    if asked.console_text.is_empty() { String::new() } else { format!(" (it says: {})", asked.console_text) }
}

fn redirect(asked: &Asked) -> String {
    let location = asked.location.as_deref().unwrap_or("nowhere");
    format!("{}, pointing to {location}: redirects are not followed; correct SINDRI_CONSOLE_URL", status(asked))
}

async fn within<T>(patience: Duration, step: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(patience).await;
        None
    };
    future::or(async { Some(step.await) }, late).await
}
