//! Types generated from a document full of what generators stumble over: they compile, and go both ways.

#[rustfmt::skip]
#[path = "tricky/contract.rs"]
#[allow(dead_code)]
mod contract;

use contract::default;
use contract::odd_one::{Drawing, DrawingShape, DrawingStateValue, Keywords, OddDrawItem, Option_, Tree};
use serde::{de::DeserializeOwned, Serialize};
use serde_json::{json, Value};

fn both_ways<T: Serialize + DeserializeOwned>(value: &Value) -> T {
    let read: T = serde_json::from_value(value.clone()).expect("it can be read");
    assert_eq!(&serde_json::to_value(&read).unwrap(), value);
    read
}

#[test]
fn names_on_the_wire_are_kept() {
    let value = json!({"type": "t", "@id": "i", "with_dash": "_", "ref": "r", "self": "s", "camelCase": "c", "with-dash": "d", "2nd": "2", "fn": 1, "größe": 2});
    let read = both_ways::<Keywords>(&value);
    assert_eq!((read.r#type.as_str(), read.self_.as_str(), read.class), ("t", "s", None));
    let text: default::Text = both_ways(&json!("text"));
    assert_eq!(text, "text");
}

#[test]
fn null_and_left_out_are_two_things_where_they_mean_two_things() {
    let drawing = both_ways::<Drawing>(&json!({"shape": null, "state": "new"}));
    assert_eq!((drawing.shape, drawing.note), (None, None));
    let drawing = both_ways::<Drawing>(&json!({"shape": null, "state": "new", "note": null, "size": 3}));
    assert_eq!((drawing.note, drawing.size), (Some(None), Some(Some(3))));
}

#[test]
fn a_tagged_union_in_itself_has_an_end() {
    let value = json!({"kind": "self", "of": {"kind": "self", "of": {"kind": "circle", "radius": 1.5}}});
    assert!(matches!(both_ways::<OddDrawItem>(&value), OddDrawItem::Self_ { of: Some(_) }));
    let unknown: DrawingShape = serde_json::from_value(json!({"kind": "hexagon", "sides": 6})).unwrap();
    assert_eq!(unknown, DrawingShape::Unknown);
    assert!(serde_json::to_value(unknown).is_err(), "what was not understood is not passed on");
    assert!(serde_json::from_value::<DrawingShape>(json!({"kind": "circle"})).is_err());
    both_ways::<Tree>(&json!({"label": "a", "left": {"label": "b"}, "children": [{"label": "c"}], "by_name": {}}));
}

#[test]
fn an_unknown_string_is_kept_as_it_is() {
    assert_ne!(both_ways::<DrawingStateValue>(&json!("😀")), DrawingStateValue::Other("😀".to_owned()));
    for text in ["new", "in use", "Other", "3d", "", "é\u{2028}\"\\", "😀", "of tomorrow"] {
        both_ways::<DrawingStateValue>(&json!(text));
    }
    assert_eq!(both_ways::<Option_>(&json!("maybe")), Option_::Other("maybe".to_owned()));
}

#[test]
fn unions_without_a_tag_are_told_apart_by_their_kind() {
    for either in [json!(true), json!(7), json!(["a"])] {
        both_ways::<Drawing>(&json!({"shape": null, "state": "new", "either": either, "at": [0.5, 1], "level": 2}));
    }
}
