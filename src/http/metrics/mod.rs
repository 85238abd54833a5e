//! `/metrics` and `/api/v1/admin/metrics`: one list of families, gathered when asked from what is published, told as
//! Prometheus text or as JSON. Labels are bounded; only the real-time flag is told for each symbol.

mod delivery;
mod exposition;
mod gaps;
mod kernel;
mod market;
mod storage;

use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use serde::Serialize;

pub(super) use self::exposition::Totals;
use self::exposition::{Families, Sum, Type, prometheus_text};
use super::{
    AppState, Shared,
    error::{Answer, ok},
    read,
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/metrics", text));
    config.service(read("/api/v1/admin/metrics", json));
}

async fn text(state: Shared) -> HttpResponse {
    let families = gather(&state);
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, PROMETHEUS)).body(prometheus_text(&families))
}

async fn json(state: Shared) -> Answer {
    #[derive(Serialize)]
    struct Metrics {
        metrics: Families,
        timestamp: i64,
    }
    ok(&Metrics { metrics: gather(&state), timestamp: state.now_ms() })
}

fn gather(state: &AppState) -> Families {
    let mut families = Families::default();
    process(state, &mut families);
    kernel::gather(state, &mut families);
    market::gather(state, &mut families);
    storage::gather(state, &mut families);
    gaps::gather(state, &mut families);
    delivery::gather(state, &mut families);
    families
}

fn process(state: &AppState, out: &mut Families) {
    out.add("fathom_build_info", Type::Gauge, "The version that runs.", &[("version", state.version)], 1);
    let started = state.started_us as f64 / 1e6;
    out.add("process_start_time_seconds", Type::Gauge, "Start of the process, Unix time.", &[], started);
    let up = (state.now_us() - state.started_us) as f64 / 1e6;
    out.add("fathom_uptime_seconds", Type::Gauge, "Age of the process.", &[], up);
    if let Some(bytes) = resident_bytes() {
        out.add("process_resident_memory_bytes", Type::Gauge, "Resident memory.", &[], bytes);
    }
}

/// Resident memory, where the system tells (Linux): `VmRSS:      1234 kB`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}
