//! Sends traces and numbers to an OpenTelemetry collector, where one is configured.
//!
//! ```text
//! spans ─▶ bounded line ─▶ batch ─ each second, or when it is full ─▶ POST /v1/traces  ─┬─ taken, or not worth another try
//!                            ▲───────────────── after a pause ◀── cannot be reached, busy ─┘
//! numbers ─ each `interval_s` ─▶ POST /v1/metrics (sums: what is lost is in the next)
//! ```
//! Nothing here is on an invocation's way: what finds the line full is dropped and counted.

use super::metrics::Sources;
use super::otlp::{self, Resource};
use super::span::Span;
use crate::clock;
use crate::limits::{EXPORT_LAST_MAX, EXPORT_RETRY_MAX, EXPORT_RETRY_MIN, EXPORT_TIMEOUT, SPAN_BATCH_MAX, SPAN_PAUSE};
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

/// Where telemetry goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Collector {
    /// `http://host:4318` or `https://…`; `/v1/traces` and `/v1/metrics` are added.
    pub(crate) url: String,
    /// Sent with each request.
    pub(crate) headers: Vec<(String, String)>,
    /// Whom `https` trusts, PEM.
    pub(crate) ca_file: PathBuf,
    /// Share of the traces that begin here which is recorded, in millionths.
    pub(crate) sample_millionths: u32,
    /// How often numbers are sent.
    pub(crate) interval: Duration,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("url", &self.url).field("headers", &self.headers.len()).finish_non_exhaustive()
    }
}

/// What became of a request.
enum Sent {
    Taken,
    /// The collector will not take this whenever it is sent.
    Refused(String),
    /// Worth another try.
    Later(String),
}

/// The exporter.
#[derive(Debug)]
pub(crate) struct Export {
    collector: Collector,
    agent: ureq::Agent,
    resource: Resource,
    sources: Sources,
    spans: mpsc::Receiver<Span>,
    supervisor: Supervisor,
    batch: Vec<Span>,
    /// Pause before the next try, while the collector cannot be reached.
    pause: Option<Duration>,
    /// The log knows that the collector is away.
    told: bool,
    ending: bool,
}

impl Export {
    /// Sets the client up.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub(crate) fn new(collector: Collector, spans: mpsc::Receiver<Span>, sources: Sources, supervisor: Supervisor) -> anyhow::Result<Self> {
        let agent = client(&collector)?;
        let resource = Resource { instance: format!("{:016x}", rand::random::<u64>()), started_ms: clock::started().0 };
        Ok(Self { collector, agent, resource, sources, spans, supervisor, batch: Vec::new(), pause: None, told: false, ending: false })
    }

    /// Runs until the daemon ends; the last thing it does is to try once more.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let kill = self.supervisor.kill().clone();
        let mut numbers = tokio::time::interval(self.collector.interval);
        numbers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: Option<Instant> = None;
        loop {
            // A batch that is full takes no more: the line fills, and then invocations drop their spans.
            let open = self.batch.len() < SPAN_BATCH_MAX;
            tokio::select! {
                () = kill.cancelled() => return self.end().await,
                Some(span) = self.spans.recv(), if open => {
                    self.batch.push(span);
                    let full = self.batch.len() >= SPAN_BATCH_MAX && self.pause.is_none();
                    let wait = if full { Duration::ZERO } else { SPAN_PAUSE };
                    due = Some(due.map_or(Instant::now() + wait, |due| if full { Instant::now() } else { due }));
                }
                () = sleep_until(due) => due = self.send_spans().await.map(|pause| Instant::now() + pause),
                _ = numbers.tick() => self.send_numbers().await,
            }
        }
    }

    /// Sends the batch. Answers how long to wait when it is to be tried again.
    async fn send_spans(&mut self) -> Option<Duration> {
        if self.batch.is_empty() {
            return None;
        }
        let body = otlp::traces(&self.resource, &self.batch);
        match self.post("/v1/traces", body).await {
            Sent::Taken => {
                self.pause = None;
                self.told = false;
                self.batch.clear();
                None
            }
            Sent::Refused(reason) => {
                self.drop_batch(&reason);
                None
            }
            Sent::Later(reason) => {
                self.tell(&reason);
                let pause = self.pause.map_or(EXPORT_RETRY_MIN, |pause| (pause * 2).min(EXPORT_RETRY_MAX));
                self.pause = Some(pause);
                // Jitter: a collector that comes back is not met by all nodes at the same moment.
                Some(pause.mul_f64(rand::random_range(0.5..1.0)))
            }
        }
    }

    async fn send_numbers(&mut self) {
        let (sources, resource) = (self.sources.clone(), self.resource.clone());
        let gathered = tokio::task::spawn_blocking(move || otlp::metrics(&resource, &sources.gather(), clock::wall().0)).await;
        let Ok(body) = gathered else { return };
        match self.post("/v1/metrics", body).await {
            Sent::Taken => self.told = false,
            Sent::Refused(reason) | Sent::Later(reason) => self.tell(&reason),
        }
    }

    /// What is left goes out, if the collector takes it at once; else it is counted.
    async fn end(mut self) -> anyhow::Result<()> {
        self.ending = true;
        while let Ok(span) = self.spans.try_recv() {
            self.batch.push(span);
        }
        let last = async {
            self.send_spans().await;
            self.send_numbers().await;
        };
        if tokio::time::timeout(EXPORT_LAST_MAX, last).await.is_err() || !self.batch.is_empty() {
            log::warn!(spans = self.batch.len(); "the last spans may not have reached the collector");
        }
        Ok(())
    }

    fn drop_batch(&mut self, reason: &str) {
        self.sources.spans_dropped.fetch_add(self.batch.len() as u64, Relaxed);
        log::warn!(reason, spans = self.batch.len(); "the collector refuses spans; they are dropped");
        self.batch.clear();
        self.pause = None;
    }

    /// Once for each time that it is away.
    fn tell(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.told, true) {
            log::warn!(reason, collector = self.collector.url; "telemetry was not sent; it is tried again");
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Sent {
        let (agent, url) = (self.agent.clone(), format!("{}{path}", self.collector.url.trim_end_matches('/')));
        let headers = self.collector.headers.clone();
        let posting = tokio::task::spawn_blocking(move || {
            let mut request = agent.post(&url).header("content-type", "application/json");
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            request.send(body)
        });
        let kill = self.supervisor.kill();
        let posted = tokio::select! {
            posted = posting => posted,
            // A collector that hangs does not keep the daemon from its end.
            () = kill.cancelled(), if !self.ending => return Sent::Later("the daemon stops".to_owned()),
        };
        match posted {
            Ok(Ok(answer)) => match answer.status().as_u16() {
                200..=299 => Sent::Taken,
                status @ (408 | 429 | 502 | 503 | 504) => Sent::Later(format!("status {status}")),
                status => Sent::Refused(format!("status {status}")),
            },
            Ok(Err(error)) => Sent::Later(error.to_string()),
            Err(panic) => Sent::Later(panic.to_string()),
        }
    }
}

fn client(collector: &Collector) -> anyhow::Result<ureq::Agent> {
    let builder =
        ureq::Agent::config_builder().timeout_global(Some(EXPORT_TIMEOUT)).http_status_as_error(false).proxy(None).max_redirects(0);
    let config = if collector.url.starts_with("https:") {
        let roots = roots(collector).with_context(|| format!("telemetry.ca_file {}", collector.ca_file.display()))?;
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots)));
        builder.tls_config(tls.unversioned_rustls_crypto_provider(sedge_provisioning::tls::provider()).build()).build()
    } else {
        builder.build()
    };
    Ok(config.new_agent())
}

fn roots(collector: &Collector) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(&collector.ca_file)?;
    let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    });
    let roots: Vec<Certificate<'static>> = items.collect();
    anyhow::ensure!(!roots.is_empty(), "no certificate in it");
    Ok(roots)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
