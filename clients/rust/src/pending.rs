//! Requests under way.

use std::marker::PhantomData;
use std::sync::mpsc::Receiver;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Handle, Reply};
use crate::error::Error;

/// How far long work has come. `done` and `total` have the same unit, which the message tells.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Progress {
    /// `begin`, `report` or `end`.
    pub kind: String,
    /// For a person.
    #[serde(default)]
    pub message: String,
    /// How much is done.
    #[serde(default)]
    pub done: Option<f64>,
    /// How much there is to do.
    #[serde(default)]
    pub total: Option<f64>,
}

/// Asks the host to stop a request, from any thread.
#[derive(Clone)]
pub struct Canceller {
    inner: Arc<Handle>,
    id: u64,
}

impl Canceller {
    /// Ask. The request then ends with an error of the type `cancelled`, unless its result was on its way already.
    pub fn cancel(&self) {
        self.inner.cancel(self.id);
    }
}

/// A call whose result has not been taken. Dropping it lets the call run on, unheard.
pub struct Pending<R> {
    canceller: Canceller,
    replies: Receiver<Reply>,
    result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> Pending<R> {
    pub(crate) fn new((inner, id, replies): (Arc<Handle>, u64, Receiver<Reply>)) -> Self {
        Self { canceller: Canceller { inner, id }, replies, result: PhantomData }
    }

    /// What cancels it.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Wait for the result.
    ///
    /// # Errors
    /// What the host answers, [`Error::Closed`] when it is gone, [`Error::Answer`] when the result has another shape.
    pub fn wait(self) -> Result<R, Error> {
        loop {
            match self.replies.recv().map_err(|_| Error::Closed)? {
                Reply::Item(_) => {} // of a stream that nobody asked for
                Reply::Result(result) => return read(&result),
                Reply::Error(error) => return Err(Error::Rpc(error)),
            }
        }
    }
}

/// The answer of a streaming method, on its way: an iterator over its items, then a result.
///
/// Items wait without limit until they are taken. Dropping it before its end cancels the request.
pub struct Stream<I, R> {
    canceller: Canceller,
    replies: Receiver<Reply>,
    end: Option<Result<Box<RawValue>, Option<Error>>>,
    types: PhantomData<fn() -> (I, R)>,
}

impl<I: DeserializeOwned, R: DeserializeOwned> Stream<I, R> {
    pub(crate) fn new((inner, id, replies): (Arc<Handle>, u64, Receiver<Reply>)) -> Self {
        Self { canceller: Canceller { inner, id }, replies, end: None, types: PhantomData }
    }

    /// What cancels it.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The result. Items that were not taken are dropped.
    ///
    /// # Errors
    /// As [`Pending::wait`]. An error that the iteration has returned already is [`Error::Closed`] here.
    pub fn result(mut self) -> Result<R, Error> {
        while self.end.is_none() {
            self.receive();
        }
        match self.end.take() {
            Some(Ok(result)) => read(&result),
            Some(Err(error)) => Err(error.unwrap_or(Error::Closed)),
            None => Err(Error::Closed),
        }
    }

    /// The next item; `None` when the end was received instead.
    fn receive(&mut self) -> Option<Box<RawValue>> {
        self.end = Some(match self.replies.recv() {
            Ok(Reply::Item(item)) => return Some(item),
            Ok(Reply::Result(result)) => Ok(result),
            Ok(Reply::Error(error)) => Err(Some(Error::Rpc(error))),
            Err(_) => Err(Some(Error::Closed)),
        });
        None
    }
}

impl<I: DeserializeOwned, R: DeserializeOwned> Iterator for Stream<I, R> {
    type Item = Result<I, Error>;

    /// The next item. A call that failed returns its error once, after the items that had come.
    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_none() {
            if let Some(item) = self.receive() {
                return Some(read(&item));
            }
        }
        match &mut self.end {
            Some(Err(error)) => error.take().map(Err),
            _ => None,
        }
    }
}

impl<I, R> Drop for Stream<I, R> {
    fn drop(&mut self) {
        self.canceller.cancel(); // does nothing for what has ended
    }
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Result<T, Error> {
    serde_json::from_str(json.get()).map_err(Error::Answer)
}
