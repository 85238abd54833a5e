//! The one connection, and what its failures are called.

use std::time::Duration;

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, aio::MultiplexedConnection};
use serde::Serialize;

use crate::{composer::Commands, config::RedisConfig};

/// Requests of readers and of the publisher that the connection lets wait for their turn.
const QUEUE: usize = 64;

/// Why nothing could be written, in a word that counts and labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection, or it was lost.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// A replica, or a server that was made one.
    ReadOnly,
    /// It is still reading its data.
    Loading,
    /// It has no memory for more.
    OutOfMemory,
    /// User or password are wrong, missing, or not enough.
    Denied,
    /// It does not persist and refuses writes for that, or its primary is away.
    Impaired,
    /// Another answer that is not the one expected.
    Refused,
}

impl FailureKind {
    /// As labels and health call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::OutOfMemory => "out_of_memory",
            Self::Denied => "denied",
            Self::Impaired => "impaired",
            Self::Refused => "refused",
        }
    }
}

/// A failure: its kind, and what the server or the system said. Never holds the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", kind.as_str())]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// What was said.
    pub text: String,
}

impl Failure {
    fn late(within: Duration) -> Self {
        Self { kind: FailureKind::Timeout, text: format!("no answer within {within:?}") }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let kind = match error.code() {
            Some("READONLY") => FailureKind::ReadOnly,
            Some("LOADING") => FailureKind::Loading,
            Some("OOM") => FailureKind::OutOfMemory,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => FailureKind::Denied,
            Some("MISCONF" | "MASTERDOWN" | "NOREPLICAS" | "CLUSTERDOWN") => FailureKind::Impaired,
            _ if error.kind() == ErrorKind::AuthenticationFailed => FailureKind::Denied,
            _ if error.is_timeout() => FailureKind::Timeout,
            _ if error.is_io_error() || error.is_connection_dropped() => FailureKind::Unreachable,
            _ => by_text(&error.to_string()),
        };
        Self { kind, text: error.to_string() }
    }
}

/// Answers whose code the client does not keep apart, as in a pipeline of several errors.
fn by_text(text: &str) -> FailureKind {
    let names = [
        ("READONLY", FailureKind::ReadOnly),
        ("LOADING", FailureKind::Loading),
        ("OOM", FailureKind::OutOfMemory),
        ("NOAUTH", FailureKind::Denied),
        ("WRONGPASS", FailureKind::Denied),
        ("NOPERM", FailureKind::Denied),
        ("MISCONF", FailureKind::Impaired),
        ("MASTERDOWN", FailureKind::Impaired),
    ];
    let said =
        |name: &str| text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == name);
    let found = names.into_iter().find(|(name, _)| said(name));
    found.map_or(FailureKind::Refused, |(_, kind)| kind)
}

/// A connection. Its bounds are those of the configuration; when it is dropped its task ends.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    answer_within: Duration,
}

impl Link {
    /// Connects, logs in, and hears the server speak.
    ///
    /// # Errors
    /// When that does not come about within `connect_within`.
    pub async fn connect(config: &RedisConfig) -> Result<Self, Failure> {
        let within = config.connect_within;
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(Some(config.answer_within))
            .set_pipeline_buffer_size(QUEUE);
        let connecting = async {
            let client = config.address.client();
            let mut connection = client.get_multiplexed_async_connection_with_config(&options).await?;
            // A server that is loading, or wants a password, takes the connection and says so to the first command.
            redis::cmd("PING").exec_async(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        };
        let connection =
            tokio::time::timeout(within, connecting).await.map_err(|_| Failure::late(within))??;
        Ok(Self { connection, answer_within: config.answer_within })
    }

    /// Sends commands as one pipeline and waits for their answers.
    ///
    /// # Errors
    /// When one of them was refused, or the answers do not come in time: what was done then is unknown.
    pub async fn send(&self, commands: &Commands) -> Result<(), Failure> {
        if commands.pipeline().is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        let sending = commands.pipeline().exec_async(&mut connection);
        let sent = tokio::time::timeout(self.answer_within, sending).await;
        Ok(sent.map_err(|_| Failure::late(self.answer_within))??)
    }

    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}
