//! A relay for TCP with the delay, the rate and the bounded queue of a wide link.
//!
//! Each direction is one link that all its connections share. A byte leaves the queue when the bytes before it have
//! left at the link's rate, and arrives half a round trip later. Both moments follow from when the relay read the byte,
//! never from when it woke, so a late wake-up delays bytes but costs no rate while the queue is not empty. A full queue
//! drops nothing: the relay stops reading, and the sender's own buffer fills.
//!
//! One thread serves everything, and waits for sockets and for absolute times alike.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What each direction's queue holds at most, in bytes; what is already on its way is not in it.
pub(crate) const QUEUE_BYTES: f64 = (256 << 10) as f64;

/// What the kernel holds for the relay to read, in bytes: it is a queue that the relay does not see, so it is small.
const RECEIVE_BUFFER_BYTES: usize = 32 << 10;

/// The most that is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// How long due bytes may wait for others, so that the relay wakes two thousand times a second at most.
const TICK: Duration = Duration::from_micros(500);

/// How often the relay looks whether it is to end.
const IDLE: Duration = Duration::from_millis(50);

/// The properties of a link, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) round_trip: Duration,
    pub(crate) bytes_per_second: f64,
}

impl Link {
    fn duration_of(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second)
    }
}

/// A running relay; dropping it ends it.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    delivered: AtomicU64,
}

impl Relay {
    pub(crate) fn start(link: Link, to: SocketAddr) -> Relay {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        // Accepted connections inherit it.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || Carrier { link, to, listener, shared, ways: Vec::new(), free_at: [Instant::now(); 2] }.run()
        });
        Relay { address, shared, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes it has delivered to the side that it connects to.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the relay ran");
        }
    }
}

/// What the thread holds.
struct Carrier {
    link: Link,
    to: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    ways: Vec<Way>,
    /// When each direction's link has sent everything that it took.
    free_at: [Instant; 2],
}

/// One direction of one connection.
struct Way {
    direction: usize,
    from: TcpStream,
    to: TcpStream,
    chunks: VecDeque<Chunk>,
    /// No more bytes come.
    ended: bool,
    /// The end was passed on, or there is none to pass it to.
    done: bool,
}

/// Bytes that were read at once.
struct Chunk {
    bytes: Vec<u8>,
    /// How many of them were delivered.
    sent: usize,
    /// When the first byte begins to leave the queue.
    leaves: Instant,
}

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; READ_BYTES];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.wait();
            self.accept();
            let now = Instant::now();
            for way in &mut self.ways {
                way.read(&self.link, &mut self.free_at[way.direction], now, &mut buffer);
                let delivered = way.deliver(&self.link, now);
                if way.direction == 0 {
                    self.shared.delivered.fetch_add(delivered, Ordering::Relaxed);
                }
            }
            self.ways.retain(|way| !way.done);
        }
    }

    /// Waits for something to read, or until bytes are due.
    fn wait(&self) {
        let now = Instant::now();
        let mut until = now + IDLE;
        let mut interests = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for way in &self.ways {
            if let Some(chunk) = way.chunks.front() {
                let due = chunk.leaves + self.link.round_trip / 2;
                until = until.min(due.max(now + TICK));
            }
            if way.ended {
                continue;
            }
            if room(&self.link, self.free_at[way.direction], now) > 0 {
                interests.push(PollFd::new(&way.from, PollFlags::IN));
            } else {
                until = until.min(now + TICK);
            }
        }
        let timeout = Timespec::try_from(until - now).expect("short");
        match poll(&mut interests, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn accept(&mut self) {
        while let Ok((near, _)) = self.listener.accept() {
            let far = TcpStream::connect(self.to).expect("the console listens");
            for stream in [&near, &far] {
                stream.set_nonblocking(true).expect("a socket");
                stream.set_nodelay(true).expect("a socket");
            }
            let (near_too, far_too) = (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
            self.ways.push(Way::new(0, near, far));
            self.ways.push(Way::new(1, far_too, near_too));
        }
    }
}

/// How many bytes the queue of a direction still takes.
fn room(link: &Link, free_at: Instant, now: Instant) -> usize {
    let queued = free_at.saturating_duration_since(now).as_secs_f64() * link.bytes_per_second;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the queue")]
    let room = (QUEUE_BYTES - queued).max(0.0) as usize;
    room
}

impl Way {
    fn new(direction: usize, from: TcpStream, to: TcpStream) -> Way {
        Way { direction, from, to, chunks: VecDeque::new(), ended: false, done: false }
    }

    fn read(&mut self, link: &Link, free_at: &mut Instant, now: Instant, buffer: &mut [u8]) {
        while !self.ended {
            let room = room(link, *free_at, now).min(buffer.len());
            if room == 0 {
                return;
            }
            match self.from.read(&mut buffer[..room]) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    let leaves = now.max(*free_at);
                    *free_at = leaves + link.duration_of(count);
                    self.chunks.push_back(Chunk { bytes: buffer[..count].to_vec(), sent: 0, leaves });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Delivers what is due; the result is how many bytes.
    fn deliver(&mut self, link: &Link, now: Instant) -> u64 {
        let mut delivered = 0;
        while let Some(chunk) = self.chunks.front_mut() {
            let on_the_way = now.saturating_duration_since(chunk.leaves + link.round_trip / 2);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the chunk")]
            let due = (on_the_way.as_secs_f64() * link.bytes_per_second).min(chunk.bytes.len() as f64) as usize;
            if due <= chunk.sent {
                return delivered;
            }
            match self.to.write(&chunk.bytes[chunk.sent..due]) {
                Ok(count) => {
                    chunk.sent += count;
                    delivered += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return delivered,
                Err(_) => {
                    let _ = self.from.shutdown(Shutdown::Both);
                    (self.ended, self.done) = (true, true);
                    return delivered;
                }
            }
            if chunk.sent == chunk.bytes.len() {
                self.chunks.pop_front();
            }
        }
        if self.ended && !self.done {
            let _ = self.to.shutdown(Shutdown::Write);
            self.done = true;
        }
        delivered
    }
}
