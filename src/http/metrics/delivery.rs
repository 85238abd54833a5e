//! Metrics of what leaves the service for others.

use super::{Families, Type};
use crate::http::{
    AppState,
    delivery::{redis_queues, redis_status},
};

const BREAKERS: [&str; 3] = ["closed", "open", "half_open"];

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let Some(status) = redis_status(state) else { return };
    let help = "Whether the Redis server takes what is written.";
    out.add("fathom_redis_up", Type::Gauge, help, &[], status.is_connected());
    for word in BREAKERS {
        let help = "The breaker before the Redis server, 1 for the state that it is in.";
        let is_in = status.breaker_word() == word;
        out.add("fathom_redis_breaker", Type::Gauge, help, &[("state", word)], is_in);
    }
    for (kind, count) in &status.failures {
        let help = "Failures of the Redis server by kind.";
        out.add("fathom_redis_failures_total", Type::Counter, help, &[("kind", kind)], *count);
    }
    let mut counter = |name, help, value| out.add(name, Type::Counter, help, &[], value);
    counter("fathom_redis_commands_total", "Commands carried out.", status.commands);
    counter("fathom_redis_messages_total", "Messages to channels.", status.messages);
    counter("fathom_redis_flushes_total", "Pipelines carried out.", status.flushes);
    counter("fathom_redis_discarded_total", "What came while there was no connection.", status.discarded);
    for (outcome, count) in
        [("hit", status.cache.hits), ("miss", status.cache.misses), ("error", status.cache.errors)]
    {
        let help = "Reads through the cache; errors are among the misses.";
        out.add("fathom_redis_reads_total", Type::Counter, help, &[("outcome", outcome)], count);
    }
    let took = status.last_flush_us as f64 / 1e6;
    out.add("fathom_redis_last_flush_seconds", Type::Gauge, "Duration of the last pipeline.", &[], took);
    for queue in redis_queues(state) {
        let labels = [("queue", queue.name)];
        out.add("fathom_redis_waiting", Type::Gauge, "What waits for the next pipeline.", &labels, queue.len);
        let help = "What a newer value of its key has replaced.";
        out.add("fathom_redis_conflated_total", Type::Counter, help, &labels, queue.conflated_total);
        let help = "What found its queue full, or was pushed out of it.";
        out.add("fathom_redis_dropped_total", Type::Counter, help, &labels, queue.dropped_total);
    }
}
