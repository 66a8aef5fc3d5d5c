//! A collector of telemetry that keeps what it is sent, and can be away.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How it treats those who send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Takes,
    /// Is there and never answers.
    Hangs,
    /// Says that it is busy.
    Busy,
}

/// One request that it took.
#[derive(Debug, Clone)]
pub struct Received {
    /// Path.
    pub path: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Value,
}

#[derive(Debug)]
struct Shared {
    mood: Mutex<Mood>,
    received: Mutex<Vec<Received>>,
    /// Requests that came, taken or not.
    came: Mutex<u64>,
}

/// A collector on a port of its own. It ends with the test's process.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Collector {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { mood: Mutex::new(mood), received: Mutex::default(), came: Mutex::default() });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                // A client that goes away is no failure of the collector.
                thread::spawn(move || drop(converse(stream, &shared)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How it behaves from the next request on.
    pub fn set(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// Requests that came, taken or not.
    #[must_use]
    pub fn came(&self) -> u64 {
        *lock(&self.shared.came)
    }

    /// What it took on `path`.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        lock(&self.shared.received).iter().filter(|received| received.path == path).cloned().collect()
    }

    /// All spans that it took.
    #[must_use]
    pub fn spans(&self) -> Vec<Value> {
        let spans =
            |received: &Received| received.body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default();
        self.received("/v1/traces").iter().flat_map(spans).collect()
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).context("no path")?.to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length").context("no length")?.1.parse::<usize>()?;
        anyhow::ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        *lock(&shared.came) += 1;
        let mood = *lock(&shared.mood);
        let status = match mood {
            Mood::Takes => {
                let body = serde_json::from_slice(&body).context("a body that is no JSON")?;
                lock(&shared.received).push(Received { path, headers, body });
                "200 OK"
            }
            Mood::Busy => "503 Service Unavailable",
            Mood::Hangs => {
                // Nothing comes any more until the client gives up.
                drop(reader.read_line(&mut line));
                return Ok(());
            }
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
