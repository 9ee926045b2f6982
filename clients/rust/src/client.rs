//! The connection: ids, what is under way, events. It starts no process and knows no types but those it is asked for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Value};

use crate::contract::{core, methods, Event, Method, Streaming};
use crate::error::{Error, RpcError};
use crate::pending::{Pending, Progress, Stream};

/// What comes for a request.
pub(crate) enum Reply {
    Item(Box<RawValue>),
    Result(Box<RawValue>),
    Error(RpcError),
}

type OnProgress = Box<dyn FnMut(Progress) + Send>;

struct Request {
    replies: Sender<Reply>,
    progress: Option<OnProgress>,
}

struct State {
    next: u64,
    gone: bool,
    requests: HashMap<u64, Request>,
    listeners: Vec<Sender<Event>>,
}

pub(crate) struct Inner {
    writer: Mutex<Option<Box<dyn Write + Send>>>,
    state: Mutex<State>,
}

/// What users of a connection hold. The reading thread holds the inner part alone, so that it does not keep the
/// connection open by itself.
pub(crate) struct Handle(Arc<Inner>);

impl Deref for Handle {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.writer().take();
    }
}

/// A connection to a host. Clones share it; it may be used from many threads at once. The way out ends with the last
/// clone, and the last call or stream made with it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Handle>,
}

#[derive(Serialize)]
struct Outgoing<'a, P: ?Sized> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: &'a P,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Option<Box<RawValue>>,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<RpcError>,
}

impl Client {
    /// Speak over a pair of byte streams. A thread of its own reads until the other side is gone.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        let state = State { next: 1, gone: false, requests: HashMap::new(), listeners: Vec::new() };
        let inner = Arc::new(Inner { writer: Mutex::new(Some(Box::new(writer))), state: Mutex::new(state) });
        let reading = Arc::clone(&inner);
        thread::spawn(move || {
            // Anything that is not JSON means that this is no host: the connection is over.
            let _ = reading.read(BufReader::with_capacity(64 << 10, reader));
            reading.lost();
        });
        Self { inner: Arc::new(Handle(inner)) }
    }

    /// Begin the session: `initialize`, then `initialized`, upon which extensions start in the background.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn initialize(&self, name: &str, version: &str) -> Result<core::InitializeResult, Error> {
        let info = core::ClientInfo { name: Some(name.to_owned()), version: Some(version.to_owned()) };
        let params = core::InitializeParams {
            protocol_version: Some("1.0".to_owned()),
            client_info: Some(info),
            ..core::InitializeParams::default()
        };
        let hello = self.call::<methods::Initialize>(&params)?;
        self.notify("initialized", &json!({}))?;
        Ok(hello)
    }

    /// Call a method and wait for its result.
    ///
    /// # Errors
    /// What the host answers, [`Error::Closed`] when it is gone, or JSON that cannot be written or read.
    pub fn call<M: Method>(&self, params: &M::Params) -> Result<M::Result, Error> {
        self.begin::<M>(params)?.wait()
    }

    /// Call a method without waiting: what is returned can be waited for, and cancelled from another thread.
    ///
    /// # Errors
    /// As [`Client::call`], but for what the host answers.
    pub fn begin<M: Method>(&self, params: &M::Params) -> Result<Pending<M::Result>, Error> {
        Ok(Pending::new(self.request(M::NAME, params, None)?))
    }

    /// The same with reports of how far long work has come. `progress` runs on the reading thread: it must be quick,
    /// and must not wait for an answer of this client. One that panics is not called again.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub fn begin_with_progress<M: Method>(
        &self,
        params: &M::Params,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Pending<M::Result>, Error> {
        Ok(Pending::new(self.request(M::NAME, params, Some(Box::new(progress)))?))
    }

    /// Call a method that streams: iterate over its items, then ask for its result.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub fn stream<M: Streaming>(&self, params: &M::Params) -> Result<Stream<M::Item, M::Result>, Error> {
        Ok(Stream::new(self.request(M::NAME, params, None)?))
    }

    /// Call a method this crate has no type for: one of somebody else's extension.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub fn begin_named(&self, method: &str, params: &Value) -> Result<Pending<Value>, Error> {
        Ok(Pending::new(self.request(method, params, None)?))
    }

    /// The same for one that streams.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub fn stream_named(&self, method: &str, params: &Value) -> Result<Stream<Value, Value>, Error> {
        Ok(Stream::new(self.request(method, params, None)?))
    }

    /// Send a notification: nothing comes back.
    ///
    /// # Errors
    /// [`Error::Closed`] when the other side is gone.
    pub fn notify(&self, method: &str, params: &Value) -> Result<(), Error> {
        self.inner.send(None, method, params)
    }

    /// Hear events from now on. They wait without limit until they are taken; dropping it ends that.
    #[must_use]
    pub fn events(&self) -> Events {
        let (sender, receiver) = mpsc::channel();
        let mut state = self.inner.state();
        if !state.gone {
            state.listeners.push(sender);
        }
        Events(receiver)
    }

    /// End the way out, which ends a sidecar.
    pub fn close(&self) {
        self.inner.writer().take();
    }

    fn request(
        &self,
        method: &str,
        params: &impl Serialize,
        progress: Option<OnProgress>,
    ) -> Result<(Arc<Handle>, u64, Receiver<Reply>), Error> {
        let reports = progress.is_some();
        let (replies, receiver) = mpsc::channel();
        let id = {
            let mut state = self.inner.state();
            if state.gone {
                return Err(Error::Closed);
            }
            let id = state.next;
            state.next += 1;
            state.requests.insert(id, Request { replies, progress });
            id
        };
        let sent = if reports {
            with_token(params, id).and_then(|params| self.inner.send(Some(id), method, &params))
        } else {
            self.inner.send(Some(id), method, params)
        };
        if let Err(error) = sent {
            self.inner.state().requests.remove(&id);
            return Err(error);
        }
        Ok((Arc::clone(&self.inner), id, receiver))
    }
}

impl Inner {
    /// Ask the host to stop a request, if it runs still.
    pub(crate) fn cancel(&self, id: u64) {
        if self.state().requests.contains_key(&id) {
            let _ = self.send(None, "$/cancelRequest", &json!({"id": id})); // a host that is gone has stopped
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Box<dyn Write + Send>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, id: Option<u64>, method: &str, params: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let mut line = serde_json::to_vec(&Outgoing { jsonrpc: "2.0", id, method, params }).map_err(Error::Params)?;
        line.push(b'\n');
        let mut writer = self.writer();
        let out = writer.as_mut().ok_or(Error::Closed)?;
        out.write_all(&line).and_then(|()| out.flush()).map_err(|_| Error::Closed)
    }

    fn read(&self, mut reader: impl BufRead) -> std::io::Result<()> {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.trim_ascii_start().first() == Some(&b'[') {
                serde_json::from_slice::<Vec<Message>>(&line)?.into_iter().for_each(|message| self.take(message));
            } else if !line.trim_ascii().is_empty() {
                self.take(serde_json::from_slice(&line)?);
            }
            line.clear();
        }
        Ok(())
    }

    fn take(&self, message: Message) {
        if let Some(method) = message.method {
            return self.notified(&method, message.params);
        }
        // One without our id is of no request of ours: an answer with a null id, for one.
        let Some(request) =
            message.id.as_ref().and_then(Value::as_u64).and_then(|id| self.state().requests.remove(&id))
        else {
            return;
        };
        let reply = match message.error {
            Some(error) => Reply::Error(error),
            None => Reply::Result(message.result.unwrap_or_else(null)),
        };
        let _ = request.replies.send(reply); // whoever asked may wait no more
    }

    fn notified(&self, method: &str, params: Option<Box<RawValue>>) {
        #[derive(Deserialize)]
        struct Item {
            id: Value,
            delta: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Report {
            token: Value,
            value: Progress,
        }
        let params = params.unwrap_or_else(null);
        match method {
            "$/stream" => {
                let Ok(item) = serde_json::from_str::<Item>(params.get()) else { return };
                if let Some(request) =
                    item.id.as_u64().and_then(|id| self.state().requests.get(&id).map(|r| r.replies.clone()))
                {
                    let _ = request.send(Reply::Item(item.delta));
                }
            }
            "$/progress" => {
                let Ok(report) = serde_json::from_str::<Report>(params.get()) else { return };
                let Some(id) = report.token.as_u64() else { return };
                // Taken out while it runs: it may call this client.
                let taken = self.state().requests.get_mut(&id).and_then(|request| request.progress.take());
                if let Some(mut progress) = taken {
                    // Others wait for what this thread reads; the panic has been told by the hook.
                    if catch_unwind(AssertUnwindSafe(|| progress(report.value))).is_err() {
                        return;
                    }
                    if let Some(request) = self.state().requests.get_mut(&id) {
                        request.progress = Some(progress);
                    }
                }
            }
            _ => {
                let Ok(data) = serde_json::from_str(params.get()) else { return };
                let event = Event::read(method, data);
                self.state().listeners.retain(|listener| listener.send(event.clone()).is_ok());
            }
        }
    }

    fn lost(&self) {
        let mut state = self.state();
        state.gone = true;
        state.listeners.clear();
        let requests = mem::take(&mut state.requests);
        drop(state); // what reports are given to may own a stream, whose end asks for the state
        drop(requests); // whoever waits for a reply learns it from the dropped sender
        self.writer().take(); // last: a write that the other side does not take may be under way
    }
}

/// Params with the token that asks for reports.
fn with_token(params: &impl Serialize, id: u64) -> Result<Value, Error> {
    let mut params = serde_json::to_value(params).map_err(Error::Params)?;
    if let Some(members) = params.as_object_mut() {
        members.insert("progressToken".to_owned(), json!(id));
    }
    Ok(params)
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// Events as they come. The iteration ends when the other side is gone.
pub struct Events(Receiver<Event>);

impl Events {
    /// The next one, if it comes in time.
    #[must_use]
    pub fn next_within(&self, time: std::time::Duration) -> Option<Event> {
        self.0.recv_timeout(time).ok()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv().ok()
    }
}
