//! What others see of a node: numbers for Prometheus, traces and numbers for a collector, and the trace that goes through functions.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::collector::{Collector, Mood};
use fleet_tests::exposition::Scrape;
use fleet_tests::http::Target;
use fleet_tests::{Node, Subscriber, artifact, until};
use http::Method;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A command that replies with its environment, entries separated by zero bytes.
const ENVIRONMENT: &str = r#"(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $get (i32.const 64) (i32.const 4096)))
    (i32.store (i32.const 16) (i32.const 4096))
    (i32.store (i32.const 20) (i32.load (i32.const 4)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#;

fn node_with(directory: &tempfile::TempDir, keys: &str) -> Result<Node> {
    let node = Node::start_with(directory.path(), "node-1", None, keys)?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    Ok(node)
}

/// `GET path` from the HTTP triggers, with these headers.
fn fetch(node: &Node, path: &str, headers: &[(&str, &str)]) -> Result<String> {
    let Target::Tcp(address) = node.http() else { anyhow::bail!("no TCP address") };
    let mut request = ureq::get(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.call()?.body_mut().read_to_string()?)
}

/// The scrape of the listener, when it is as the local API has it.
fn scrape(node: &Node) -> Result<Scrape> {
    let address = node.status()?.metrics.context("no listener of metrics")?.parse()?;
    let answer = fleet_tests::http::exchange(&Target::Tcp(address), Method::GET, "/metrics", "")?;
    anyhow::ensure!(answer.status.is_success(), "{}", answer.status);
    Scrape::parse(&answer.text())
}

/// Name, labels and value of a sample that is expected.
type Sample<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[test]
fn a_scrape_is_valid_and_counts_what_was_done() -> Result<()> {
    let directory = directory()?;
    let node = node_with(&directory, "metrics.listen = '127.0.0.1:0'")?;
    for _ in 0..5 {
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    }
    for (path, status) in [("/faulty/trap", 500), ("/faulty/loop", 504), ("/faulty/print-a-lot", 200), ("/metrics", 404), ("/no", 404)] {
        assert_eq!(node.fetch(path)?.status.as_u16(), status, "{path}");
    }
    assert!(node.invoke(&function("faulty"), "test/x", "ok")?.ok);
    let requests = "http_server_request_duration_seconds_count";
    let scrape = until("the last request is counted", || {
        let scrape = scrape(&node)?;
        Ok((scrape.sum(requests, &[]) >= 10.0 && scrape.sum("http_server_active_requests", &[]) < 0.5).then_some(scrape))
    })?;
    let expected: [Sample<'_>; 14] = [
        ("faas_invocations_total", &[("faas_name", "hello"), ("faas_trigger", "http")], 5.0),
        ("faas_invocations_total", &[("faas_name", "faulty"), ("faas_trigger", "http")], 1.0),
        ("faas_invocations_total", &[("faas_name", "faulty"), ("faas_trigger", "other")], 1.0),
        ("faas_errors_total", &[("faas_name", "faulty"), ("faas_trigger", "http")], 1.0),
        ("faas_timeouts_total", &[("faas_name", "faulty"), ("faas_trigger", "http")], 1.0),
        ("faas_errors_total", &[("faas_name", "hello")], 0.0),
        ("faas_coldstarts_total", &[("faas_name", "hello")], 1.0),
        ("faas_invoke_duration_seconds_count", &[("faas_name", "faulty")], 4.0),
        ("faas_mem_usage_bytes_count", &[("faas_name", "hello")], 5.0),
        ("faas_init_duration_seconds_count", &[("faas_name", "hello")], 1.0),
        (requests, &[("http_route", "/faulty/*"), ("http_response_status_code", "504"), ("http_request_method", "GET")], 1.0),
        (requests, &[("http_response_status_code", "404")], 2.0),
        ("sedge_admission_waiting", &[], 0.0),
        ("sedge_admission_refused_total", &[], 0.0),
    ];
    for (name, labels, value) in expected {
        assert!((scrape.sum(name, labels) - value).abs() < 1e-9, "{name}{labels:?}: {} and not {value}", scrape.sum(name, labels));
    }
    for name in ["faas_cpu_usage_seconds_total", "faas_net_io_bytes_total", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
        assert!(scrape.sum(name, &[]) > 0.0, "{name}");
    }
    for name in
        ["sedge_admission_limit", "sedge_admission_memory_free_bytes", "sedge_store_bytes_written_total", "sedge_logs_dropped_total"]
    {
        assert!(scrape.sum(name, &[]) > 0.0, "{name}");
    }
    for (name, kind) in [("sedge_bus_events_total", "counter"), ("sedge_bus_waiting", "gauge"), ("sedge_usage_unsent", "gauge")] {
        assert!(scrape.has(name, kind), "{name}");
    }
    assert!(
        scrape.values_of("http_route").iter().all(|route| ["/hello", "/hello/*", "/faulty/*"].contains(route)),
        "only routes of manifests"
    );
    let local = node.ask(Method::GET, "/v1/metrics", "")?;
    assert!((Scrape::parse(&local.text())?.sum("faas_invocations_total", &[]) - 7.0).abs() < 1e-9, "the local API says the same");
    Ok(())
}

#[test]
fn a_trace_goes_through_functions_and_one_that_is_not_valid_begins_anew() -> Result<()> {
    let directory = directory()?;
    let node = node_with(&directory, "")?;
    let seen = fetch(&node, "/faulty/trace", &[("traceparent", CALLER)])?;
    assert!(
        seen.starts_with(&format!("00-{TRACE}-")) && seen.ends_with("-01") && seen != CALLER,
        "{seen}: the trace goes on in a span of its own"
    );
    let span = &seen[36..52];
    until("the line of the function names the span", || {
        let named = node
            .logs(&function("faulty"))?
            .into_iter()
            .any(|entry| entry.text == "traced" && entry.trace_id.as_deref() == Some(TRACE) && entry.span_id.as_deref() == Some(span));
        Ok(named.then_some(()))
    })?;
    for wrong in [
        "",
        "00-nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        let seen = fetch(&node, "/faulty/trace", &[("traceparent", wrong)])?;
        assert!(seen.len() == 55 && !seen.contains(TRACE) && seen.ends_with("-00"), "{wrong}: {seen}");
    }
    for (name, triggers) in [
        ("first", "[[trigger]]\nhttp = '/first'\n[[trigger]]\nmqtt = 'trace/in'\nqos = 1\nreply = 'trace/mid'\n"),
        ("second", "[[trigger]]\nmqtt = 'trace/mid'\nqos = 1\nreply = 'trace/out'\n"),
    ] {
        node.give(&artifact::manifest_of(&format!("name = '{name}'\n{triggers}"))?, &wat::parse_str(ENVIRONMENT)?)?;
    }
    let seen = fetch(&node, "/first", &[("traceparent", CALLER), ("tracestate", "vendor=1")])?;
    assert!(variable(&seen, "TRACEPARENT")?.contains(TRACE), "{seen}");
    assert_eq!(variable(&seen, "TRACESTATE")?, "vendor=1");
    let replies = [Subscriber::start(node.mqtt(), "trace/mid")?, Subscriber::start(node.mqtt(), "trace/out")?];
    let load = fleet_tests::Load::start(node.mqtt(), Duration::from_secs(60), |_| ("trace/in".to_owned(), "x".to_owned()));
    let [mid, out] = until("the event went through both functions", || {
        let [mid, out] = [0, 1].map(|at: usize| replies[at].received().first().map(|(_, data)| data.clone()));
        Ok(mid.zip(out).map(|(mid, out)| [mid, out]))
    })?;
    load.stop()?;
    let (first, second) = (variable(&mid, "TRACEPARENT")?, variable(&out, "CE_TRACEPARENT")?);
    assert_eq!((first.len(), &first[..35]), (55, &second[..35]), "one trace");
    assert_ne!(&first[36..52], &second[36..52], "two spans");
    Ok(())
}

#[test]
fn outgoing_calls_carry_the_trace_inside_the_node_and_beyond() -> Result<()> {
    let (directory, listener) = (directory()?, std::net::TcpListener::bind("127.0.0.1:0")?);
    let outside = format!("http://{}", listener.local_addr()?);
    let node = node_with(&directory, "")?;
    let access = format!("[access]\nkeyvalue = ['own']\nblobstore = ['files']\noutgoing = ['http://faulty.sedge.internal', '{outside}']\n");
    let manifest = artifact::manifest_of(&format!("name = 'reach'\n[[trigger]]\nhttp = '/reach/*'\n{access}"))?;
    node.give(&manifest, &artifact::guest("reach")?)?;
    let seen = fetch(&node, "/reach/fetch?http://faulty.sedge.internal/trace", &[("traceparent", CALLER)])?;
    assert!(seen.starts_with(&format!("00-{TRACE}-")) && seen != CALLER, "{seen}");
    let head = std::thread::spawn(move || -> Result<String> {
        let (stream, _) = listener.accept()?;
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while reader.read_line(&mut head)? > 2 {}
        write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        Ok(head)
    });
    fetch(&node, &format!("/reach/fetch?{outside}/x"), &[("traceparent", CALLER), ("tracestate", "vendor=1")])?;
    let head = head.join().map_err(|_| anyhow::anyhow!("the other machine panicked"))??;
    assert!(head.contains(&format!("traceparent: 00-{TRACE}-")) && head.contains("tracestate: vendor=1"), "{head}");
    assert!(!head.contains(CALLER), "the span is the function's own");
    Ok(())
}

fn variable<'a>(environment: &'a str, name: &str) -> Result<&'a str> {
    let found = environment.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    found.with_context(|| format!("no {name} in {environment}"))
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    span["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?["value"]["stringValue"].as_str()
}

#[test]
fn a_collector_gets_each_span_and_the_numbers() -> Result<()> {
    let (directory, collector) = (directory()?, Collector::start(Mood::Takes)?);
    let node = node_with(
        &directory,
        &format!("telemetry.otlp = '{}'\ntelemetry.interval_s = 1\ntelemetry.headers.x-tenant = 'a'", collector.url()),
    )?;
    fetch(&node, "/hello", &[("traceparent", CALLER), ("tracestate", "vendor=1")])?;
    assert_eq!(node.fetch("/faulty/trap")?.status.as_u16(), 500);
    let unsampled = CALLER.replace("-01", "-00");
    fetch(&node, "/hello", &[("traceparent", unsampled.as_str())])?;
    let spans = until("both spans are there", || Ok(Some(collector.spans()).filter(|spans| spans.len() >= 2)))?;
    assert_eq!(spans.len(), 2, "what its caller does not record is not recorded: {spans:?}");
    let of = |name: &str| spans.iter().find(|span| attribute(span, "faas.name") == Some(name)).context("no span");
    let hello = of("hello")?;
    assert_eq!(
        (hello["traceId"].as_str(), hello["parentSpanId"].as_str(), hello["traceState"].as_str()),
        (Some(TRACE), Some("00f067aa0ba902b7"), Some("vendor=1"))
    );
    assert_eq!(
        (hello["kind"].as_u64(), attribute(hello, "faas.trigger"), attribute(hello, "http.request.method")),
        (Some(2), Some("http"), Some("GET"))
    );
    assert!(hello["status"].is_null() && attribute(hello, "http.route").is_some() && attribute(hello, "faas.invocation_id").is_some());
    let nanos = |key: &str| hello[key].as_str().and_then(|text| text.parse::<u64>().ok()).context("no time");
    assert!(nanos("startTimeUnixNano")? < nanos("endTimeUnixNano")?);
    let faulty = of("faulty")?;
    assert_eq!((faulty["status"]["code"].as_u64(), faulty["parentSpanId"].is_null()), (Some(2), true));
    let sent = until("the numbers say what was done", || {
        Ok(collector.received("/v1/metrics").into_iter().rfind(|received| invocations(&received.body) == Some(2)))
    })?;
    assert!(sent.headers.contains(&("x-tenant".to_owned(), "a".to_owned())));
    Ok(())
}

/// `faas.invocations`, all points together.
fn invocations(body: &Value) -> Option<u64> {
    let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array()?;
    let metric = metrics.iter().find(|metric| metric["name"] == "faas.invocations")?;
    Some(metric["sum"]["dataPoints"].as_array()?.iter().filter_map(|point| point["asInt"].as_str()?.parse::<u64>().ok()).sum())
}

#[test]
fn a_collector_that_hangs_or_is_busy_holds_nothing_up_and_gets_the_spans_when_it_is_back() -> Result<()> {
    let (directory, collector) = (directory()?, Collector::start(Mood::Busy)?);
    let mut node = node_with(&directory, &format!("telemetry.otlp = '{}'\nshutdown_grace_s = 1", collector.url()))?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    until("it was asked and was busy", || Ok((collector.came() >= 2).then_some(())))?;
    assert!(collector.spans().is_empty());
    collector.set(Mood::Takes);
    until("the span came when it was back", || Ok((collector.spans().len() == 1).then_some(())))?;
    collector.set(Mood::Hangs);
    let came = collector.came();
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    until("the exporter waits for it", || Ok((collector.came() > came).then_some(())))?;
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "requests wait for nobody's collector");
    assert_eq!(node.stop()?.code(), Some(0), "nor does the end of the daemon");
    Ok(())
}

#[test]
fn a_collector_that_is_not_there_is_said_once_and_the_node_goes_on() -> Result<()> {
    let directory = directory()?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let node = node_with(&directory, &format!("telemetry.otlp = 'http://{nobody}'\ntelemetry.interval_s = 1"))?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    until("the log says it", || Ok(node.process().log()?.contains("telemetry was not sent").then_some(())))?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    Ok(())
}
