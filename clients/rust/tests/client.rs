//! The client on its own: a host that is a script behind two pipes.

use std::io::{pipe, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::thread;

use jan_client::contract::conversational::{CreateThread, RunThread, ThreadsRunItem};
use jan_client::contract::core::Empty;
use jan_client::{methods, Client, Error, ErrorType, Event};
use serde_json::{json, Value};

struct Host {
    heard: BufReader<PipeReader>,
    out: PipeWriter,
}

fn connected() -> (Client, Host) {
    let (up, writer) = pipe().unwrap();
    let (reader, out) = pipe().unwrap();
    (Client::new(reader, writer), Host { heard: BufReader::new(up), out })
}

impl Host {
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.heard.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.out, "{message}").unwrap();
    }
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let (client, mut host) = connected();
    let titled = |title: &str| CreateThread { title: Some(title.to_owned()), ..CreateThread::default() };
    let first = client.begin::<methods::ThreadsCreate>(&titled("one")).unwrap();
    let second = client.begin::<methods::ThreadsCreate>(&titled("two")).unwrap();
    let (one, two) = (host.next(), host.next());
    assert_eq!(one["params"], json!({"title": "one"}), "what is left out is not sent");
    for (request, id) in [(two, "t2"), (one, "t1")] {
        let result = json!({"id": id, "title": "", "created_at": "", "updated_at": ""});
        host.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }
    assert_eq!(first.wait().unwrap().id, "t1");
    assert_eq!(second.wait().unwrap().id, "t2");
}

#[test]
fn items_are_told_apart_by_their_tag_and_unknown_ones_do_no_harm() {
    let (client, mut host) = connected();
    let mut stream = client.stream::<methods::ThreadsRun>(&RunThread::new("t".to_owned())).unwrap();
    let id = host.next()["id"].clone();
    let deltas =
        [json!({"type": "delta", "text": "é😀"}), json!({"type": "gesture", "hand": 1}), json!({"type": "delta"})];
    for (seq, delta) in deltas.iter().enumerate() {
        host.say(&json!({"jsonrpc": "2.0", "method": "$/stream", "params": {"id": id, "seq": seq, "delta": delta}}));
    }
    assert_eq!(stream.next().unwrap().unwrap(), ThreadsRunItem::Delta { text: "é😀".to_owned() });
    assert_eq!(stream.next().unwrap().unwrap(), ThreadsRunItem::Unknown);
    assert!(matches!(stream.next(), Some(Err(Error::Answer(_)))), "a known kind must be complete");
    drop(stream);
    assert_eq!(host.next()["method"], "$/cancelRequest");
}

#[test]
fn an_error_is_typed() {
    let (client, mut host) = connected();
    let pending = client.begin::<methods::Ping>(&Empty {}).unwrap();
    let id = host.next()["id"].clone();
    let data = json!({"type": "worker_died", "retryable": true, "exit_code": 6});
    host.say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32030, "message": "gone", "data": data}}));
    let Err(Error::Rpc(error)) = pending.wait() else { panic!("an error of the host's") };
    assert_eq!((error.kind, error.retryable, error.code), (ErrorType::WorkerDied, true, -32030));
    assert_eq!(error.data["exit_code"], 6);
}

#[test]
fn events_are_typed_and_unknown_ones_are_kept() {
    let (client, mut host) = connected();
    let mut events = client.events();
    let data = json!({"id": "m", "state": "hibernating", "error": ""});
    host.say(&json!({"jsonrpc": "2.0", "method": "models.changed", "params": data}));
    host.say(&json!({"jsonrpc": "2.0", "method": "weather.changed", "params": {"rain": true}}));
    let Some(Event::ModelsChanged(changed)) = events.next() else { panic!("a known event") };
    assert_eq!(serde_json::to_value(changed.state).unwrap(), "hibernating", "a state of tomorrow");
    let other = Event::Other { name: "weather.changed".to_owned(), data: json!({"rain": true}) };
    assert_eq!(events.next(), Some(other));
    drop(host);
    assert_eq!(events.next(), None);
}

#[test]
fn the_way_out_ends_with_the_last_who_may_use_it() {
    let (client, mut host) = connected();
    let pending = client.begin::<methods::Ping>(&Empty {}).unwrap();
    drop(client);
    let id = host.next()["id"].clone();
    host.say(&json!({"jsonrpc": "2.0", "id": id, "result": {}}));
    pending.wait().unwrap();
    assert_eq!(host.heard.read_line(&mut String::new()).unwrap(), 0);
}

#[test]
fn many_threads_share_a_client() {
    let (client, mut host) = connected();
    let answering = thread::spawn(move || {
        for _ in 0..400 {
            let request = host.next();
            host.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]}));
        }
    });
    thread::scope(|scope| {
        for worker in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    let params = json!({"worker": worker, "n": n});
                    assert_eq!(client.begin_named("probe.echo", &params).unwrap().wait().unwrap(), params);
                }
            });
        }
    });
    answering.join().unwrap();
}

#[test]
fn a_report_that_panics_costs_nobody_an_answer() {
    let (client, mut host) = connected();
    let other = client.begin::<methods::Ping>(&Empty {}).unwrap();
    let panics = |_| panic!("the application's own");
    let pending = client.begin_with_progress::<methods::Ping>(&Empty {}, panics).unwrap();
    let (one, two) = (host.next(), host.next());
    let params = json!({"token": two["params"]["progressToken"], "value": {"kind": "report"}});
    host.say(&json!({"jsonrpc": "2.0", "method": "$/progress", "params": params}));
    for request in [one, two] {
        host.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": {}}));
    }
    pending.wait().unwrap();
    other.wait().unwrap();
}

#[test]
fn the_end_does_not_wait_for_what_a_report_owns() {
    let (client, mut host) = connected();
    let stream = client.stream_named("probe.wait", &json!({})).unwrap();
    let owner = move |_| drop(stream.canceller());
    let pending = client.begin_with_progress::<methods::Ping>(&Empty {}, owner).unwrap();
    host.next();
    drop(host);
    assert!(matches!(pending.wait(), Err(Error::Closed)));
    assert!(matches!(client.call::<methods::Ping>(&Empty {}), Err(Error::Closed)));
}

#[test]
fn the_end_does_not_wait_for_a_write_that_is_not_taken() {
    let (client, mut host) = connected();
    let pending = client.begin::<methods::Ping>(&Empty {}).unwrap();
    host.next();
    let writing = client.clone();
    let writer = thread::spawn(move || writing.notify("probe.echo", &json!({"text": "x".repeat(1 << 20)})));
    assert!(!host.heard.fill_buf().unwrap().is_empty(), "it is being written, and will not be read");
    drop(host.out);
    assert!(matches!(pending.wait(), Err(Error::Closed)));
    drop(host.heard);
    assert!(matches!(writer.join().unwrap(), Err(Error::Closed)));
}

#[test]
fn what_is_under_way_ends_when_the_host_is_gone_or_speaks_no_json() {
    for garbage in [false, true] {
        let (client, mut host) = connected();
        let pending = client.begin::<methods::Ping>(&Empty {}).unwrap();
        host.next();
        if garbage {
            host.out.write_all(b"Segmentation fault\n").unwrap();
        } else {
            drop(host);
        }
        assert!(matches!(pending.wait(), Err(Error::Closed)));
        assert!(matches!(client.call::<methods::Ping>(&Empty {}), Err(Error::Closed)));
    }
}
