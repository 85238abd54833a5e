//! What a child is: plain data, checked when it is made, and the factory that builds each instance of it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::backoff::{Backoff, SpecError};
use super::breaker::BreakerSpec;
use super::exit::ActorId;
use super::inbox::{Inbox, InboxGauge};
use super::lifeline::Lifeline;
use super::service::Service;

/// The sort of an actor, as shown in health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Kind(pub &'static str);

/// After which ends a child is started again. An end that was asked for never restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// After every end.
    #[default]
    Permanent,
    /// After every end but its own finishing.
    Transient,
    /// Never.
    Temporary,
}

/// How many restarts inside a window are still normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimits {
    pub(crate) max: u32,
    pub(crate) window: Duration,
}

impl RestartLimits {
    /// `max` restarts inside `window`.
    ///
    /// # Errors
    /// When the window is zero or `max` above 1000.
    pub fn try_new(max: u32, window: Duration) -> Result<Self, SpecError> {
        if window.is_zero() {
            return Err(SpecError::Zero("restart window"));
        }
        if max > 1000 {
            return Err(SpecError::Range { name: "restart max", value: max.into(), range: "0 to 1000" });
        }
        Ok(Self { max, window })
    }
}

impl Default for RestartLimits {
    /// 5 in 10 s.
    fn default() -> Self {
        Self { max: 5, window: Duration::from_secs(10) }
    }
}

/// When an instance counts as stalled, and when as out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessSpec {
    pub(crate) stall_after: Duration,
    pub(crate) freshness: Option<Duration>,
}

impl LivenessSpec {
    /// `stall_after` without a beat, or inside one operation, ends the instance; `freshness` without
    /// `Lifeline::fresh` only degrades it.
    ///
    /// # Errors
    /// When a duration is zero.
    pub fn try_new(stall_after: Duration, freshness: Option<Duration>) -> Result<Self, SpecError> {
        if stall_after.is_zero() {
            return Err(SpecError::Zero("stall_after"));
        }
        if freshness.is_some_and(|budget| budget.is_zero()) {
            return Err(SpecError::Zero("freshness"));
        }
        Ok(Self { stall_after, freshness })
    }
}

impl Default for LivenessSpec {
    /// Stalled after 5 s, no freshness budget.
    fn default() -> Self {
        Self { stall_after: Duration::from_secs(5), freshness: None }
    }
}

/// On which thread an instance runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The least loaded thread of the pool.
    #[default]
    Pool,
    /// Beside all others of the same key, on one thread of the pool.
    Beside(Arc<str>),
    /// A thread of its own.
    Dedicated,
}

/// Who is restarted with a member of a group that is restarted by policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// Those that were started after it.
    RestForOne,
    /// All.
    OneForAll,
}

/// Who of a group is restarted with a member that an operator restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// Nobody.
    #[default]
    #[serde(rename = "self")]
    Self_,
    /// Those that were started after it.
    Rest,
    /// All.
    All,
}

/// What follows when a child is restarted too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Escalation {
    /// Its parent is restarted with everything shown under it; when that does not help, all of them are quarantined.
    Family,
    /// Its parent is restarted with everything shown under it; when that does not help, the child alone is quarantined:
    /// the others have done without it before.
    Parent,
    /// Everything shown under it is restarted with it; when that does not help, the child alone is quarantined, and what
    /// is under it goes on.
    Below,
}

impl Escalation {
    /// Whether there is somebody to be restarted.
    pub(crate) const fn reaches(self, facts: &ChildFacts) -> bool {
        matches!(self, Self::Below) || facts.parent.is_some()
    }
}

/// Builds one instance; called once a generation, on the thread where it will live.
pub type Factory<A> = Arc<dyn Fn(Lifeline) -> A + Send + Sync>;

/// What the kernel knows of a child apart from its type.
#[derive(Clone)]
pub struct ChildFacts {
    pub(crate) id: ActorId,
    pub(crate) kind: Kind,
    pub(crate) parent: Option<ActorId>,
    pub(crate) required: bool,
    pub(crate) restart: RestartPolicy,
    pub(crate) limits: RestartLimits,
    pub(crate) backoff: Backoff,
    pub(crate) breaker: BreakerSpec,
    pub(crate) liveness: LivenessSpec,
    pub(crate) stop_grace: Duration,
    pub(crate) placement: Placement,
    pub(crate) solitary: bool,
    pub(crate) group: Option<(Arc<str>, Strategy)>,
    pub(crate) escalation: Option<Escalation>,
    pub(crate) asks: usize,
    pub(crate) inboxes: Vec<Arc<dyn InboxGauge>>,
}

/// A child to be started.
pub struct ChildSpec<A: Service> {
    pub(crate) facts: ChildFacts,
    pub(crate) factory: Factory<A>,
}

impl<A: Service> ChildSpec<A> {
    /// Starts a specification with the defaults: permanent, required, 5 restarts in 10 s, stalled after 5 s, 5 s of
    /// grace, 64 asks at once, any thread of the pool.
    pub fn builder(
        id: impl Into<ActorId>,
        kind: Kind,
        factory: impl Fn(Lifeline) -> A + Send + Sync + 'static,
    ) -> ChildBuilder<A> {
        let facts = ChildFacts {
            id: id.into(),
            kind,
            parent: None,
            required: true,
            restart: RestartPolicy::default(),
            limits: RestartLimits::default(),
            backoff: Backoff::default(),
            breaker: BreakerSpec::default(),
            liveness: LivenessSpec::default(),
            stop_grace: Duration::from_secs(5),
            placement: Placement::default(),
            solitary: false,
            group: None,
            escalation: None,
            asks: 64,
            inboxes: Vec::new(),
        };
        ChildBuilder(ChildSpec { facts, factory: Arc::new(factory) })
    }
}

/// Fills a [`ChildSpec`].
#[must_use]
pub struct ChildBuilder<A: Service>(ChildSpec<A>);

macro_rules! setter {
    ($(#[$doc:meta])* $name:ident: $type:ty) => {
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.0.facts.$name = $name;
            self
        }
    };
}

impl<A: Service> ChildBuilder<A> {
    setter!(/// After which ends it is started again.
        restart: RestartPolicy);
    setter!(/// How many restarts are normal.
        limits: RestartLimits);
    setter!(/// The delay before each restart.
        backoff: Backoff);
    setter!(/// How long to wait after too many restarts.
        breaker: BreakerSpec);
    setter!(/// When it counts as stalled.
        liveness: LivenessSpec);
    setter!(/// How long it may take to stop when asked.
        stop_grace: Duration);
    setter!(/// On which thread it runs.
        placement: Placement);
    setter!(/// Whether the process is ready only when it is up.
        required: bool);

    /// Under whom it is shown.
    pub fn parent(mut self, parent: impl Into<ActorId>) -> Self {
        self.0.facts.parent = Some(parent.into());
        self
    }

    /// Two instances must never work at a time: a handover is a graceful restart.
    pub fn solitary(mut self) -> Self {
        self.0.facts.solitary = true;
        self
    }

    /// Makes it a member of a group. When a member is restarted by policy the strategy that it names says who is
    /// restarted with it, in the order of their start and at no charge.
    pub fn group(mut self, name: impl Into<Arc<str>>, strategy: Strategy) -> Self {
        self.0.facts.group = Some((name.into(), strategy));
        self
    }

    /// What is restarted with it, once, when it is restarted too often, and who is quarantined when that does not help.
    pub fn escalate(mut self, escalation: Escalation) -> Self {
        self.0.facts.escalation = Some(escalation);
        self
    }

    /// How many asks may be under way at once; at least one.
    pub fn asks(mut self, asks: usize) -> Self {
        self.0.facts.asks = asks.max(1);
        self
    }

    /// Shows an inbox in its health.
    pub fn inbox<T: Send + 'static>(mut self, inbox: &Inbox<T>) -> Self {
        self.0.facts.inboxes.push(inbox.gauge());
        self
    }

    /// The finished specification.
    #[must_use]
    pub fn build(self) -> ChildSpec<A> {
        self.0
    }
}
