#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod client;
#[rustfmt::skip]
#[allow(missing_docs)]
pub mod contract;
mod error;
mod pending;
mod sidecar;

pub use client::{Client, Events};
pub use contract::{methods, ErrorType, Event, Method, Streaming};
pub use error::{Error, RpcError};
pub use pending::{Canceller, Pending, Progress, Stream};
pub use sidecar::Sidecar;
