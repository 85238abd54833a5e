//! The shard's actor against a local exchange that speaks the built-in venue's protocol: what the books' inboxes get while
//! connections rotate, instances hand over, lines of a pair die and plans change is compared with what was sent.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fathom_market::{
    event::{Body, Channel, TradeId},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::{DepthSpeed, Endpoints},
};
use fathom_transport::TlsConfig;
use fathom_venues::{
    Wanted,
    planner::{EndpointPlan, PlannedInstrument, Redundancy, ShardPlan, Tier},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinSet,
    time::Instant,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionState, Reshape, ShardSpec, ShardStatus, StreamActor, gate::ConnectGate,
    liveness::LivenessRules, outflow::OutflowCell, reconnect::standard_rules, status::Role,
};
use crate::{
    directory::Directory,
    fanout::Fanout,
    feed::FeedItem,
    fixtures::{LONG, World, binance, instrument, patient},
    kernel::{
        ActorRef, ChildSpec, Inbox, Kind, OperationState, Overflow, Placement, RestartMode, RestartRequest,
        inbox::bounded, testkit::eventually,
    },
    settings::StreamSettings,
    spawn::not_started_status,
};

const SYMBOLS: [&str; 2] = ["BTC", "ETH"];

struct Shared {
    events: broadcast::Sender<(String, String)>,
    connections: Mutex<Vec<CancellationToken>>,
    requests: Mutex<Vec<Value>>,
    running: AtomicBool,
    last: AtomicU64,
    /// Connections from this number on answer no request.
    deaf_from: AtomicU64,
}

/// Makes one depth update and one trade of each symbol every other millisecond; each connection gets them later by its own
/// delay.
struct Exchange {
    address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Exchange {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            events: broadcast::Sender::new(65_536),
            connections: Mutex::default(),
            requests: Mutex::default(),
            running: AtomicBool::new(true),
            last: AtomicU64::new(0),
            deaf_from: AtomicU64::new(u64::MAX),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(produce(shared.clone()));
        tasks.spawn(accept(listener, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// Cuts a connection without a word.
    fn cut(&self, at: usize) {
        self.shared.connections.lock().unwrap()[at].cancel();
    }

    fn say(&self, text: &str) {
        self.shared.events.send(("*".into(), text.into())).unwrap();
    }

    /// Stops and gives the last id.
    fn stop(&self) -> u64 {
        self.shared.running.store(false, SeqCst);
        self.shared.last.load(SeqCst)
    }

    fn requests(&self, method: &str) -> Vec<String> {
        let requests = self.shared.requests.lock().unwrap();
        let of = requests.iter().filter(|request| request["method"] == method);
        of.flat_map(|request| request["params"].as_array().unwrap())
            .map(|name| name.as_str().unwrap().into())
            .collect()
    }
}

async fn produce(shared: Arc<Shared>) {
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    loop {
        pace.tick().await;
        if !shared.running.load(SeqCst) {
            continue;
        }
        let id = shared.last.load(SeqCst) + 1;
        for base in SYMBOLS {
            let (lower, upper) = (base.to_lowercase(), format!("{base}USDT"));
            let depth = format!(
                r#"{{"stream":"{lower}usdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"{upper}","U":{id},"u":{id},"b":[["99.99","1.5"]],"a":[]}}}}"#
            );
            let trade = format!(
                r#"{{"stream":"{lower}usdt@aggTrade","data":{{"e":"aggTrade","E":1,"s":"{upper}","a":{id},"p":"100.00","q":"1.000","f":{id},"l":{id},"T":1,"m":true,"M":true}}}}"#
            );
            for (name, text) in [("depth@100ms", depth), ("aggTrade", trade)] {
                // Nobody listens between two connections.
                let _ = shared.events.send((format!("{lower}usdt@{name}"), text));
            }
        }
        shared.last.store(id, SeqCst);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).unwrap();
        let kill = CancellationToken::new();
        let number = {
            let mut connections = shared.connections.lock().unwrap();
            connections.push(kill.clone());
            connections.len() as u64 - 1
        };
        let shared = shared.clone();
        tasks.spawn(async move {
            let Ok(socket) = accept_async(tcp).await else { return };
            let served = serve(socket, shared, number);
            kill.run_until_cancelled_owned(served).await;
        });
    }
}

async fn serve(mut socket: WebSocketStream<TcpStream>, shared: Arc<Shared>, number: u64) {
    let mut events = shared.events.subscribe();
    let mut names = BTreeSet::new();
    let delay = Duration::from_millis(number % 3 * 17);
    let mut later: VecDeque<(Instant, String)> = VecDeque::new();
    loop {
        let front = later.front().map_or_else(|| Instant::now() + LONG, |(at, _)| *at);
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let request: Value = serde_json::from_str(&text).unwrap();
                if number >= shared.deaf_from.load(SeqCst) {
                    continue;
                }
                let params = request["params"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
                match request["method"].as_str().unwrap() {
                    "SUBSCRIBE" => names.extend(params),
                    _ => params.for_each(|name| { names.remove(&name); }),
                }
                let answer = json!({"result": null, "id": request["id"]}).to_string();
                shared.requests.lock().unwrap().push(request);
                later.push_back((Instant::now() + delay, answer));
            }
            event = events.recv() => {
                let (name, text) = event.unwrap();
                if name == "*" || names.contains(&name) {
                    later.push_back((Instant::now() + delay, text));
                }
            }
            () = tokio::time::sleep_until(front) => {
                let Some((_, text)) = later.pop_front() else { continue };
                if socket.send(Message::Text(text.into())).await.is_err() {
                    return;
                }
            }
        }
    }
}

struct Rig {
    world: World,
    exchange: Exchange,
    actor: ActorRef<StreamActor>,
    plan: Arc<ArcSwap<ShardPlan>>,
    inboxes: Vec<Inbox<FeedItem>>,
    status: Arc<ArcSwap<ShardStatus>>,
}

const ACTOR: &str = "shard/test";

fn table() -> InstrumentTable {
    InstrumentTable::new(SYMBOLS.map(|base| (*instrument(Market::Spot, base)).clone())).unwrap()
}

/// Depth and trades of the first symbols.
fn plan(symbols: usize, redundancy: Redundancy) -> ShardPlan {
    let wanted = Wanted { timeframes: Vec::new(), depth: DepthSpeed::Fast, raw_trades: false, ticker: false };
    let (table, class) = (table(), binance().classes(Market::Spot)[0]);
    let instruments: Vec<_> = table.iter().take(symbols).collect();
    let streams =
        instruments.iter().flat_map(|(idx, instrument)| binance().streams(instrument, *idx, &wanted));
    let streams =
        streams.filter(|stream| matches!(stream.channel, Channel::Depth | Channel::Trade)).collect();
    let planned = |(idx, _): (InstrumentIdx, _)| PlannedInstrument {
        idx,
        snapshot_levels: 100,
        depth: DepthSpeed::Fast,
    };
    ShardPlan {
        id: "test".into(),
        tier: Tier::High,
        instruments: instruments.into_iter().map(planned).collect(),
        endpoints: vec![EndpointPlan { class, streams, redundancy }],
    }
}

impl Rig {
    async fn new(plan: ShardPlan, rotate_after: Option<Duration>) -> Self {
        fathom_transport::install_provider();
        let (world, exchange) = (World::real(), Exchange::start().await);
        let clock = world.clock.clone();
        let (outlets, inboxes): (Vec<_>, Vec<_>) =
            SYMBOLS.iter().map(|_| bounded("feed", 1 << 17, Overflow::Fault, &clock)).unzip();
        let routes = Arc::new(ArcSwap::from_pointee(outlets));
        let (_, renewals) = bounded("renewals", 16, Overflow::DropNewest, &clock);
        let class = binance().classes(Market::Spot)[0].as_str();
        let rest = "http://127.0.0.1:1".to_owned();
        let endpoints = Endpoints { rest, ws: [(class, exchange.address.clone())].into() };
        let status = not_started_status(binance().id(), Market::Spot, &plan, clock.now_us());
        let status = Arc::new(ArcSwap::from_pointee(status));
        let plan = Arc::new(ArcSwap::from_pointee(plan));
        let spec = ShardSpec {
            venue: binance(),
            market: Market::Spot,
            endpoints,
            plan: plan.clone(),
            table: Arc::new(ArcSwap::from_pointee(table())),
            outflow: OutflowCell::new(binance(), Market::Spot, routes.clone()),
            routes,
            renewals,
            live: Arc::new(Fanout::new(clock.clone())),
            status: status.clone(),
            directory: Arc::new(Directory::default()),
            gate: Arc::new(ConnectGate::new(1000, Duration::from_secs(1))),
            tls: TlsConfig::default().client_config().unwrap(),
            settings: StreamSettings {
                reconnect: standard_rules().unwrap(),
                liveness: LivenessRules::default(),
                rotate_after,
            },
            listings: Arc::default(),
        };
        let child =
            ChildSpec::builder(ACTOR, Kind("stream"), move |life| StreamActor::new(life, spec.clone()))
                .placement(Placement::Beside("test".into()));
        let actor = world.kernel.supervisor().spawn(patient(child).build()).await.unwrap();
        Self { world, exchange, actor, plan, inboxes, status }
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(eventually(LONG, condition).await, "{what}: {:#?}", self.status.load());
    }

    fn all_speak(&self) -> bool {
        let status = self.status.load();
        let speak = status.lines.iter().all(|line| {
            line.state == ConnectionState::Connected
                && line.streams_live == line.streams
                && line.role == Role::Current
        });
        // What a new line brought first may still wait for the other: only then the two carry the same.
        speak && !status.lines.is_empty() && status.held_events == 0
    }

    async fn until_all_speak(&self) {
        self.until("all lines speak", || self.all_speak()).await;
    }

    /// Stops the exchange and checks that each book got everything from its first event on, once and in order, and
    /// nothing that would doubt it after the start.
    async fn check(&self, symbols: usize) {
        let last = self.exchange.stop();
        for inbox in &self.inboxes[..symbols] {
            let mut feed = Feed::default();
            self.until("the last one arrives", || {
                feed.take(inbox);
                feed.depth.last() == Some(&last) && feed.trades.last() == Some(&last)
            })
            .await;
            for ids in [&feed.depth, &feed.trades] {
                assert!(ids.len() > 20, "{}", ids.len());
                assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
            }
            assert_eq!(feed.doubts, ["shard_started"]);
        }
    }

    async fn hand_over(&self, deadline: Duration) -> Value {
        let request = RestartRequest {
            mode: RestartMode::Handover,
            requested_by: "test".into(),
            deadline: Some(deadline),
            ..RestartRequest::default()
        };
        let id = self.world.control.restart(&ACTOR.into(), request).unwrap();
        let over =
            || self.world.control.operation(&id).is_some_and(|operation| operation.finished_us.is_some());
        self.until("the operation is over", over).await;
        let operation = self.world.control.operation(&id).unwrap();
        let state = match operation.state {
            OperationState::Done => "done",
            _ => "failed",
        };
        json!({"state": state, "effect": operation.effect, "error": operation.error})
    }
}

/// What a book's inbox got.
#[derive(Default)]
struct Feed {
    depth: Vec<u64>,
    trades: Vec<u64>,
    doubts: Vec<String>,
}

impl Feed {
    fn take(&mut self, inbox: &Inbox<FeedItem>) {
        while let Some(item) = inbox.try_recv() {
            match item {
                FeedItem::Events(events) => events.into_iter().for_each(|event| match event.body {
                    Body::Delta(delta) => self.depth.push(delta.ids.last),
                    Body::Trade(trade) => {
                        let TradeId::Number(id) = trade.id else { panic!("{:?}", trade.id) };
                        self.trades.push(id);
                    }
                    other => panic!("{other:?}"),
                }),
                FeedItem::Reset { cause, .. } => self.doubts.push(cause.into()),
                FeedItem::Boundary { .. } | FeedItem::Pulse | FeedItem::Open { .. } => {}
                doubt => self.doubts.push(format!("{doubt:?}")),
            }
        }
    }
}

#[actix_rt::test]
async fn connections_are_replaced_before_their_end_without_a_hole() {
    let rig = Rig::new(plan(2, Redundancy::Single), Some(Duration::from_millis(300))).await;
    rig.until("five rotations", || {
        rig.status.load().lines[..].first().is_some_and(|line| line.connection > 5)
    })
    .await;
    rig.check(2).await;
    let status = rig.status.load();
    assert_eq!((status.lines[0].reconnects, status.gaps, status.missed), (0, 0, 0));
    assert!(status.duplicates > 0 && status.lines[0].duplicates > 0);
}

#[actix_rt::test]
async fn a_server_that_announces_its_end_is_left_in_time() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    rig.exchange.say(r#"{"e":"serverShutdown","E":1770123456789}"#);
    rig.until("a second connection", || rig.all_speak() && rig.status.load().lines[0].connection == 2).await;
    rig.exchange.cut(0);
    rig.check(1).await;
}

#[actix_rt::test]
async fn an_instance_hands_over_under_load_without_a_hole() {
    let rig = Rig::new(plan(2, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    for generation in 2..=4 {
        let told = rig.hand_over(LONG).await;
        assert_eq!(told["state"], "done", "{told:#}");
        let effect = &told["effect"];
        for nothing in ["messages_missed", "downtime_ms"] {
            assert_eq!(effect[nothing], 0, "{nothing} in {told:#}");
        }
        assert_eq!((&effect["gaps_opened"], &effect["not_warm"]), (&json!([]), &json!([])));
        assert_eq!((&effect["streams_total"], &effect["streams_warm"]), (&json!(4), &json!(4)));
        rig.until("the next one speaks", || rig.status.load().generation == generation && rig.all_speak())
            .await;
    }
    rig.check(2).await;
}

#[actix_rt::test]
async fn a_handover_that_cannot_be_is_rolled_back_without_a_hole() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    rig.exchange.shared.deaf_from.store(1, SeqCst);
    let told = rig.hand_over(Duration::from_millis(700)).await;
    assert_eq!(told["state"], "failed", "{told:#}");
    assert!(rig.exchange.connections() >= 2, "it was tried");
    assert_eq!(rig.status.load().generation, 1);
    rig.check(1).await;
}

#[actix_rt::test]
async fn either_line_of_a_pair_may_die_at_any_moment() {
    let rig = Rig::new(plan(2, Redundancy::Pair), None).await;
    rig.until("two lines", || rig.status.load().lines.len() == 2 && rig.all_speak()).await;
    for cut in 0..6 {
        let before = rig.exchange.connections();
        // Of the two that are open the older one goes, so that both lines lose theirs in turn.
        rig.exchange.cut(cut);
        rig.until("it is opened anew", || rig.exchange.connections() > before).await;
        rig.until_all_speak().await;
    }
    rig.check(2).await;
    let status = rig.status.load();
    assert!(status.lines.iter().all(|line| line.reconnects >= 2 && line.win_rate.is_some()), "{status:#?}");
    assert_eq!(status.streams, 4);
}

#[actix_rt::test]
async fn a_changed_plan_leaves_the_other_streams_alone() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    rig.plan.store(Arc::new(plan(2, Redundancy::Single)));
    rig.actor.ask(Reshape, LONG).await.unwrap();
    let mut added = Feed::default();
    rig.until("the new symbol is heard", || {
        added.take(&rig.inboxes[1]);
        added.depth.len() > 10 && added.trades.len() > 10
    })
    .await;
    assert_eq!(rig.status.load().symbols.len(), 2);
    rig.plan.store(Arc::new(plan(1, Redundancy::Single)));
    rig.actor.ask(Reshape, LONG).await.unwrap();
    let dropped = ["ethusdt@depth@100ms", "ethusdt@aggTrade"];
    rig.until("they are given up", || rig.exchange.requests("UNSUBSCRIBE").len() == 2).await;
    assert_eq!(
        BTreeSet::from_iter(rig.exchange.requests("UNSUBSCRIBE")),
        BTreeSet::from(dropped.map(String::from))
    );
    assert_eq!(rig.exchange.requests("SUBSCRIBE").len(), 4);
    let mut more = Feed::default();
    more.take(&rig.inboxes[1]);
    assert_eq!((added.doubts.len(), more.doubts.len()), (0, 0), "giving up is no loss");
    assert_eq!(rig.exchange.connections(), 1);
    rig.check(1).await;
}

#[actix_rt::test]
async fn a_plan_is_refused_while_a_shard_hands_over_and_taken_afterwards() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    rig.exchange.shared.deaf_from.store(1, SeqCst);
    let asked = async {
        rig.until("the next one connects", || rig.exchange.connections() >= 2).await;
        rig.actor.ask(Reshape, LONG).await.unwrap()
    };
    let (told, taken) = tokio::join!(rig.hand_over(Duration::from_millis(1500)), asked);
    assert_eq!((told["state"].as_str(), taken), (Some("failed"), false), "{told:#}");
    assert!(rig.actor.ask(Reshape, LONG).await.unwrap());
    rig.check(1).await;
}

#[actix_rt::test]
async fn a_line_that_is_given_up_is_no_loss() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    let mut feed = Feed::default();
    rig.until("it is heard", || {
        feed.take(&rig.inboxes[0]);
        feed.depth.len() > 1
    })
    .await;
    let nothing = ShardPlan { instruments: vec![], endpoints: vec![], ..plan(1, Redundancy::Single) };
    rig.plan.store(Arc::new(nothing));
    assert!(rig.actor.ask(Reshape, LONG).await.unwrap());
    feed.take(&rig.inboxes[0]);
    assert_eq!(feed.doubts, ["shard_started"]);
}

#[actix_rt::test]
async fn the_gaps_of_a_pause_are_told_as_such() {
    let rig = Rig::new(plan(1, Redundancy::Single), None).await;
    rig.until_all_speak().await;
    rig.world.control.pause(&ACTOR.into(), "test", "").unwrap();
    let mut feed = Feed::default();
    rig.until("it says so", || {
        feed.take(&rig.inboxes[0]);
        feed.doubts == ["shard_started", "shard_paused"]
    })
    .await;
}
