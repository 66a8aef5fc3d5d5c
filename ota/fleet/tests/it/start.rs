use crate::support::{World, config};
use rustls::{ClientConnection, StreamOwned};
use sedge_fleet::{Fleet, StartError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_is_for_one_fleet() {
    let world = World::new().await;
    let second = Fleet::start(config(world.data.path())).await;
    assert!(matches!(second, Err(StartError::InUse(_))), "{second:?}");
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_for_nothing_is_ended() {
    let world = World::new().await;
    let (pin, address) = (world.addresses().ca_pin, world.addresses().https.trim_start_matches("https://").to_owned());
    let ended = spawn_blocking(move || {
        let tls = sedge_provisioning::tls::pinned_config(pin).unwrap();
        let client = ClientConnection::new(Arc::new(tls), "127.0.0.1".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        // A guard only: without the bound of the fleet nothing would ever come.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut stream = StreamOwned::new(client, socket);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHos").unwrap();
        let end = stream.read_to_end(&mut Vec::new());
        end.map_or_else(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof, |_| true)
    });
    assert!(ended.await.unwrap(), "half a head is not waited for");
}
