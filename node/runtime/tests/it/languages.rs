//! Functions in other languages and of other people's SDKs, built with the real tools by `cargo xtask guests`, run unchanged.

use crate::support::{Bench, event, get};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_runtime::{Failure, Function, Invocation};
use serde_json::Value;

/// More than the largest of the guests asks for.
const LIMITS: &str = "[limits]\nmemory_mb = 128\ntimeout_ms = 60000\n";

/// A machine that has room for several of them.
fn bench() -> Bench {
    Bench::of_memory(2048)
}

async fn post(function: &Function, path: &str, data: &'static [u8]) -> Result<(u16, Bytes), Failure> {
    let request = http::Request::post(path).header("host", "node.local").body(Full::new(Bytes::from_static(data))).unwrap();
    let response = function.http(request, Invocation::new("i-1", (), drop)).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await.unwrap().to_bytes()))
}

async fn reply(function: &Function, data: &[u8]) -> Result<Bytes, Failure> {
    function.event(&event(data), Invocation::new("i-2", (), drop)).await.map(|reply| reply.data)
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|fault| panic!("{fault}: {:?}", String::from_utf8_lossy(text)))
}

/// What every template but those in Rust does: greets, and turns °C into °F, for a request and for an event.
async fn check_template(name: &str) {
    let bench = bench();
    let name = format!("template-{name}");
    let function = bench.guest(&name, LIMITS);
    let (response, ending) = get(&function, &format!("/{name}")).await;
    let response = response.unwrap_or_else(|failure| panic!("{name}: {failure} {:?}", bench.host.log()));
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), format!("hello from {name}\n"));
    assert_eq!(ending.await.unwrap().result, Ok(()));
    let (status, body) = post(&function, "/", br#"{"value": 20}"#).await.unwrap();
    assert_eq!((status, json(&body)["value"].as_f64()), (200, Some(68.0)), "{name}");
    let answer = reply(&function, br#"{"value": -40, "unit": "C"}"#).await.unwrap();
    assert_eq!(json(&answer)["value"].as_f64(), Some(-40.0), "{name}");
    let failure = reply(&function, b"warm").await.unwrap_err();
    assert!(matches!(failure, Failure::Exit { code: 1 } | Failure::Status { code: 400, .. }), "{name}: {failure:?}");
    let log = bench.host.log().join("\n");
    assert!(!log.is_empty(), "{name} says why");
}

#[tokio::test]
async fn a_function_in_go() {
    check_template("go").await;
}

#[tokio::test]
async fn a_function_in_c() {
    check_template("c").await;
}

#[tokio::test]
async fn a_function_in_zig() {
    check_template("zig").await;
}

#[tokio::test]
async fn a_function_in_assemblyscript() {
    check_template("assemblyscript").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: an interpreter of thirty megabytes, a minute of compilation"]
async fn a_function_in_ruby() {
    check_template("ruby").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
async fn a_function_in_python() {
    check_template("python").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
async fn a_function_in_javascript() {
    check_template("javascript").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
async fn a_function_in_typescript() {
    check_template("typescript").await;
}

#[tokio::test]
async fn functions_in_rust_as_the_templates_make_them() {
    let bench = bench();
    let http = bench.guest("template-rust-http", LIMITS);
    let (response, _) = get(&http, "/template-rust-http").await;
    assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "hello from template-rust-http\n");
    assert_eq!(reply(&http, b"12345").await.unwrap(), "5 bytes of data\n");
    let http = bench.guest("template-rust-http-03", LIMITS);
    let (response, _) = get(&http, "/template-rust-http-03").await;
    assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "hello from template-rust-http-03\n");
    assert_eq!(reply(&http, b"12345").await.unwrap(), "5 bytes of data\n");
    let command = bench.guest("template-rust-command", LIMITS);
    assert_eq!(reply(&command, b"12345").await.unwrap(), "5 bytes from plant/a/temperature\n");
    assert_eq!(post(&command, "/", b"12").await.unwrap().0, 200);
}

/// Answers with the method, the path, an attribute of the event and the data.
async fn check_sdk(sdk: &str) {
    let bench = bench();
    let function = bench.guest(sdk, LIMITS);
    let (status, body) = post(&function, &format!("/{sdk}/a?b=c"), b"data").await.unwrap();
    assert_eq!((status, body), (200, format!("POST /{sdk}/a - data").into()));
    assert_eq!(post(&function, "/x/missing", b"").await.unwrap().0, 404);
    assert_eq!(reply(&function, b"data").await.unwrap(), "POST / plant/a/temperature data");
}

#[tokio::test]
async fn a_component_of_wstd_runs_unchanged() {
    check_sdk("sdk-wstd").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: many dependencies, each compiled"]
async fn a_component_of_the_spin_sdk_runs_unchanged() {
    check_sdk("sdk-spin").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: many dependencies, each compiled"]
async fn a_component_of_the_spin_sdk_for_03_runs_unchanged() {
    check_sdk("sdk-spin-7").await;
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
async fn a_component_of_componentize_py_runs_unchanged() {
    let settings = format!("{LIMITS}[settings]\ngreeting = \"from a setting\"\n");
    let function = bench().guest("hello-python", &settings);
    let (response, ending) = get(&function, "/hello-python").await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"text/plain; charset=utf-8".parse().unwrap()));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "from a setting");
    assert_eq!(ending.await.unwrap().result, Ok(()));
    assert_eq!(reply(&function, b"data").await.unwrap(), "from a setting");
}

#[tokio::test]
async fn registers_of_a_meter_become_json() {
    let bench = bench();
    let modbus = bench.guest("modbus", LIMITS);
    let answer = [3, 14, 0x08, 0xFC, 0, 0, 0x04, 0xD2, 0x44, 0x89, 0x80, 0, 0, 0b11, 0, 5];
    let meter = json(&reply(&modbus, &answer).await.unwrap());
    assert_eq!((meter["voltage_v"].as_f64(), meter["current_a"].as_f64()), (Some(230.0), Some(1.234)));
    assert_eq!(meter["alarms"], serde_json::json!(["overload", "undervoltage"]));
    assert_eq!(reply(&modbus, &[0x83, 6]).await, Err(Failure::Exit { code: 1 }));
    assert!(bench.host.log().iter().any(|line| line.contains("busy")), "{:?}", bench.host.log());
}

#[tokio::test]
async fn readings_are_rolled_up_into_hours() {
    let bench = bench();
    let rollup = bench.guest("rollup", LIMITS);
    let csv = b"time,sensor,value\n2026-11-23T10:15:00Z,boiler,20\n2026-11-23T10:45:00Z,boiler,30\n";
    let expected = "hour,sensor,count,min,mean,max\n2026-11-23T10:00:00Z,boiler,2,20,25,30\n";
    assert_eq!(post(&rollup, "/rollup", csv).await.unwrap(), (200, expected.into()));
    assert_eq!(reply(&rollup, csv).await.unwrap(), expected);
    assert!(reply(&rollup, b"time,sensor,value\nsoon,a,1\n").await.is_err());
    assert!(bench.host.log().iter().any(|line| line.contains("line 2")), "{:?}", bench.host.log());
}

/// A grey picture of one pixel.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\
    \0\0\0\nIDATx\xdac`\0\0\0\x02\0\x01\xe5'\xde\xfc\0\0\0\0IEND\xaeB`\x82";

#[tokio::test]
async fn a_picture_becomes_a_thumbnail() {
    let bench = bench();
    let thumbnail = bench.guest("thumbnail", LIMITS);
    let (status, small) = post(&thumbnail, "/thumbnail?side=16", PNG).await.unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&small));
    assert!(small.starts_with(b"\x89PNG"));
    assert!(reply(&thumbnail, PNG).await.unwrap().starts_with(b"\x89PNG"));
    for (path, data, expected) in [("/thumbnail", &b"GIF89a"[..], 415), ("/thumbnail?side=1", PNG, 400), ("/thumbnail", &PNG[..40], 422)] {
        assert_eq!(post(&thumbnail, path, data).await.unwrap().0, expected, "{path}");
    }
}

#[tokio::test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
async fn lines_of_one_protocol_become_another() {
    let bench = bench();
    let translate = bench.guest("translate", LIMITS);
    let records = json(&reply(&translate, b"meter,site=a power=1.5 1700000000000000000\n").await.unwrap());
    assert_eq!(records, serde_json::json!([{"n": "meter/a/power", "v": 1.5, "t": 1_700_000_000}]));
    assert_eq!(post(&translate, "/translate", b"meter").await.unwrap().0, 400);
}

#[tokio::test]
async fn a_page_travels_with_its_assets() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/page.wasm");
    let bytes = std::fs::read(path).expect("run cargo xtask guests first");
    let assets = sedge_protocol::assets::read(&bytes).unwrap().unwrap();
    let paths: Vec<&str> = assets.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["clock.js", "index.html", "style.css"]);
    let page = bench().try_bytes(&bytes, LIMITS).unwrap();
    for path in ["/page/missing.html", "/page/../etc/passwd", "/other"] {
        assert_eq!(get(&page, path).await.0.unwrap().status(), 404, "{path}");
    }
}
