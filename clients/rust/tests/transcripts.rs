//! The golden transcripts, replayed against the real sidecar.

mod house;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::{Map, Value};

struct Rules {
    members: Map<String, Value>,
    prefixes: Vec<String>,
}

impl Rules {
    fn read() -> Self {
        let text = fs::read_to_string(house::transcripts().join("rules.json")).unwrap();
        let rules: Value = serde_json::from_str(&text).unwrap();
        let prefixes = rules["prefixes"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned()).collect();
        Self { members: rules["members"].as_object().unwrap().clone(), prefixes }
    }

    fn apply(&self, value: Value) -> Value {
        match value {
            Value::Array(parts) => parts.into_iter().map(|part| self.apply(part)).collect(),
            Value::String(text) => match self.prefixes.iter().find(|prefix| text.starts_with(*prefix)) {
                Some(prefix) => Value::String(prefix.clone()),
                None => Value::String(text),
            },
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(name, inner)| {
                        let inner = self.members.get(&name).cloned().unwrap_or_else(|| self.apply(inner));
                        (name, inner)
                    })
                    .collect(),
            ),
            other => other,
        }
    }
}

fn replay(text: &str, rules: &Rules) {
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    let args: Vec<String> = serde_json::from_value(header["args"].clone()).unwrap();
    let folder = house::Folder::new();
    let Some(mut command) = house::sidecar(&folder, &args) else { return };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut into = BufReader::new(child.stdout.take().unwrap());
    let mut out = child.stdin.take().unwrap();
    let mut exit = None;
    for line in lines {
        if let Some(message) = line.get("send") {
            writeln!(out, "{message}").unwrap();
        } else if let Some(raw) = line.get("raw") {
            writeln!(out, "{}", raw.as_str().unwrap()).unwrap();
        } else if let Some(wanted) = line.get("receive") {
            let mut said = String::new();
            into.read_line(&mut said).unwrap();
            assert_eq!(&rules.apply(serde_json::from_str(&said).unwrap()), wanted, "{}", header["about"]);
        } else {
            exit = line["exit"].as_i64();
        }
    }
    drop(out);
    let mut rest = String::new();
    into.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "nothing more is said");
    assert_eq!(child.wait().unwrap().code().map(i64::from), exit);
}

#[test]
fn the_sidecar_says_what_the_transcripts_say() {
    let rules = Rules::read();
    let mut seen = 0;
    for entry in fs::read_dir(house::transcripts()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            replay(&fs::read_to_string(&path).unwrap(), &rules);
            seen += 1;
        }
    }
    assert!(seen >= 11, "every transcript");
}
