//! The golden transcripts without a sidecar: the client says what they say, and understands what they answer.

use std::collections::HashMap;
use std::fs;
use std::io::{pipe, BufRead, BufReader, Write};
use std::path::Path;

use jan_client::{Client, Error, Stream};
use serde_json::{json, Value};

/// Whether this client could have said this as its request number `next`. It sends no batches, no garbage, no id twice,
/// and asks for progress of methods it has a type for only.
fn own(line: &Value, next: u64) -> bool {
    let Some(message) = line.get("send") else { return line.get("raw").is_none() };
    let asked = message.get("id").is_none_or(|id| id.as_u64() == Some(next));
    message.get("method").is_some() && asked && message["params"].get("progressToken").is_none()
}

fn answered(mut call: Stream<Value, Value>, message: &Value, items: &[Value]) {
    let mut got = Vec::new();
    let mut failed = None;
    for item in call.by_ref() {
        match item {
            Ok(item) => got.push(item),
            Err(error) => failed = Some(error),
        }
    }
    assert_eq!(got, items);
    match (message.get("error"), failed) {
        (Some(error), Some(Error::Rpc(said))) => {
            let mut data = json!({"type": said.kind.as_str(), "retryable": said.retryable});
            data.as_object_mut().unwrap().extend(said.data);
            assert_eq!(&json!({"code": said.code, "message": said.message, "data": data}), error);
        }
        (None, None) => assert_eq!(&call.result().unwrap(), message.get("result").unwrap()),
        (_, failed) => panic!("{failed:?} for {message}"),
    }
}

/// Have the conversation, as far as it is one of this client's own. Returns how many answers came.
fn converse(script: impl Iterator<Item = Value>) -> usize {
    let (up, writer) = pipe().unwrap();
    let (reader, mut down) = pipe().unwrap();
    let client = Client::new(reader, writer);
    let mut said = BufReader::new(up);
    let (mut calls, mut items) = (HashMap::new(), HashMap::<u64, Vec<Value>>::new());
    let (mut next, mut answers) = (1, 0);
    for line in script {
        if !own(&line, next) {
            break;
        }
        if let Some(message) = line.get("send") {
            let method = message["method"].as_str().unwrap();
            if message.get("id").is_some() {
                calls.insert(next, client.stream_named(method, &message["params"]).unwrap());
                next += 1;
            } else {
                client.notify(method, &message["params"]).unwrap();
            }
            let mut text = String::new();
            said.read_line(&mut text).unwrap();
            assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), message);
        } else if let Some(message) = line.get("receive") {
            writeln!(down, "{message}").unwrap();
            if message["method"] == "$/stream" {
                let id = message["params"]["id"].as_u64().unwrap();
                items.entry(id).or_default().push(message["params"]["delta"].clone());
            } else if message.get("method").is_none() {
                let id = message["id"].as_u64().unwrap();
                answered(calls.remove(&id).unwrap(), message, &items.remove(&id).unwrap_or_default());
                answers += 1;
            }
        }
    }
    answers
}

#[test]
fn the_client_can_have_the_conversations_as_far_as_they_are_its_own() {
    let mut answers = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../transcripts")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            let text = fs::read_to_string(path).unwrap();
            answers += converse(text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()));
        }
    }
    assert!(answers > 25, "most of what is recorded");
}
