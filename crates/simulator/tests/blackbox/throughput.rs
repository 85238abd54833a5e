use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::{SeededConfig, Simulator, SimulatorConfig, Symbols};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::client::Ws;

/// Run with `cargo test --release -p fathom-simulator -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, for release builds"]
async fn frames_per_second() {
    let seeded = SeededConfig {
        symbols: Symbols::Count { bases: 200, traps: false },
        events_per_second: std::env::var("FATHOM_SIM_EVENTS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(120_000.0),
        ..SeededConfig::default()
    };
    let mut config = SimulatorConfig::seeded(&seeded);
    config.futures = None;
    let simulator = Simulator::start(config).unwrap();
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(Market::Spot, "").unwrap())).await;
    let names: Vec<String> = simulator.symbols(Market::Spot).iter().map(|name| name.to_lowercase()).collect();
    let streams: Vec<String> =
        names.iter().flat_map(|name| [format!("{name}@bookTicker"), format!("{name}@trade")]).collect();
    ws.subscribe(&streams.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (begun, mut frames, mut bytes) = (Instant::now(), 0_u64, 0_usize);
    while begun.elapsed() < Duration::from_secs(5) {
        let message = ws.0.next().await.unwrap().unwrap();
        frames += 1;
        bytes += message.len();
    }
    let per_second = frames / 5;
    println!(
        "{per_second} frames/s, {} MB/s, {:?}",
        bytes / 5_000_000,
        simulator.status(Market::Spot).unwrap()
    );
    assert!(per_second >= 50_000, "{per_second}");
}
