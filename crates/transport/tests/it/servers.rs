//! Servers on a free local port, and the clock and the waits of the tests.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use fathom_market::plan::{ConnectSpec, KeepAlive, OutFrame, SessionRules};
use fathom_transport::{TlsConfig, UtcClock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_tungstenite::{WebSocketStream, accept_async};

/// The longest that a loaded machine may take for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Microseconds that follow tokio's clock, paused or not.
pub(crate) fn clock() -> UtcClock {
    let start = Instant::now();
    Arc::new(move || 1_700_000_000_000_000 + i64::try_from(start.elapsed().as_micros()).unwrap())
}

pub(crate) fn tls() -> Arc<rustls::ClientConfig> {
    TlsConfig::default().client_config().unwrap()
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came in time")
}

pub(crate) fn rules() -> SessionRules {
    SessionRules {
        connect_deadline: PATIENCE,
        ack_deadline: PATIENCE,
        first_data_deadline: PATIENCE,
        idle_timeout: PATIENCE,
        keep_alive: KeepAlive::ServerPings,
        life_limit: Duration::from_secs(86_400),
        messages_per_second: 1000,
        max_frame_bytes: 1 << 20,
    }
}

pub(crate) fn frame(text: &str, ack: Option<u64>) -> OutFrame {
    OutFrame { text: text.into(), ack }
}

pub(crate) fn spec(url: &str, subscribe: Vec<OutFrame>, rules: SessionRules) -> ConnectSpec {
    ConnectSpec { url: url.into(), subscribe, rules }
}

/// Accepts one WebSocket and runs `script` on it; returns its address.
pub(crate) async fn ws_server<F, Fut>(script: F) -> String
where
    F: FnOnce(WebSocketStream<TcpStream>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/stream", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        script(accept_async(tcp).await.unwrap()).await;
    });
    url
}

/// Answers every request, one connection each, with what `answer` makes of its head; an answer of `None` never comes.
/// Returns the base address and the heads received.
pub(crate) async fn http_server<F>(answer: F) -> (String, Arc<Mutex<Vec<String>>>)
where
    F: Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (answer, log) = (Arc::new(answer), Arc::clone(&heads));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp, Arc::clone(&answer), Arc::clone(&log)));
        }
    });
    (base, heads)
}

async fn serve<F>(mut tcp: TcpStream, answer: Arc<F>, log: Arc<Mutex<Vec<String>>>)
where
    F: Fn(&str) -> Option<Vec<u8>>,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    log.lock().unwrap().push(head.clone());
    match answer(&head) {
        Some(bytes) => {
            // The client may have given up, and that is its good right.
            let _ = tcp.write_all(&bytes).await;
            let _ = tcp.shutdown().await;
        }
        None => std::future::pending().await,
    }
}

/// An HTTP/1.1 answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        bytes += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (bytes + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
