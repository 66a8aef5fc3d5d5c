//! HTTP load by `wrk`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process;
use super::report::{HttpFigure, Latency};
use super::target::Target;

/// How often the node's memory is looked at meanwhile.
const SAMPLE: Duration = Duration::from_millis(200);

/// Calls `/hello` over so many connections; also gives the largest resident memory of the node meanwhile, bytes.
pub(crate) async fn http(target: &Target, connections: u32, duration: Duration) -> Result<(HttpFigure, u64)> {
    let url = format!("http://{}/hello", target.http());
    let wrk = wrk(&url, connections, duration);
    tokio::pin!(wrk);
    let mut peak = 0;
    loop {
        tokio::select! {
            figure = &mut wrk => return Ok((figure?, peak)),
            () = tokio::time::sleep(SAMPLE) => peak = process::resident(target.pid())?.max(peak),
        }
    }
}

/// Calls `url` over so many connections.
pub(crate) async fn wrk(url: &str, connections: u32, duration: Duration) -> Result<HttpFigure> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "-t", &connections.min(2).to_string(), "-c", &connections.to_string()]);
    command.args(["-d", &format!("{}s", duration.as_secs().max(1)), url]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let (per_second, latency) = parse(&text).with_context(|| format!("read what wrk printed:\n{text}"))?;
    Ok(HttpFigure { connections, per_second, latency })
}

fn parse(text: &str) -> Result<(f64, Latency)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no `{name}`"))
    };
    ensure!(!text.contains("Non-2xx"), "not every answer was good");
    Ok((field("Requests/sec:")?.parse()?, Latency { p50_ms: milliseconds(field("50%")?)?, p99_ms: milliseconds(field("99%")?)? }))
}

/// `1.25ms`, `870.00us` or `1.10s`.
fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor))).context("a time has a unit")?;
    Ok(number.parse::<f64>().with_context(|| format!("`{text}` is no time"))? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 3s test @ http://127.0.0.1:1/hello\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n  Latency Distribution\n     \
                           50%  870.00us\n     75%    1.10ms\n     90%    1.30ms\n     99%    2.50ms\n  30000 requests in 3.00s, 4MB read\n\
                           Requests/sec:  10000.50\nTransfer/sec:      1.3MB\n";

    #[test]
    fn what_wrk_prints_is_read() {
        let (per_second, latency) = parse(PRINTED).unwrap();
        assert!((per_second - 10_000.5).abs() < 1e-9);
        assert!((latency.p50_ms - 0.87).abs() < 1e-9 && (latency.p99_ms - 2.5).abs() < 1e-9);
        assert!(parse(&format!("{PRINTED}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!((milliseconds("1.5s").unwrap() - 1500.0).abs() < 1e-9);
        assert!(milliseconds("fast").is_err());
    }
}
