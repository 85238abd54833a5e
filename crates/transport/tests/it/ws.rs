//! Sessions against a scripted server.

use std::time::Duration;

use fathom_market::plan::{KeepAlive, SessionRules};
use fathom_transport::{
    ErrorClass, Full, Session, SessionEnd, SessionEvent, SessionOptions, SessionWarning, TransportError,
    ws::{connect, connect_with},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::servers::{clock, frame, in_time, rules, spec, tls, ws_server};

const SHORT: Duration = Duration::from_millis(200);

/// A server that reads and answers what the protocol asks for, and says nothing of its own.
async fn silent_server() -> String {
    ws_server(|mut ws| async move { while let Some(Ok(_)) = ws.next().await {} }).await
}

async fn open(url: &str, rules: SessionRules) -> Session {
    connect(spec(url, vec![], rules), tls(), clock()).await.unwrap()
}

/// Everything until the end: the frames as text, and the end.
async fn drain(session: &mut Session) -> (Vec<String>, SessionEnd) {
    let mut frames = Vec::new();
    loop {
        match in_time(session.next()).await.expect("ended without saying so") {
            SessionEvent::Frames(batch) => {
                assert!(!batch.frames.is_empty());
                frames.extend(batch.frames.iter().map(|f| String::from_utf8(f.to_vec()).unwrap()));
            }
            SessionEvent::Warn(_) => {}
            SessionEvent::Ended(end) => {
                assert_eq!(in_time(session.next()).await, None);
                return (frames, end);
            }
        }
    }
}

#[tokio::test]
async fn subscribes_in_order_and_at_the_venues_pace() {
    let (sent, mut received) = mpsc::unbounded_channel();
    let url = ws_server(|mut ws| async move {
        while let Some(Ok(Message::Text(text))) = ws.next().await {
            sent.send((Instant::now(), text.to_string())).unwrap();
        }
    })
    .await;
    let frames = (0..8).map(|i| frame(&format!("subscribe {i}"), None)).collect();
    let rules = SessionRules { messages_per_second: 11, ..rules() };
    let mut session = connect(spec(&url, frames, rules), tls(), clock()).await.unwrap();

    let mut seen = Vec::new();
    while seen.len() < 8 {
        tokio::select! {
            event = session.next() => panic!("{event:?}"),
            got = in_time(received.recv()) => seen.push(got.unwrap()),
        }
    }
    let texts: Vec<_> = seen.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(texts, (0..8).map(|i| format!("subscribe {i}")).collect::<Vec<_>>());
    // Ten a second leave 100 ms between two; the network may bunch some of them, but not all.
    let took = seen[7].0 - seen[0].0;
    assert!(took >= Duration::from_millis(500), "eight messages within {took:?}");
}

#[tokio::test]
async fn many_frames_come_in_order_without_loss_in_batches() {
    const FRAMES: usize = 20_000;
    let url = ws_server(|mut ws| async move {
        for i in 0..FRAMES {
            let message = match i % 2 {
                0 => Message::Text(format!("{i}").into()),
                _ => Message::Binary(Bytes::from(format!("{i}"))),
            };
            ws.feed(message).await.unwrap();
        }
        ws.close(None).await.unwrap();
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let mut session = open(&url, rules()).await;
    session.handle().data_seen();
    let (mut next, mut batches, mut last) = (0, 0, 0);
    loop {
        match in_time(session.next()).await.unwrap() {
            SessionEvent::Frames(batch) => {
                assert!((1..=256).contains(&batch.frames.len()));
                assert!(batch.recv_us >= last, "received time runs backwards");
                last = batch.recv_us;
                batches += 1;
                for payload in batch.frames {
                    assert_eq!(payload, format!("{next}").as_bytes());
                    next += 1;
                }
            }
            SessionEvent::Ended(end) => {
                assert_eq!(end, SessionEnd::Closed { code: 1005, reason: String::new() });
                break;
            }
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(next, FRAMES);
    assert!(batches < FRAMES / 8, "{batches} batches for {FRAMES} frames");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let (sent, received) = oneshot::channel();
    let url = ws_server(|mut ws| async move {
        ws.send(Message::Ping(Bytes::from_static(b"1770123456789"))).await.unwrap();
        while let Some(Ok(message)) = ws.next().await {
            if let Message::Pong(payload) = message {
                sent.send(payload).unwrap();
                break;
            }
        }
        std::future::pending::<()>().await;
    })
    .await;
    let mut session = open(&url, rules()).await;
    tokio::select! {
        event = session.next() => panic!("{event:?}"),
        payload = in_time(received) => assert_eq!(payload.unwrap(), "1770123456789"),
    }
}

#[tokio::test]
async fn pings_and_texts_of_the_client_keep_alive() {
    let text = KeepAlive::Text { every: SHORT, text: "ping".into() };
    for keep_alive in [KeepAlive::PingFrame { every: SHORT }, text] {
        let (sent, mut received) = mpsc::unbounded_channel();
        let url = ws_server(|mut ws| async move {
            while let Some(Ok(message)) = ws.next().await {
                sent.send(message).unwrap();
            }
        })
        .await;
        let mut session = open(&url, SessionRules { keep_alive: keep_alive.clone(), ..rules() }).await;
        for _ in 0..2 {
            tokio::select! {
                event = session.next() => panic!("{event:?}"),
                message = in_time(received.recv()) => match keep_alive {
                    KeepAlive::Text { .. } => assert_eq!(message.unwrap(), Message::Text("ping".into())),
                    _ => assert!(message.unwrap().is_ping()),
                },
            }
        }
    }
}

#[tokio::test]
async fn pings_without_answer_end_it_though_data_comes() {
    let url = ws_server(|mut ws| async move {
        // Writes without ever reading, and so without ever answering.
        while ws.send(Message::Text("data".into())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let rules = SessionRules {
        keep_alive: KeepAlive::PingFrame { every: SHORT },
        idle_timeout: Duration::from_secs(4),
        ..rules()
    };
    let mut session = open(&url, rules).await;
    session.handle().data_seen();
    let (frames, end) = drain(&mut session).await;
    assert_eq!(end, SessionEnd::PongTimeout);
    assert!(!frames.is_empty());
}

#[tokio::test]
async fn acks_that_do_not_come_are_named() {
    let url = silent_server().await;
    let frames = vec![frame("a", Some(1)), frame("b", Some(2)), frame("c", Some(3))];
    let rules = SessionRules { ack_deadline: Duration::from_secs(3), ..rules() };
    let mut session = connect(spec(&url, frames, rules), tls(), clock()).await.unwrap();
    let handle = session.handle();
    let acker = async {
        tokio::time::sleep(SHORT).await;
        handle.acked(2);
    };
    let ((_, end), ()) = tokio::join!(drain(&mut session), acker);
    let SessionEnd::AckTimeout { ids } = end else { panic!("{end:?}") };
    assert!(ids.contains(&1) && !ids.contains(&2), "{ids:?}");
}

#[tokio::test]
async fn a_frame_sent_later_is_awaited_too_and_the_queue_is_bounded() {
    let url = silent_server().await;
    let rules = SessionRules { ack_deadline: SHORT, messages_per_second: 2, ..rules() };
    let mut session = connect(spec(&url, vec![frame("s", None)], rules), tls(), clock()).await.unwrap();
    let handle = session.handle();
    for id in 0..64 {
        assert_eq!(handle.send(frame("late", Some(100 + id))), Ok(()));
    }
    assert_eq!(handle.send(frame("one too many", None)), Err(Full));
    let (_, end) = drain(&mut session).await;
    assert_eq!(end, SessionEnd::AckTimeout { ids: vec![100] });
}

#[tokio::test]
async fn a_socket_without_data_is_given_up() {
    let url = ws_server(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if message.is_text() {
                ws.send(Message::Text("ack".into())).await.unwrap();
            }
        }
    })
    .await;
    let rules = SessionRules { first_data_deadline: SHORT, ..rules() };
    let mut session = connect(spec(&url, vec![frame("s", Some(5))], rules), tls(), clock()).await.unwrap();
    let SessionEvent::Frames(batch) = in_time(session.next()).await.unwrap() else { panic!("no ack") };
    assert_eq!(batch.frames, ["ack"]);
    session.handle().acked(5);
    assert_eq!(drain(&mut session).await.1, SessionEnd::NoFirstData);
}

#[tokio::test]
async fn a_half_open_socket_is_found_by_its_silence() {
    let url = ws_server(|ws| async move {
        let _held = ws;
        std::future::pending::<()>().await;
    })
    .await;
    let mut session = open(&url, SessionRules { idle_timeout: SHORT, ..rules() }).await;
    assert_eq!(drain(&mut session).await.1, SessionEnd::Idle);
}

#[tokio::test]
async fn pings_of_the_server_hold_off_idle() {
    let url = ws_server(|mut ws| async move {
        for _ in 0..35 {
            ws.send(Message::Ping(Bytes::new())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ws.send(Message::Text("still here".into())).await.unwrap();
        ws.close(None).await.unwrap();
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let mut session = open(&url, SessionRules { idle_timeout: Duration::from_secs(3), ..rules() }).await;
    let (frames, end) = drain(&mut session).await;
    assert_eq!(frames, ["still here"]);
    assert!(matches!(end, SessionEnd::Closed { .. }), "{end:?}");
    assert!(session.age() > Duration::from_secs(3));
}

#[tokio::test]
async fn close_code_and_reason_follow_the_last_frames() {
    let url = ws_server(|mut ws| async move {
        ws.feed(Message::Text("last".into())).await.unwrap();
        let close = CloseFrame { code: CloseCode::Policy, reason: "Too many requests".into() };
        ws.close(Some(close)).await.unwrap();
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let (frames, end) = drain(&mut open(&url, rules()).await).await;
    assert_eq!(frames, ["last"]);
    assert_eq!(end, SessionEnd::Closed { code: 1008, reason: "Too many requests".into() });
}

#[tokio::test]
async fn a_socket_that_breaks_is_an_error_after_its_frames() {
    let url = ws_server(|mut ws| async move {
        ws.send(Message::Text("last".into())).await.unwrap();
        ws.get_mut().shutdown().await.unwrap();
    })
    .await;
    let (frames, end) = drain(&mut open(&url, rules()).await).await;
    assert_eq!(frames, ["last"]);
    assert!(matches!(&end, SessionEnd::Error(reason) if reason.contains("closing handshake")), "{end:?}");
}

#[tokio::test]
async fn a_frame_beyond_its_bound_ends_the_session() {
    let url = ws_server(|mut ws| async move {
        ws.send(Message::Text("x".repeat(1000).into())).await.unwrap();
        let _ = ws.send(Message::Text("x".repeat(1001).into())).await;
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let (frames, end) = drain(&mut open(&url, SessionRules { max_frame_bytes: 1000, ..rules() }).await).await;
    assert_eq!(frames.len(), 1);
    assert!(matches!(&end, SessionEnd::Error(reason) if reason.contains("1001")), "{end:?}");
}

#[tokio::test]
async fn the_life_limit_is_warned_of_before_it_ends_the_session() {
    let url = silent_server().await;
    let rules = SessionRules { life_limit: Duration::from_secs(2), ..rules() };
    let options = SessionOptions {
        life_margin: Duration::from_millis(1500),
        ..SessionOptions::for_life_limit(rules.life_limit)
    };
    let mut session = connect_with(spec(&url, vec![], rules), options, tls(), clock()).await.unwrap();
    let warning = in_time(session.next()).await;
    assert_eq!(warning, Some(SessionEvent::Warn(SessionWarning::LifeLimitNear)));
    assert!(session.age() >= Duration::from_millis(500));
    assert_eq!(drain(&mut session).await.1, SessionEnd::LifeLimit);
    assert!(session.age() >= Duration::from_secs(2));
}

#[tokio::test]
async fn closing_is_local_and_tells_the_server() {
    let (sent, received) = oneshot::channel();
    let url = ws_server(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if let Message::Close(close) = message {
                sent.send(close.map(|c| u16::from(c.code))).unwrap();
                break;
            }
        }
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let mut session = open(&url, rules()).await;
    session.handle().close();
    assert_eq!(drain(&mut session).await.1, SessionEnd::Local);
    assert_eq!(in_time(received).await.unwrap(), Some(1000));
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_is_gone() {
    let url = ws_server(|ws| async move {
        let _held = ws;
        std::future::pending::<()>().await;
    })
    .await;
    let mut session = open(&url, rules()).await;
    let handle = session.handle();
    let closer = async {
        tokio::time::sleep(SHORT).await;
        handle.close();
    };
    let ((_, end), ()) = tokio::join!(drain(&mut session), closer);
    assert_eq!(end, SessionEnd::Local);
}

#[tokio::test]
async fn dropping_a_session_closes_the_socket() {
    let (sent, received) = oneshot::channel();
    let url = ws_server(|mut ws| async move {
        while let Some(Ok(_)) = ws.next().await {}
        sent.send(()).unwrap();
    })
    .await;
    drop(open(&url, rules()).await);
    in_time(received).await.unwrap();
}

#[tokio::test]
async fn an_owner_that_was_busy_finds_its_frames_before_a_verdict() {
    let url = ws_server(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if message.is_text() {
                ws.send(Message::Text("ack".into())).await.unwrap();
            }
        }
    })
    .await;
    let rules = SessionRules { ack_deadline: SHORT, idle_timeout: SHORT, ..rules() };
    let mut session = connect(spec(&url, vec![frame("s", Some(1))], rules), tls(), clock()).await.unwrap();
    tokio::select! {
        biased;
        event = session.next() => panic!("{event:?}"),
        () = std::future::ready(()) => {}
    }
    tokio::time::sleep(SHORT * 3).await;
    assert!(matches!(in_time(session.next()).await, Some(SessionEvent::Frames(_))));
}

#[tokio::test]
async fn a_server_that_never_answers_exceeds_the_connect_deadline() {
    let blackhole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", blackhole.local_addr().unwrap());
    let rules = SessionRules { connect_deadline: SHORT, ..rules() };
    let error = in_time(connect(spec(&url, vec![], rules), tls(), clock())).await.unwrap_err();
    assert!(matches!(error, TransportError::ConnectDeadline { after: SHORT, .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_refused_upgrade_tells_status_and_wait() {
    let (base, _) = crate::servers::http_server(|_| {
        Some(crate::servers::answer(429, &[("retry-after", "17")], b"slow down"))
    })
    .await;
    let url = base.replace("http://", "ws://");
    let error = in_time(connect(spec(&url, vec![], rules()), tls(), clock())).await.unwrap_err();
    assert!(matches!(error, TransportError::Upgrade { status: 429, .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::RateLimited { after: Duration::from_secs(17) });
}

#[tokio::test]
async fn an_address_that_is_none_is_fatal() {
    for url in ["not an address", "ftp://127.0.0.1/x"] {
        let error = in_time(connect(spec(url, vec![], rules()), tls(), clock())).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    }
}
