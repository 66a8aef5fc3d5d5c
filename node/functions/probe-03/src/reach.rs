//! What it reaches for, and what came of it.

use wasip3::http::client;
use wasip3::http::types::{Fields, Method, Request, Response, Scheme};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket};
use wasip3::{wit_future, wit_stream};

mod imports {
    wit_bindgen::generate!({ world: "probe", path: "wit", generate_all });
}
use imports::wasi::config::store as config;
use imports::wasi::keyvalue::{atomics, store as keyvalue};
use imports::wasi::logging::logging;
use imports::wasi::messaging::{producer, types::Client, types::Message};

pub(crate) type Outcome = Result<String, String>;

pub(crate) fn told<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

/// `argument` is what stands behind the question mark.
pub(crate) async fn reach(verb: &str, argument: &str) -> Outcome {
    match verb {
        "config" => config::get(argument).map(Option::unwrap_or_default).map_err(told),
        "count" => {
            let bucket = keyvalue::open("default").map_err(told)?;
            atomics::increment(&bucket, argument, 1).map(|count| count.to_string()).map_err(told)
        }
        "publish" => {
            let client = Client::connect("").map_err(told)?;
            producer::send(&client, argument, Message::new(b"from 0.3")).map(|()| "sent".to_owned()).map_err(told)
        }
        "line" => {
            logging::log(logging::Level::Warn, "probe", argument);
            Ok("logged".to_owned())
        }
        "fetch" => fetch(argument).await,
        "tcp" => tcp(argument).await,
        "udp" => UdpSocket::create(IpAddressFamily::Ipv4).map(|_| "made".to_owned()).map_err(told),
        "look-up" => resolve_addresses(argument.to_owned()).await.map(told).map_err(told),
        "files" => crate::file::files(argument).await,
        "read" => std::fs::read_to_string(argument).map_err(|error| error.to_string()),
        other => Err(format!("no verb `{other}`")),
    }
}

/// `POST http://host/path` with a body, answered with status and body.
async fn fetch(url: &str) -> Outcome {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (mut body, contents) = wit_stream::new();
    let (trailers, end) = wit_future::new(|| Ok(None));
    drop(trailers); // there are none: as long as it is held, the request does not end
    let (request, _sent) = Request::new(Fields::new(), Some(contents), end, None);
    let _ = request.set_method(&Method::Post);
    let _ = request.set_scheme(Some(&if scheme == "https" { Scheme::Https } else { Scheme::Http }));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(&format!("/{path}")));
    wasip3::spawn_local(async move {
        body.write_all(b"asked".to_vec()).await;
    });
    let response = client::send(request).await.map_err(told)?;
    let status = response.get_status_code();
    let (_done, done) = wit_future::new(|| Ok(()));
    let (answer, _end) = Response::consume_body(response, done);
    Ok(format!("{status} {}", String::from_utf8_lossy(&answer.collect().await)))
}

/// Connects to `a.b.c.d:port` and says what it hears.
async fn tcp(to: &str) -> Outcome {
    let to: std::net::SocketAddrV4 = to.parse().map_err(told)?;
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(told)?;
    let [a, b, c, d] = to.ip().octets();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: to.port(), address: (a, b, c, d) });
    socket.connect(address).await.map_err(told)?;
    let (heard, _end) = socket.receive();
    Ok(String::from_utf8_lossy(&heard.collect().await).into_owned())
}
