//! The page of the demo: a console and its agent in a browser.
//!
//! It has its own listener on loopback and its own thread. [`Page::url`] holds a random token; `access` checks it, and
//! Host and Origin, on every request. `files` answers plain requests, `visit` serves one WebSocket, `hub` keeps what a
//! page shows after a reload, `recording` follows the agent's recording, `buttons` breaks things.
//!
//! Invariants: nothing here waits for the agent's connection; the console is never called while the hub is locked,
//! because the console calls the hub with its own lock held; every queue and every history has a bound in bytes.

mod access;
mod buttons;
mod files;
mod hub;
mod recording;
mod sessions;
mod visit;

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_channel::Sender;
use async_net::TcpStream;
use data_encoding::HEXLOWER;
use futures_lite::FutureExt as _;
use smol::{LocalExecutor, Timer};

use crate::console::Console;
use crate::http;
use crate::script::Response;

pub use files::missing_assets;

use access::Access;
use hub::Hub;
use sessions::Sessions;

/// Most TCP connections at a time: a browser opens six a page; eight pages may be open.
const CONNECTIONS_MAX: usize = 64;

/// Longest wait for a request, or for a browser that takes an answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon the records' thread notices that the page is gone.
const RECORD_WAIT: Duration = Duration::from_millis(500);

/// Bytes of the random token.
const TOKEN_BYTES: usize = 16;

/// A page that is being served. It ends when this is dropped.
#[derive(Debug)]
pub struct Page {
    url: String,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What every connection of the page needs.
#[derive(Clone)]
struct Site {
    access: Arc<Access>,
    assets: Arc<PathBuf>,
    console: Console,
    hub: Arc<Hub>,
    sessions: Rc<Sessions>,
}

impl Page {
    /// Serves the page of this console on a free port of 127.0.0.1. `recording` is the file that the agent writes
    /// (`SINDRI_AGENT_RECORD`), `assets` the folder in which `tests/console/web/install` put the npm packages.
    ///
    /// # Errors
    /// No port, no thread or no random number can be had.
    pub fn start(console: &Console, recording: &Path, assets: &Path) -> io::Result<Page> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut random = [0; TOKEN_BYTES];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let access = Access::new(listener.local_addr()?.port(), HEXLOWER.encode(&random));
        let url = access.url();
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let hub = Arc::new(Hub::new());
        let (console, recording, assets) = (console.clone(), recording.to_owned(), Arc::new(assets.to_owned()));
        let thread = std::thread::Builder::new().name("page".to_owned()).spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let sessions = Rc::new(Sessions::new(console.clone(), hub.clone()));
            let site = Site { access: Arc::new(access), assets, console, hub, sessions };
            let served = serve(site, listener, recording, executor.clone());
            // The sender never sends: the receiver's error is the end of the page.
            let end = async {
                let _ = stopped.recv().await;
            };
            smol::block_on(executor.run(end.or(served)));
        })?;
        Ok(Page { url, stop, thread: Some(thread) })
    }

    /// The address for the browser, with the token.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic was printed when it happened
        }
    }
}

/// Accepts connections, and follows the console's records and the agent's recording.
async fn serve(site: Site, listener: TcpListener, recording: PathBuf, executor: Rc<LocalExecutor<'static>>) {
    let Ok(listener) = async_net::TcpListener::try_from(listener) else { return };
    let (records, newer) = async_channel::unbounded();
    let mut view = site.console.within(RECORD_WAIT);
    std::thread::spawn(move || {
        while !records.is_closed() {
            if let Some(record) = view.take_next() {
                let _ = records.try_send(record); // an error: the page is gone, and the loop ends
            }
        }
    });
    let following = site.clone();
    executor
        .spawn(async move {
            while let Ok(record) = newer.recv().await {
                following.sessions.take_record(&record);
            }
        })
        .detach();
    executor.spawn(recording::follow(recording, site.hub.clone())).detach();
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            // For example without free descriptors: wait a moment instead of spinning.
            Timer::after(Duration::from_millis(50)).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (site, open) = (site.clone(), open.clone());
        executor
            .spawn(async move {
                let _ = site.answer(tcp).await; // an error ends this connection alone
                open.set(open.get().saturating_sub(1));
            })
            .detach();
    }
}

impl Site {
    /// Answers the requests of one connection, until one of them becomes a WebSocket.
    async fn answer(self, tcp: TcpStream) -> io::Result<()> {
        let _ = tcp.set_nodelay(true); // only latency
        let mut wire = tcp;
        let mut buffer = Vec::new();
        while let Some(request) = within(HTTP_TIMEOUT, http::read_request(&mut wire, &mut buffer)).await? {
            let response = match self.access.check(&request) {
                Err(refusal) => refusal,
                Ok(path) if request.is_upgrade() && path == "socket" && self.hub.has_room() => {
                    return visit::serve(self, wire, &request, buffer).await;
                }
                Ok(_) if request.is_upgrade() => Response::new(503),
                Ok(path) => files::answer(&request.method, path, &self.assets),
            };
            let refused = response.status >= 400;
            let bytes = http::encode(&self.access.guarded(response));
            within(HTTP_TIMEOUT, http::write(&mut wire, &bytes)).await?;
            if refused || request.is_last() {
                break;
            }
        }
        Ok(())
    }
}

/// The result of this, unless it takes longer.
async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_late = async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(too_late).await
}

/// The wall clock, in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
