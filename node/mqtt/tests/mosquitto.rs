//! The clients most people use, from Debian's `mosquitto-clients`, as processes of their own.
#![allow(clippy::unwrap_used, reason = "a test may fail that way, its helpers too")]

mod common;

use std::process::Stdio;

use common::{Answer, Running, soon, start, start_with};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

fn client(program: &str, running: &Running, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &running.port().to_string()]).args(arguments).kill_on_drop(true);
    command
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    panic!("cannot run {program} ({error}): install it with `apt-get install -y mosquitto-clients`, or let `cargo xtask test` do it")
}

async fn publish(running: &Running, arguments: &[&str]) -> bool {
    let mut command = client("mosquitto_pub", running, arguments);
    let status = command.stderr(Stdio::null()).status();
    soon("mosquitto_pub ends", status).await.unwrap_or_else(|error| missing("mosquitto_pub", &error)).success()
}

/// Lines a subscriber prints, one a message; it has subscribed to as many filters as it names when this returns.
async fn subscribe(running: &Running, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let before = running.broker.stats().subscriptions;
    let filters = arguments.iter().filter(|argument| **argument == "-t").count();
    let mut command = client("mosquitto_sub", running, arguments);
    command.args(["-F", "%t %q %r %p"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| missing("mosquitto_sub", &error));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    running.until("mosquitto_sub subscribes", |stats| stats.subscriptions >= before + filters).await;
    (child, lines)
}

async fn heard(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    soon("message", lines.next_line()).await.unwrap().expect("mosquitto_sub runs")
}

#[tokio::test]
async fn every_qos_arrives_in_both_versions() {
    for version in ["mqttv311", "mqttv5"] {
        let mut running = start(Answer::Accept);
        let (_child, mut lines) = subscribe(&running, &["-V", version, "-t", "plant/+", "-q", "2"]).await;
        for qos in ["0", "1", "2"] {
            assert!(publish(&running, &["-V", version, "-t", "plant/1", "-q", qos, "-m", "hi"]).await);
            assert_eq!(heard(&mut lines).await, format!("plant/1 {qos} 0 hi"), "{version}");
            assert_eq!(running.next().await.payload(), "hi");
        }
        running.shut_down().await;
    }
}

#[tokio::test]
async fn retained_message_and_will_arrive() {
    for version in ["mqttv311", "mqttv5"] {
        let running = start(Answer::Accept);
        assert!(publish(&running, &["-V", version, "-t", "state", "-r", "-q", "1", "-m", "kept"]).await);
        let will = ["-V", version, "-t", "x", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"];
        let (mut mortal, _lines) = subscribe(&running, &will).await;
        let (_child, mut lines) = subscribe(&running, &["-V", version, "-t", "state", "-t", "will", "-q", "1"]).await;
        assert_eq!(heard(&mut lines).await, "state 1 1 kept");
        mortal.kill().await.unwrap();
        assert_eq!(heard(&mut lines).await, "will 1 0 gone");
        running.shut_down().await;
    }
}

#[tokio::test]
async fn thousand_lines_arrive_in_order() {
    use tokio::io::AsyncWriteExt;

    let mut running = start(Answer::Accept);
    let mut child = client("mosquitto_pub", &running, &["-t", "t", "-q", "1", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing("mosquitto_pub", &error));
    let mut input = child.stdin.take().unwrap();
    let text: String = (0..1000).map(|number| format!("{number}\n")).collect();
    input.write_all(text.as_bytes()).await.unwrap();
    drop(input);
    for number in 0..1000 {
        assert_eq!(running.next().await.payload(), number.to_string());
    }
    assert!(soon("mosquitto_pub ends", child.wait()).await.unwrap().success());
    running.shut_down().await;
}

#[tokio::test]
async fn only_users_are_let_in() {
    let running = start_with(Answer::Accept, vec![("ann".into(), "secret".into())]);
    assert!(publish(&running, &["-u", "ann", "-P", "secret", "-t", "t", "-m", "x"]).await);
    assert!(!publish(&running, &["-u", "ann", "-P", "guess", "-t", "t", "-m", "x"]).await);
    assert!(!publish(&running, &["-t", "t", "-m", "x"]).await);
    running.shut_down().await;
}

#[tokio::test]
async fn refusal_is_told_to_the_user_in_mqtt_5() {
    let running = start(Answer::Refuse);
    let mut command = client("mosquitto_pub", &running, &["-V", "mqttv5", "-t", "t", "-q", "1", "-m", "x"]);
    let output = soon("mosquitto_pub ends", command.output()).await.unwrap_or_else(|error| missing("mosquitto_pub", &error));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Quota exceeded"), "{said}");
    running.shut_down().await;
}
