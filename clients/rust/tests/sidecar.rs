//! The client against the real sidecar.

mod house;

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jan_client::contract::conversational::{CreateThread, ListThreads, ThreadRef};
use jan_client::contract::core::Empty;
use jan_client::{methods, Error, ErrorType, Event, Sidecar};
use serde_json::{json, Value};

/// A method of somebody's extension, as its frontend would declare it.
struct Work;

impl jan_client::Method for Work {
    const NAME: &'static str = "probe.work";
    type Params = Value;
    type Result = Value;
}

fn with_sidecar(work: impl FnOnce(Sidecar)) {
    let folder = house::Folder::new();
    if let Some(command) = house::sidecar(&folder, &[]) {
        let sidecar = Sidecar::spawn(command).expect("a sidecar");
        sidecar.client().initialize("test", "1").expect("a session");
        work(sidecar);
    }
}

#[test]
fn a_whole_session() {
    with_sidecar(|sidecar| {
        let client = sidecar.client();
        let mut events = client.events();
        let params = CreateThread { title: Some("on stdio".to_owned()), ..CreateThread::default() };
        let thread = client.call::<methods::ThreadsCreate>(&params).unwrap();
        assert_eq!(thread.title, "on stdio");
        let told = events.find_map(|event| match event {
            Event::ThreadsChanged(data) => Some(data.thread_id),
            _ => None,
        });
        assert_eq!(told.as_ref(), Some(&thread.id));
        let page = client.call::<methods::ThreadsList>(&ListThreads::default()).unwrap();
        assert_eq!(page.threads, [thread]);
        let error = client.call::<methods::ThreadsGet>(&ThreadRef { thread_id: "nope".to_owned() }).unwrap_err();
        assert_eq!(error.kind(), Some(&ErrorType::ThreadNotFound));
        assert!(sidecar.stop(Duration::from_secs(20)).unwrap().success());
    });
}

#[test]
fn streams_and_reports_go_over_the_wire() {
    with_sidecar(|sidecar| {
        let client = sidecar.client();
        let mut stream = client.stream_named("probe.count", &json!({"upto": 1000})).unwrap();
        let items: Vec<Value> = stream.by_ref().map(Result::unwrap).collect();
        assert_eq!(items, (0..1000).map(Value::from).collect::<Vec<_>>());
        assert_eq!(stream.result().unwrap(), json!({"count": 1000}));

        let kinds = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&kinds);
        let report = move |progress: jan_client::Progress| heard.lock().unwrap().push(progress.kind);
        client.begin_with_progress::<Work>(&json!({"upto": 2}), report).unwrap().wait().unwrap();
        assert_eq!(*kinds.lock().unwrap(), ["begin", "report", "end"]);
    });
}

#[test]
fn a_cancelled_call_ends_with_its_type() {
    with_sidecar(|sidecar| {
        let mut stream = sidecar.client().stream_named("probe.wait", &json!({})).unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), json!("waiting"));
        stream.canceller().cancel();
        let error = stream.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), Some(&ErrorType::Cancelled));
        assert!(stream.next().is_none());
        sidecar.client().call::<methods::Ping>(&Empty {}).unwrap();
    });
}

#[test]
fn what_is_under_way_ends_when_the_sidecar_is_killed() {
    with_sidecar(|mut sidecar| {
        let client = sidecar.client().clone();
        let mut stream = client.stream_named("probe.wait", &json!({})).unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), json!("waiting"));
        sidecar.kill().unwrap();
        assert!(matches!(stream.next(), Some(Err(Error::Closed))));
        assert!(matches!(client.call::<methods::Ping>(&Empty {}), Err(Error::Closed)));
    });
}

#[test]
fn dropping_a_sidecar_ends_its_process() {
    with_sidecar(|sidecar| {
        let mut events = sidecar.client().events();
        let began = Instant::now();
        drop(sidecar);
        assert_eq!(events.by_ref().find(|event| matches!(event, Event::DownloadsChanged(_))), None);
        assert!(began.elapsed() < Duration::from_secs(4));
    });
}

#[cfg(unix)]
#[test]
fn dropping_a_sidecar_does_not_wait_for_a_write_that_it_does_not_take() {
    let mut command = Command::new("sh");
    command.args(["-c", r#"head -c 1 >/dev/null; echo '{"method": "reading", "params": {}}'; exec sleep 60"#]);
    let sidecar = Sidecar::spawn(command).unwrap();
    let (client, mut events) = (sidecar.client().clone(), sidecar.client().events());
    let writer = std::thread::spawn(move || client.notify("probe.echo", &json!({"text": "x".repeat(1 << 20)})));
    assert!(events.next().is_some(), "it has begun to read");
    let began = Instant::now();
    drop(sidecar);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(writer.join().unwrap(), Err(Error::Closed)));
}

#[test]
fn the_log_can_be_read_from_a_pipe() {
    let folder = house::Folder::new();
    if let Some(mut command) = house::sidecar(&folder, &["--no-such-option".to_owned()]) {
        command.stderr(Stdio::piped());
        let mut sidecar = Sidecar::spawn(command).unwrap();
        let log = std::io::read_to_string(sidecar.stderr().expect("a pipe")).unwrap();
        assert!(log.contains("--no-such-option"), "{log}");
        assert!(sidecar.stderr().is_none(), "it is taken");
        assert!(matches!(sidecar.client().initialize("test", "1"), Err(Error::Closed)));
    }
}

#[test]
fn an_executable_that_is_not_there_is_an_error() {
    assert!(Sidecar::spawn(Command::new("/nowhere/jan-sidecar")).is_err());
}
