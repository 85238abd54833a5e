//! Why an instance of an actor ended, and what it was doing then. Plain data.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::clock::Micros;

/// The name of an actor: a path such as `group/part/7`, unique in the process and stable over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId(Arc<str>);

impl ActorId {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ActorId {
    fn from(path: &str) -> Self {
        Self(path.into())
    }
}

impl From<String> for ActorId {
    fn from(path: String) -> Self {
        Self(path.into())
    }
}

impl From<&ActorId> for ActorId {
    fn from(id: &ActorId) -> Self {
        id.clone()
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ActorId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A failure that an actor states itself, instead of panicking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// A short stable word for machines.
    pub code: Cow<'static, str>,
    /// The sentence for people; names the input.
    pub message: String,
}

impl Fault {
    /// A fault with its code and its message.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Why an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped by itself.
    Finished,
    /// It stopped because it was asked to.
    Asked,
    /// It stated that it cannot go on.
    Failed(Fault),
    /// It panicked; the text holds message and place.
    Panicked(String),
    /// It showed no progress for `silent` and was ended.
    Stalled {
        /// How long it had been silent.
        silent: Duration,
    },
    /// It was ended by force, after its grace or at once.
    Killed,
    /// Its thread ended under it.
    ArbiterLost,
}

impl ExitReason {
    /// The reason as one stable word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Asked => "asked",
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
            Self::Stalled { .. } => "stalled",
            Self::Killed => "killed",
            Self::ArbiterLost => "arbiter_lost",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(fault) => write!(f, "failed: {fault}"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Stalled { silent } => write!(f, "no progress for {} ms", silent.as_millis()),
            Self::ArbiterLost => f.write_str("its thread ended"),
            other => f.write_str(other.word()),
        }
    }
}

/// What identifies the item being handled (an id or a hash of it), for finding an item that panics again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemTag(pub u64);

/// What the instance was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `on_start` had not returned.
    Starting,
    /// Inside an operation announced by `Lifeline::enter`.
    Handling {
        /// The operation.
        op: &'static str,
        /// The item, when the actor named it.
        tag: Option<ItemTag>,
    },
    /// Between operations.
    Idle,
    /// After it was asked to stop.
    Stopping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Idle => f.write_str("idle"),
            Self::Stopping => f.write_str("stopping"),
            Self::Handling { op, tag: None } => write!(f, "handling {op}"),
            Self::Handling { op, tag: Some(tag) } => write!(f, "handling {op} #{:x}", tag.0),
        }
    }
}

/// The end of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// Whose end it was.
    pub id: ActorId,
    /// Which instance.
    pub generation: u64,
    /// Why.
    pub reason: ExitReason,
    /// What it was doing.
    pub phase: Phase,
    /// When, microseconds UTC.
    pub at_us: Micros,
    /// How long the instance had lived.
    pub lived: Duration,
}

impl Serialize for ExitReport {
    /// `{generation, kind, reason, phase, at_us, lived_ms}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ExitReport", 6)?;
        out.serialize_field("generation", &self.generation)?;
        out.serialize_field("kind", self.reason.word())?;
        out.serialize_field("reason", &self.reason.to_string())?;
        out.serialize_field("phase", &self.phase.to_string())?;
        out.serialize_field("at_us", &self.at_us)?;
        out.serialize_field("lived_ms", &u64::try_from(self.lived.as_millis()).unwrap_or(u64::MAX))?;
        out.end()
    }
}
