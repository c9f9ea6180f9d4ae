//! A connection to the server that can be cut, reset and stalled; and refused before it is one.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Stands between clients and a server.
pub struct Proxy {
    pub addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    target: Mutex<SocketAddr>,
    /// Both sockets of each connection.
    links: Mutex<Vec<[TcpStream; 2]>>,
    /// What is held back: what clients say, and what the server says.
    stalled: Mutex<[bool; 2]>,
    flows: Condvar,
    /// Said to the next clients instead of connecting them.
    answers: Mutex<VecDeque<String>>,
    /// Connections that came, refused ones too.
    came: AtomicUsize,
    is_over: AtomicBool,
    /// Everything that servers have said.
    said: Mutex<Vec<u8>>,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            target: Mutex::new(target),
            links: Mutex::default(),
            stalled: Mutex::default(),
            flows: Condvar::new(),
            answers: Mutex::default(),
            came: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            said: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    break;
                }
                shared.link(client.unwrap());
            }
        });
        Proxy { addr, inner }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// Where new connections lead.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.inner.target.lock().unwrap() = target;
    }

    /// The next connection gets this answer, and the end.
    pub fn refuse_next(&self, answer: &str) {
        self.inner.answers.lock().unwrap().push_back(answer.to_owned());
    }

    /// Ends every connection without a Close; with a reset, what is under way is lost as well.
    pub fn cut(&self, by_reset: bool) {
        for [client, server] in self.inner.links.lock().unwrap().drain(..) {
            for socket in [client, server] {
                if by_reset {
                    let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                }
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Holds back what the server says, or lets it through again.
    pub fn stall(&self, stalled: bool) {
        self.inner.stall(stalled, true);
    }

    /// Holds back what clients say, or lets it through again, also of those that have ended.
    pub fn stall_clients(&self, stalled: bool) {
        self.inner.stall(stalled, false);
    }

    pub fn came(&self) -> usize {
        self.inner.came.load(Ordering::SeqCst)
    }

    /// Everything that servers have said, heads and frames.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.inner.said.lock().unwrap()).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::SeqCst);
        self.stall(false);
        self.stall_clients(false);
        self.cut(false);
        let _ = TcpStream::connect(self.addr);
    }
}

impl Inner {
    fn link(self: &Arc<Inner>, mut client: TcpStream) {
        self.came.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = self.answers.lock().unwrap().pop_front() {
            let mut head = [0; 4096];
            let _ = client.read(&mut head);
            let _ = client.write_all(answer.as_bytes());
            return;
        }
        // A server that is gone is a connection that ends.
        let Ok(server) = TcpStream::connect(*self.target.lock().unwrap()) else { return };
        let _ = server.set_nodelay(true);
        let _ = client.set_nodelay(true);
        let pair = || [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.links.lock().unwrap().push(pair());
        let ([mut from, mut to], inner) = (pair(), Arc::clone(self));
        thread::spawn(move || inner.carry(&mut to, &mut from, true));
        let ([mut from, mut to], inner) = (pair(), Arc::clone(self));
        thread::spawn(move || inner.carry(&mut from, &mut to, false));
    }

    fn stall(&self, stalled: bool, is_server: bool) {
        self.stalled.lock().unwrap()[usize::from(is_server)] = stalled;
        self.flows.notify_all();
    }

    fn carry(&self, from: &mut TcpStream, to: &mut TcpStream, is_server: bool) {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if is_server {
                self.said.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
            let mut stalled = self.stalled.lock().unwrap();
            while stalled[usize::from(is_server)] {
                stalled = self.flows.wait(stalled).unwrap();
            }
            drop(stalled);
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
