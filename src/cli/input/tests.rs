use std::io::Write as _;

use super::*;

fn reading(texts: &[&str]) -> (Reading, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let files: Vec<PathBuf> = (0..texts.len()).map(|index| folder.path().join(format!("{index}.yaml"))).collect();
    for (file, text) in files.iter().zip(texts) {
        std::fs::File::create(file).expect("a file").write_all(text.as_bytes()).expect("written");
    }
    let reading = read(&files);
    let of_whitelists = reading.whitelists.iter().flat_map(|found| &found.problems);
    let at = format!("{}/", folder.path().display());
    let said =
        reading.problems.iter().chain(of_whitelists).map(|problem| problem.to_string().replace(&at, "")).collect();
    (reading, said)
}

const GOOD: &str = "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: w}\nspec: {rules: [{name: a, run: [/bin/true]}]}\n";

#[test]
fn what_was_meant_to_be_a_whitelist_is_never_passed_over() {
    for (kind, version, expected) in [
        (
            "WhiteList",
            "writ.dev/v1alpha1",
            Some("2: error: there is no kind WhiteList of writ.dev/v1alpha1; write Whitelist"),
        ),
        (
            "whitelist",
            "writ.dev/v1alpha1",
            Some("2: error: there is no kind whitelist of writ.dev/v1alpha1; write Whitelist"),
        ),
        ("Whitelists", "writ.dev/v1alpha1", Some("write Whitelist")),
        ("Witelist", "writ.dev/v1alpha1", Some("write Whitelist")),
        ("Comandexecution", "writ.dev/v1alpha1", Some("write CommandExecution")),
        ("Blacklist", "writ.dev/v1alpha1", Some("it has the kinds Whitelist, Machine")),
        ("Whitelist", "writ.dev/v1", Some("1: error: there is no writ.dev/v1; write writ.dev/v1alpha1")),
        ("Whitelist", "writ.dev/v1beta1", Some("there is no writ.dev/v1beta1")),
        ("Whitelist", "v1alpha1", Some("is none of Writ's; write apiVersion: writ.dev/v1alpha1")),
        ("Whitelist", "v1", Some("is none of Writ's")),
        ("Whitelist", "writ.dev", Some("is none of Writ's")),
        ("Whitelist", "write.dev/v1alpha1", Some("is none of Writ's")),
        ("WhiteList", "wirt.dev/v1alpha1", Some("is none of Writ's")),
        ("Machine", "writ.de/v1alpha1", Some("the group writ.de is none of Writ's")),
        ("Machine", "writ.dev/v1alpha1", None),
        ("Machine", "cluster.x-k8s.io/v1beta1", None),
        ("ConfigMap", "v1", None),
    ] {
        let (reading, said) =
            reading(&[&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n---\n{GOOD}")]);
        assert_eq!(reading.whitelists.len(), 1);
        match expected {
            None => assert!(
                said.is_empty() && reading.notes[0].contains("1 other document is ignored"),
                "{kind} {version} {said:?}"
            ),
            Some(expected) => assert!(said.len() == 1 && said[0].contains(expected), "{kind} {version}: {said:?}"),
        }
    }
    for text in [
        "a: b\n",
        "kind: Whitelist\n",
        "apiVersion: writ.dev/v1alpha1\n",
        "- a\n",
        "text\n",
        "[]\n",
        "kind: y\napiVersion: v1\n",
    ] {
        let (_, said) = reading(&[&format!("{text}---\n{GOOD}")]);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
    }
}

#[test]
fn lists_are_what_is_in_them() {
    let item = "{metadata: {name: a}, spec: {rules: [{name: a, run: [/bin/true]}]}}";
    let with_kind = item.replacen('{', "{apiVersion: writ.dev/v1alpha1, kind: Whitelist, ", 1);
    for (list, whitelists) in [
        (format!("apiVersion: v1\nkind: List\nitems: [{with_kind}]\n"), 1),
        (format!("apiVersion: writ.dev/v1alpha1\nkind: WhitelistList\nitems: [{item}, {with_kind}]\n"), 2),
        (format!("apiVersion: v1\nkind: List\nitems: [{item}]\n"), 0),
        (format!("apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {{name: x}}\nitems: [{with_kind}]\n"), 0),
    ] {
        let (reading, said) = reading(&[&list]);
        assert_eq!(reading.whitelists.len(), whitelists, "{list}");
        assert_eq!(said.is_empty(), whitelists == 1, "{list}: {said:?}");
    }
}

#[test]
fn two_of_one_name_in_one_namespace_are_an_error_also_in_two_files() {
    let elsewhere = GOOD.replace("name: w}", "name: w, namespace: other}");
    let (_, said) = reading(&[&format!("{GOOD}---\n{elsewhere}"), &GOOD.replace("name: w}", "name: v}")]);
    assert_eq!(said, Vec::<String>::new());
    let (_, said) = reading(&[GOOD, &format!("# c\n{GOOD}")]);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("1.yaml:4: Whitelist w: error: metadata.name: there is a Whitelist w already in "),
        "{said:?}"
    );
    assert!(said[0].contains("0.yaml, line 3"), "{said:?}");
}

#[test]
fn a_file_or_rule_that_cannot_be_read_does_not_hide_the_others() {
    let two = "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: v}\nspec:\n  rules:\n  - {name: a, run: n}\n  - {name: b, run: [true]}\n  - {name: c, run: [/bin/true]}\n";
    let (reading, said) = reading(&["a: [", GOOD, two, ""]);
    assert_eq!(reading.whitelists.len(), 2);
    assert_eq!(reading.whitelists[1].whitelist.spec.rules.len(), 1);
    let starts = [
        "0.yaml:",
        "3.yaml: error: there is no Whitelist in it",
        "2.yaml:6: Whitelist v: error: rule a: run: must be a list, but is false",
        "2.yaml:7: Whitelist v: error: rule b: run[0]: the bare word true is a boolean for kubectl",
    ];
    assert_eq!(said.len(), 4, "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{start}\n{said}");
    }
    let missing = read(&[PathBuf::from("/no/such/file")]);
    assert!(missing.problems[0].to_string().starts_with("/no/such/file: error: cannot be read: "));
}
