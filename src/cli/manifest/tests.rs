use serde_json::{Value, json};

use super::*;

fn values(text: &str) -> Vec<Result<Value, (usize, String)>> {
    let documents = read(text.as_bytes()).expect("text");
    documents
        .into_iter()
        .map(|read| read.map(|node| node.value()).map_err(|fault| (fault.line, fault.message)))
        .collect()
}

fn value(text: &str) -> Value {
    let mut values = values(text);
    assert_eq!(values.len(), 1, "{values:?}");
    values.remove(0).expect("it can be read")
}

#[test]
fn plain_words_are_what_yaml_1_1_makes_of_them() {
    let text = "[n, Y, on, Off, 0777, 0o17, 0b11, 1_000, 0x1F, 08, 1e3, 1.5, 30.0, ~, null, 2001-01-01, 12:30, yess, 'n', \"y\"]";
    let expected = json!([
        false,
        true,
        true,
        false,
        511,
        15,
        3,
        1000,
        31,
        8,
        1000,
        1.5,
        30,
        null,
        null,
        "2001-01-01",
        "12:30",
        "yess",
        "n",
        "y"
    ]);
    assert_eq!(value(text), expected);
    assert_eq!(value("---\n{y: 1, 0x10: 2, 'n': 3}"), json!({"true": 1, "16": 2, "n": 3}));
    assert_eq!(
        value("---\n{a: !!str n, b: ! n, c: !mine n, d: !!int '3'}"),
        json!({"a": "n", "b": "n", "c": "n", "d": 3})
    );
}

#[test]
fn aliases_and_merge_keys_are_followed_and_bounded() {
    let text = "base: &b {x: 1, z: 2}\nbefore: {<<: *b, x: 3}\nbehind: {x: 3, <<: *b}\n";
    let value = value(text);
    assert_eq!((&value["before"], &value["behind"]), (&json!({"x": 3, "z": 2}), &json!({"x": 1, "z": 2})));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    let (_, message) = values(&bomb).remove(0).expect_err("too many values");
    assert!(message.contains("1000000 values"), "{message}");
    let (_, message) = values("a: &a [*a]\n").remove(0).expect_err("an endless value");
    assert!(message.contains("within its own value"), "{message}");
    assert!(values(&"[".repeat(5000)).remove(0).is_err());
    assert!(values(&format!("a: {}{}", "[".repeat(150), "]".repeat(150))).remove(0).is_err());
}

#[test]
fn documents_are_parted_as_kubectl_parts_them_and_keep_their_lines() {
    let text = "\u{feff}# first\r\na: 1\r\n--- # second\r\nb:\r\n  c: 2\r\n---\r\n---\r\nd: [\r\n---\r\ne: 3\r\n";
    let documents = read(text.as_bytes()).expect("text");
    let of = |index: usize| documents[index].as_ref().expect("it can be read");
    assert_eq!(
        (of(0).value(), of(1).value(), of(3).value()),
        (json!({"a": 1}), json!({"b": {"c": 2}}), json!({"e": 3}))
    );
    assert_eq!((of(0).line_of("a"), of(1).line_of("b.c"), of(3).line_of("e")), (2, 5, 10));
    assert!(documents[2].as_ref().is_err_and(|fault| fault.line >= 8), "{:?}", documents[2]);
    let (line, message) = values("a: 1\n--- b: 2\n").remove(1).expect_err("kubectl refuses it");
    assert!(line == 2 && message.contains("may follow ---"), "{line} {message}");
    let (line, message) = values("a: 1\n...\nb: 2\n").remove(0).expect_err("kubectl passes over b");
    assert!(line == 3 && message.contains("ignores it"), "{line} {message}");
}

#[test]
fn json_streams_and_other_encodings_are_read() {
    assert_eq!(values("{\"a\": 1}{\"a\": \"\\/\\ud83d\\ude00\"}\n{\"b\": y}").len(), 3);
    let documents = read(b"\n{\"a\": 1}\n{\n\"b\": 2}").expect("text");
    assert_eq!(documents[1].as_ref().map(|node| node.line_of("b")).ok(), Some(4));
    let utf16: Vec<u8> = "\u{feff}a: b".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&utf16).expect("text").remove(0).expect("YAML").value(), json!({"a": "b"}));
    let fault = read(b"a: b\nc: \xff").expect_err("it is no UTF-8");
    assert_eq!(fault.line, 2);
    let (line, message) = values("a: b\nc: \u{8}").remove(0).expect_err("a control character");
    assert!(line == 2 && message.contains("U+0008"), "{line} {message}");
}

#[test]
fn lines_are_those_of_the_value_that_a_path_leads_to() {
    let text = "a:\n  b:\n    - c: 1\n    - c: 2\n      d: |\n        x\n";
    let node = read(text.as_bytes()).expect("text").remove(0).expect("YAML");
    for (path, line) in
        [("a", 1), ("a.b", 2), ("a.b[0].c", 3), ("a.b[1]", 4), ("a.b[1].d", 5), ("a.b[1].e", 4), ("x", 1)]
    {
        assert_eq!(node.line_of(path), line, "{path}");
    }
    assert_eq!((node.line_within("a.x"), node.line_within("x")), (Some(1), None));
}

#[test]
fn tabs_are_taken_where_kubectl_takes_them() {
    for text in
        ["a: |\n  x\n  \ty\n", "a:\n- |\n  x\n\n  \ty\n- b\n", "a: >-\n  x\n  y\tz\nb: c\n", "a:\tb\n", "a: b\t# c\n"]
    {
        assert!(values(text)[0].is_ok(), "{text:?} {:?}", values(text));
    }
    for text in
        ["a: |\n  x\n \ty\n", "a: |\n  \tx\n", "a:\n-\tb\n", "a: b\n\t\n", "a: b\n\t# c\n", "a: |\n  x\nb:\n \tc\n"]
    {
        let (_, message) = values(text).remove(0).expect_err("kubectl refuses it");
        assert!(message.contains("tab") || message.contains("neither YAML"), "{text:?} {message}");
    }
}
