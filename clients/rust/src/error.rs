//! What a call ends with when it does not end with a result.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::contract::ErrorType;

/// The host's answer is an error. Rely on `kind`; `data` has the members of that kind.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcError {
    /// The code of JSON-RPC. Two extensions may use one code.
    pub code: i64,
    /// One line for a person.
    pub message: String,
    /// The stable type.
    pub kind: ErrorType,
    /// Whether the same call may go well later.
    pub retryable: bool,
    /// The error's own members.
    pub data: Map<String, Value>,
}

impl<'de> Deserialize<'de> for RpcError {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            code: i64,
            message: String,
            #[serde(default)]
            data: Option<Map<String, Value>>,
        }
        let Wire { code, message, data } = Wire::deserialize(deserializer)?;
        let mut data = data.unwrap_or_default();
        let kind = ErrorType::read(data.remove("type").as_ref().and_then(Value::as_str).unwrap_or("error"));
        let retryable = data.remove("retryable") == Some(Value::Bool(true));
        Ok(Self { code, message, kind, retryable, data })
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind.as_str())
    }
}

impl std::error::Error for RpcError {}

/// Why a call did not end with a result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The host's answer is an error.
    Rpc(RpcError),
    /// The other side is gone: nothing more can be sent, and what was not answered will not be.
    Closed,
    /// The params cannot be written as JSON.
    Params(serde_json::Error),
    /// What the host sent is not of the type that was asked for.
    Answer(serde_json::Error),
}

impl Error {
    /// The stable type of the host's error; `None` when it is none of the host's.
    #[must_use]
    pub fn kind(&self) -> Option<&ErrorType> {
        match self {
            Self::Rpc(error) => Some(&error.kind),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(error) => error.fmt(f),
            Self::Closed => f.write_str("the other side is gone"),
            Self::Params(error) => write!(f, "the params cannot be written: {error}"),
            Self::Answer(error) => write!(f, "the answer is not what it should be: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rpc(error) => Some(error),
            Self::Closed => None,
            Self::Params(error) | Self::Answer(error) => Some(error),
        }
    }
}
