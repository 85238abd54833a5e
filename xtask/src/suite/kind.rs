//! The faults that the suite knows, and what each needs of the program and the simulator.

/// What has to be there so that a fault can be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but the two processes.
    Nothing,
    /// The simulator knows a fault of this name.
    Simulator(&'static str),
    /// The simulator's fault of this name takes this field.
    Field(&'static str, &'static str),
    /// The program was built with `fault-injection`.
    Injection,
    /// Its injection knows this fault of a book.
    BookFault(&'static str),
    /// Shards can be handed over.
    Handover,
    /// A single stream can be loaded anew.
    Resync,
    /// The simulator serves TLS with an authority of its own.
    Tls,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "KINDS says what each is")]
pub enum Kind {
    DropCut,
    DropClose,
    Silence,
    StubbornSilence,
    Skip,
    Duplicate,
    Reorder,
    Garbage,
    HalfOpen,
    Refuse,
    Rest429,
    Rest418,
    Rest5xx,
    StaleSnapshot,
    CrossedBook,
    CorruptLevel,
    LifeLimit,
    SlowNetwork,
    SlowRest,
    TimeJump,
    Delist,
    WrongCertificate,
    Kill,
    Terminate,
    PanicActor,
    HangActor,
    Handover,
    Graceful,
    KillShard,
    Resync,
    Pause,
    StoreLocked,
    Frozen,
    CorruptBook,
}

/// What is to be known of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Which.
    pub kind: Kind,
    /// Its name in the table.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Whether the service's published state has to show it. What is healed in passing, or harms nothing, need not show.
    pub shows: bool,
}

const fn facts(kind: Kind, name: &'static str, needs: Needs, shows: bool) -> Facts {
    Facts { kind, name, needs, shows }
}

/// All of them, in the order of the table.
pub const KINDS: &[Facts] = &[
    facts(Kind::DropCut, "connection cut", Needs::Simulator("drop"), true),
    facts(Kind::DropClose, "connection closed", Needs::Simulator("drop"), true),
    facts(Kind::Refuse, "connection cut, new ones refused", Needs::Simulator("refuse_connections"), true),
    facts(Kind::HalfOpen, "socket half open", Needs::Simulator("half_open"), true),
    facts(Kind::LifeLimit, "connection at the end of its life", Needs::Simulator("life_limit"), true),
    facts(Kind::SlowNetwork, "slow network", Needs::Simulator("slow_network"), false),
    facts(Kind::WrongCertificate, "wrong certificate", Needs::Tls, true),
    facts(Kind::Silence, "stream silent", Needs::Simulator("silence"), true),
    facts(
        Kind::StubbornSilence,
        "stream silent, also when subscribed anew",
        Needs::Field("silence", "stubborn"),
        true,
    ),
    facts(Kind::Skip, "messages left out", Needs::Simulator("skip"), true),
    facts(Kind::Duplicate, "messages doubled", Needs::Simulator("duplicate"), false),
    facts(Kind::Reorder, "messages out of order", Needs::Simulator("reorder"), false),
    facts(Kind::Garbage, "unreadable messages", Needs::Simulator("garbage"), true),
    facts(Kind::Rest429, "REST answers 429, with a resync", Needs::Simulator("rest_error"), true),
    facts(Kind::Rest418, "REST answers 418, with a resync", Needs::Simulator("rest_error"), true),
    facts(Kind::Rest5xx, "REST answers 503, with a resync", Needs::Simulator("rest_error"), true),
    facts(Kind::SlowRest, "slow REST, with a resync", Needs::Simulator("slow_rest"), true),
    facts(Kind::StaleSnapshot, "stale snapshot, with a resync", Needs::Simulator("stale_snapshot"), true),
    facts(Kind::CrossedBook, "crossed book", Needs::Simulator("crossed_book"), true),
    facts(Kind::CorruptLevel, "corrupt level sent", Needs::Simulator("corrupt_level"), false),
    facts(Kind::TimeJump, "venue's clock jumps", Needs::Simulator("time_jump"), false),
    facts(Kind::Delist, "symbol delisted and listed again", Needs::Simulator("delist"), true),
    facts(Kind::Kill, "kill -9 and start", Needs::Nothing, true),
    facts(Kind::Terminate, "SIGTERM and start", Needs::Nothing, true),
    facts(Kind::Frozen, "process stopped for seconds", Needs::Nothing, true),
    facts(Kind::StoreLocked, "store locked for seconds", Needs::Nothing, false),
    facts(Kind::PanicActor, "actor panics", Needs::Injection, true),
    facts(Kind::HangActor, "actor hangs", Needs::Injection, true),
    facts(Kind::CorruptBook, "level corrupted in memory", Needs::BookFault("corrupt_level"), true),
    facts(Kind::Handover, "shard restarted by handover", Needs::Handover, false),
    facts(Kind::Graceful, "shard restarted", Needs::Nothing, true),
    facts(Kind::KillShard, "shard killed", Needs::Nothing, true),
    facts(Kind::Pause, "shard paused and resumed", Needs::Nothing, true),
    facts(Kind::Resync, "stream resynchronized by command", Needs::Resync, false),
];

impl Kind {
    /// What is known of it.
    ///
    /// # Panics
    /// Never: each kind stands in the list.
    pub fn facts(self) -> &'static Facts {
        KINDS.iter().find(|facts| facts.kind == self).expect("every kind stands in the list")
    }

    /// Whether another process of the service runs afterwards.
    pub const fn ends_the_process(self) -> bool {
        matches!(self, Self::Kill | Self::Terminate)
    }
}
