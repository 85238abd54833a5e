//! REST calls against a hand-made HTTP server.

use std::{cell::Cell, io::Write, time::Duration};

use fathom_market::plan::{BudgetRule, Priority, RequestSpec};
use fathom_transport::{
    BudgetError, ErrorClass, RestBudget, RestClient, RestConfig, TransportError, rest::host_key,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;

use crate::servers::{PATIENCE, answer, clock, http_server, in_time, tls};

fn rule(concurrency: usize) -> BudgetRule {
    BudgetRule {
        group: "weight",
        capacity: 1000,
        window: Duration::from_secs(60),
        used_header: Some("x-used-weight-1m"),
        concurrency,
    }
}

fn request(weight: u32) -> RequestSpec {
    RequestSpec {
        path: "/api/depth".into(),
        query: vec![("symbol", "BTC/USDT".into())],
        weight,
        group: "weight",
    }
}

fn client(base: &str, config: RestConfig) -> RestClient {
    let budget = RestBudget::new(clock());
    let other = BudgetRule { group: "other", ..rule(1) };
    budget.configure(&host_key(base).unwrap(), vec![rule(4), other], None);
    RestClient::with_config(budget, tls(), clock(), config).unwrap()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_answer_comes_with_its_status_and_tells_the_weight_used() {
    let (base, heads) = http_server(|_| {
        let headers = [("X-Used-Weight-1M", "321"), ("content-encoding", "gzip")];
        Some(answer(400, &headers, &gzip(b"{\"code\":-1121}")))
    })
    .await;
    let client = client(&base, RestConfig::default());
    let answer = in_time(client.get(&base, &request(5), Priority::Live, PATIENCE)).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (400, None));
    assert_eq!(answer.body, b"{\"code\":-1121}");
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /api/depth?symbol=BTC%2FUSDT HTTP/1.1\r\n"), "{head}");

    let status = client.budget().status();
    let weight = status.iter().find(|s| s.group == "weight").unwrap();
    assert_eq!((weight.used, weight.in_flight, weight.counters.requests_ok), (321, 0, 1));
}

#[tokio::test]
async fn refusals_with_retry_after_stop_the_whole_host() {
    for status in [429, 418] {
        let (base, heads) = http_server(move |_| Some(answer(status, &[("retry-after", "7")], b""))).await;
        let client = client(&base, RestConfig::default());
        let answer = in_time(client.get(&base, &request(5), Priority::Live, PATIENCE)).await.unwrap();
        assert_eq!((answer.status, answer.retry_after), (status, Some(Duration::from_secs(7))));

        for group in ["weight", "other"] {
            let spec = RequestSpec { group, ..request(1) };
            let error = in_time(client.get(&base, &spec, Priority::Resync, Duration::from_secs(1)))
                .await
                .unwrap_err();
            let ErrorClass::RateLimited { after } = error.class() else { panic!("{error}") };
            assert!(after <= Duration::from_secs(7) && after > Duration::from_secs(1), "{after:?}");
        }
        assert_eq!(heads.lock().unwrap().len(), 1, "nothing may be sent during a penalty");
        let counters = client.budget().status().into_iter().find(|s| s.group == "weight").unwrap().counters;
        assert_eq!(
            (counters.refused_429, counters.banned_418),
            (u64::from(status == 429), u64::from(status == 418))
        );
    }
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_not_read() {
    let config = RestConfig { max_body_bytes: 1000, ..RestConfig::default() };
    // The second one is small on the wire and large once unpacked.
    let bodies =
        [answer(200, &[], &[b'x'; 1001]), answer(200, &[("content-encoding", "gzip")], &gzip(&[0; 100_000]))];
    for body in bodies {
        let (base, _) = http_server(move |_| Some(body.clone())).await;
        let client = client(&base, config);
        let error = in_time(client.get(&base, &request(1), Priority::Live, PATIENCE)).await.unwrap_err();
        assert!(matches!(error, TransportError::BodyTooLarge { limit: 1000, .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Rejected);
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_exceeds_the_deadline_and_frees_its_permit() {
    let (base, _) = http_server(|_| None).await;
    let client = client(&base, RestConfig::default());
    let deadline = Duration::from_millis(300);
    let error = in_time(client.get(&base, &request(5), Priority::Live, deadline)).await.unwrap_err();
    assert!(matches!(error, TransportError::RequestDeadline { .. }), "{error}");
    assert!(!error.to_string().contains("symbol"), "the query is not shown: {error}");
    let status = client.budget().status().into_iter().find(|s| s.group == "weight").unwrap();
    assert_eq!((status.in_flight, status.used, status.counters.requests_failed), (0, 5, 1));
}

#[tokio::test]
async fn nobody_listening_is_transient_and_an_unknown_group_fatal() {
    let (base, _) = http_server(|_| None).await;
    let client = client(&base, RestConfig::default());
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    client.budget().configure(&host_key(&closed).unwrap(), vec![rule(1)], None);
    let error = in_time(client.get(&closed, &request(1), Priority::Live, PATIENCE)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");

    let spec = RequestSpec { group: "none", ..request(1) };
    let error = in_time(client.get(&base, &spec, Priority::Live, PATIENCE)).await.unwrap_err();
    assert!(matches!(error, TransportError::Budget(BudgetError::Unconfigured { .. })), "{error}");
    assert_eq!(error.class(), ErrorClass::Fatal);
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_allowed() {
    let (base, heads) = http_server(|_| Some(answer(200, &[], b"{}"))).await;
    let client = client(&base, RestConfig::default());
    let spec = request(1);
    let done = Cell::new(0);
    let calls = join_all((0..40).map(|_| async {
        let answer = in_time(client.get(&base, &spec, Priority::Live, PATIENCE)).await.unwrap();
        done.set(done.get() + 1);
        answer.status
    }));
    let most = async {
        let mut most = 0;
        while done.get() < 40 {
            most = most.max(client.budget().status().iter().map(|s| s.in_flight).sum());
            tokio::task::yield_now().await;
        }
        most
    };
    let (statuses, most) = tokio::join!(calls, most);
    assert!(statuses.into_iter().all(|status| status == 200));
    assert_eq!(heads.lock().unwrap().len(), 40);
    assert_eq!(most, 4);
}
