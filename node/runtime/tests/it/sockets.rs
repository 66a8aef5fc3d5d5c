//! Sockets of functions: only towards what the manifest names, never listening.

use crate::support::{Bench, ask};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

fn granting(sockets: &[String]) -> String {
    let list: Vec<String> = sockets.iter().map(|socket| format!("\"{socket}\"")).collect();
    format!(
        "[limits]\ntimeout_ms = 5000\nmemory_mb = 32\n[access]\nkeyvalue = [\"own\"]\nblobstore = [\"files\"]\nsockets = [{}]\n",
        list.join(", ")
    )
}

/// Answers `pong` to every `ping`.
async fn tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut ping = [0; 4];
                while stream.read_exact(&mut ping).await.is_ok() {
                    drop(stream.write_all(b"pong").await);
                }
            });
        }
    });
    address
}

async fn udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ping = [0; 4];
        while let Ok((_, from)) = socket.recv_from(&mut ping).await {
            drop(socket.send_to(b"pong", from).await);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn granted_sockets_connect_and_send() {
    let (bench, tcp, udp) = (Bench::new(), tcp().await, udp().await);
    let reach =
        bench.guest("reach", &granting(&[format!("tcp://{tcp}"), format!("udp://{udp}"), format!("tcp://localhost:{}", tcp.port())]));
    for path in [format!("tcp?{tcp}"), format!("tcp?localhost:{}", tcp.port()), format!("udp?{udp}")] {
        let (status, text, _) = ask(&reach, &format!("/reach/{path}"), "").await;
        assert_eq!((status, text.as_str()), (200, "pong"), "{path}");
    }
    let (status, text, _) = ask(&reach, "/reach/look-up?localhost", "").await;
    assert!(status == 200 && text.contains("127.0.0.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_the_manifest_stands_for_its_addresses() {
    let (bench, tcp) = (Bench::new(), tcp().await);
    let reach = bench.guest("reach", &granting(&[format!("tcp://localhost:{}", tcp.port())]));
    let (status, text, _) = ask(&reach, &format!("/reach/tcp?{tcp}"), "").await;
    assert_eq!((status, text.as_str()), (200, "pong"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_with_the_line_to_add() {
    let (bench, tcp, udp) = (Bench::new(), tcp().await, udp().await);
    let none = bench.guest("reach", &granting(&[]));
    let (status, _, _) = ask(&none, &format!("/reach/tcp?{tcp}"), "").await;
    assert_eq!(status, 500);
    assert!(bench.host.logged(&["wasi:sockets/tcp: a tcp socket was refused", "add `sockets = [\"tcp://host:port\"]` under [access]"]));
    let some = bench.guest("reach", &granting(&["tcp://127.0.0.1:1".to_owned(), format!("udp://127.0.0.1:{}", tcp.port())]));
    for path in [
        format!("tcp?{tcp}"),
        format!("udp?{udp}"),
        "look-up?example.org".to_owned(),
        "tcp-listen?0.0.0.0:0".to_owned(),
        "tcp-listen?127.0.0.1:0".to_owned(),
    ] {
        let (status, text, _) = ask(&some, &format!("/reach/{path}"), "").await;
        assert_eq!(status, 500, "{path}: {text}");
    }
    assert!(bench.host.logged(&["wasi:sockets/tcp", &format!("add `sockets = [\"tcp://{tcp}\"]`")]));
    assert!(bench.host.logged(&["wasi:sockets/ip-name-lookup: the name `example.org` was refused"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_one_invocation_are_bounded() {
    let (bench, tcp) = (Bench::new(), tcp().await);
    let reach = bench.guest("reach", &granting(&[format!("tcp://{tcp}")]));
    let (status, text, _) = ask(&reach, &format!("/reach/tcp-hoard?{tcp}"), "").await;
    assert!(status == 200 && text.starts_with("64: "), "{text}");
}
