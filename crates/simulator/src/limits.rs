//! The venue's rules on a client, kept per address: REST weight, connection attempts, message rates, bans. Time is an
//! argument. What breaks a rule is named for the ledger.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::config::Limits;

const ADDRESSES: usize = 4096;
const FIVE_MINUTES: i64 = 300_000;
const THREE_DAYS: i64 = 3 * 86_400_000;
/// Requests that were on their way when the 429 was answered break no rule.
const IN_FLIGHT_MS: i64 = 250;

/// What a REST request meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Served; the weight used in this minute.
    Pass(u32),
    /// 429, with the weight used and seconds to wait.
    TooMany { used: u32, retry_s: i64 },
    /// 418, with the end of the ban.
    Banned { used: u32, until_ms: i64, retry_s: i64 },
}

/// A rule broken: its name and what was seen.
pub(crate) type Broken = Option<(&'static str, String)>;

#[derive(Default)]
struct Address {
    minute: i64,
    used: u32,
    funding: VecDeque<i64>,
    connects: VecDeque<i64>,
    /// Until when a 429 told it to wait.
    wait_until_ms: i64,
    wait_since_ms: i64,
    ignored: u32,
    banned_until_ms: i64,
    bans: u32,
    floods: u32,
}

impl Address {
    fn ban(&mut self, limits: &Limits, now_ms: i64) -> i64 {
        let base = i64::try_from(limits.ban.as_millis()).unwrap_or(THREE_DAYS);
        let length = base.saturating_mul(1_i64 << self.bans.min(20)).min(THREE_DAYS);
        self.bans += 1;
        self.ignored = 0;
        self.banned_until_ms = now_ms + length;
        self.banned_until_ms
    }

    fn wait(&mut self, until_ms: i64, now_ms: i64) {
        if self.wait_until_ms <= now_ms {
            self.ignored = 0;
            self.wait_since_ms = now_ms;
        }
        self.wait_until_ms = self.wait_until_ms.max(until_ms);
    }

    fn roll(&mut self, now_ms: i64) {
        let minute = now_ms.div_euclid(60_000);
        if minute != self.minute {
            self.minute = minute;
            self.used = 0;
        }
    }
}

/// The addresses of a market's clients.
pub(crate) struct Addresses {
    limits: Limits,
    known: Mutex<HashMap<IpAddr, Address>>,
}

fn seconds_until(until_ms: i64, now_ms: i64) -> i64 {
    ((until_ms - now_ms + 999) / 1000).max(1)
}

impl Addresses {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, known: Mutex::default() }
    }

    fn with<T>(&self, ip: IpAddr, act: impl FnOnce(&mut Address) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES && !known.contains_key(&ip) {
            known.clear();
        }
        act(known.entry(ip).or_default())
    }

    /// Charges a request.
    pub(crate) fn charge(&self, ip: IpAddr, weight: u32, funding: bool, now_ms: i64) -> (Gate, Broken) {
        self.with(ip, |address| {
            address.roll(now_ms);
            if let Some(refused) = self.waiting(address, now_ms) {
                return refused;
            }
            if funding {
                slide(&mut address.funding, now_ms, FIVE_MINUTES);
                if address.funding.len() > self.limits.funding_requests_per_5_min as usize {
                    address.wait(now_ms + 60_000, now_ms);
                    let seen = format!("{} requests in 5 min", address.funding.len());
                    return (
                        Gate::TooMany { used: address.used, retry_s: 60 },
                        Some(("funding_requests", seen)),
                    );
                }
            }
            address.used += weight;
            if address.used <= self.limits.weight_per_minute {
                return (Gate::Pass(address.used), None);
            }
            address.wait((address.minute + 1) * 60_000, now_ms);
            let seen = format!("weight {} of {}", address.used, self.limits.weight_per_minute);
            let retry_s = seconds_until(address.wait_until_ms, now_ms);
            (Gate::TooMany { used: address.used, retry_s }, Some(("rest_weight", seen)))
        })
    }

    /// What a client meets that was told to wait, or is banned.
    fn waiting(&self, address: &mut Address, now_ms: i64) -> Option<(Gate, Broken)> {
        let used = address.used;
        if now_ms < address.banned_until_ms {
            let until_ms = address.banned_until_ms;
            let gate = Gate::Banned { used, until_ms, retry_s: seconds_until(until_ms, now_ms) };
            return Some((gate, Some(("rest_after_429", "a request during a ban".to_owned()))));
        }
        if now_ms >= address.wait_until_ms {
            return None;
        }
        let left = seconds_until(address.wait_until_ms, now_ms);
        if now_ms - address.wait_since_ms < IN_FLIGHT_MS {
            return Some((Gate::TooMany { used, retry_s: left }, None));
        }
        address.ignored += 1;
        let seen = format!("request {} with {left} s of Retry-After left", address.ignored);
        if address.ignored <= self.limits.tolerated_after_429 {
            return Some((Gate::TooMany { used, retry_s: left }, Some(("rest_after_429", seen))));
        }
        let until_ms = address.ban(&self.limits, now_ms);
        let gate = Gate::Banned { used, until_ms, retry_s: seconds_until(until_ms, now_ms) };
        Some((gate, Some(("banned", seen))))
    }

    /// A 429 or 418 was answered by a fault: until then the client has to wait.
    pub(crate) fn told_to_wait(&self, ip: IpAddr, until_ms: i64, now_ms: i64) {
        self.with(ip, |address| {
            address.wait(until_ms, now_ms);
        });
    }

    /// Whether the client was told to wait, and had time to hear it.
    pub(crate) fn should_wait(&self, ip: IpAddr, now_ms: i64) -> bool {
        self.with(ip, |address| {
            now_ms < address.wait_until_ms && now_ms - address.wait_since_ms >= IN_FLIGHT_MS
        })
    }

    /// A connection attempt: `Err` holds the ban's end or the time to wait, in seconds.
    pub(crate) fn connect(&self, ip: IpAddr, now_ms: i64) -> (Result<(), (u16, i64)>, Broken) {
        self.with(ip, |address| {
            if now_ms < address.banned_until_ms {
                return (Err((418, seconds_until(address.banned_until_ms, now_ms))), None);
            }
            slide(&mut address.connects, now_ms, FIVE_MINUTES);
            if address.connects.len() <= self.limits.connects_per_5_min {
                return (Ok(()), None);
            }
            let seen = format!("{} connection attempts in 5 min", address.connects.len());
            let until = address.ban(&self.limits, now_ms);
            address.connects.clear();
            (Err((418, seconds_until(until, now_ms))), Some(("ws_connects", seen)))
        })
    }

    /// A connection was closed for flooding; the third time bans the address.
    pub(crate) fn flooded(&self, ip: IpAddr, now_ms: i64) -> Broken {
        self.with(ip, |address| {
            address.floods += 1;
            if address.floods < 3 {
                return None;
            }
            address.floods = 0;
            let until = address.ban(&self.limits, now_ms);
            Some(("banned", format!("third flooded connection, banned until {until}")))
        })
    }
}

/// Adds `now` and forgets what lies more than `span` back.
fn slide(times: &mut VecDeque<i64>, now_ms: i64, span: i64) {
    times.push_back(now_ms);
    while times.front().is_some_and(|first| *first <= now_ms - span) {
        times.pop_front();
    }
}

/// Messages of one connection within a second.
#[derive(Default)]
pub(crate) struct MessageRate {
    times: VecDeque<i64>,
}

impl MessageRate {
    /// Counts one; false when it is one too many.
    pub(crate) fn allow(&mut self, now_ms: i64, per_second: usize) -> bool {
        slide(&mut self.times, now_ms, 1000);
        self.times.len() <= per_second
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use fathom_market::ids::Market;

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn spot() -> Addresses {
        Addresses::new(Limits { ban: Duration::from_secs(120), ..Limits::of(Market::Spot) })
    }

    #[test]
    fn weight_is_counted_by_the_calendar_minute() {
        let addresses = spot();
        for request in 1..=24 {
            assert_eq!(addresses.charge(IP, 250, false, 1_000).0, Gate::Pass(250 * request));
        }
        let (gate, broken) = addresses.charge(IP, 250, false, 30_000);
        assert_eq!(gate, Gate::TooMany { used: 6250, retry_s: 30 });
        assert_eq!(broken.unwrap().0, "rest_weight");
        assert_eq!(addresses.charge(IP, 250, false, 60_000).0, Gate::Pass(250), "obeyed to the second");
    }

    #[test]
    fn going_on_after_a_429_is_banned_and_bans_grow() {
        let addresses = spot();
        addresses.charge(IP, 6001, false, 0);
        for _ in 0..3 {
            assert!(matches!(addresses.charge(IP, 1, false, 1_000).0, Gate::TooMany { .. }));
        }
        let (gate, broken) = addresses.charge(IP, 1, false, 1_000);
        assert_eq!(
            (gate, broken.unwrap().0),
            (Gate::Banned { used: 6001, until_ms: 121_000, retry_s: 120 }, "banned")
        );
        assert!(addresses.connect(IP, 1_020).0.is_err());
        addresses.charge(IP, 6001, false, 130_000);
        for _ in 0..3 {
            addresses.charge(IP, 1, false, 131_000);
        }
        let (gate, _) = addresses.charge(IP, 1, false, 131_002);
        assert!(matches!(gate, Gate::Banned { retry_s: 240, .. }), "{gate:?}");
    }

    #[test]
    fn messages_and_connects_are_counted_in_sliding_windows() {
        let mut rate = MessageRate::default();
        assert!((0..5).all(|at| rate.allow(at, 5)));
        assert!(!rate.allow(999, 5));
        let addresses = spot();
        assert!((0..300).all(|at| addresses.connect(IP, at).0.is_ok()));
        assert_eq!(addresses.connect(IP, 301).1.unwrap().0, "ws_connects");
    }

    #[test]
    fn an_injected_429_must_be_waited_out() {
        let addresses = spot();
        addresses.told_to_wait(IP, 5_000, 0);
        assert!(addresses.should_wait(IP, 4_999) && !addresses.should_wait(IP, 5_000));
        assert_eq!(addresses.charge(IP, 1, false, 1_000).1.unwrap().0, "rest_after_429");
        assert_eq!(addresses.charge(IP, 1, false, 5_000).0, Gate::Pass(1));
    }
}
