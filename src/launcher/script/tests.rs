use super::*;

const SOURCES: [&str; 10] = [
    COMMON,
    FOLLOW,
    ATTACH,
    END,
    include_str!("../probe.sh"),
    include_str!("../launch.sh"),
    include_str!("../tell.sh"),
    include_str!("../stop.sh"),
    include_str!("../close.sh"),
    include_str!("../files.sh"),
];

fn all() -> [String; 6] {
    [probe(), launch(), attach(), stop(), close(), files()]
}

#[test]
fn every_shell_passes_the_scripts_on_in_single_quotes() {
    for script in all() {
        assert!(script.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\'' && byte != b'\\'), "{script}");
        for (at, _) in script.match_indices('!') {
            assert!(
                matches!(script.as_bytes().get(at + 1), Some(b' ' | b'=')),
                "tcsh would take this for history: {script}"
            );
        }
    }
}

#[test]
fn every_shell_understands_what_comes_out() {
    for shell in ["dash", "bash", "busybox"] {
        for script in all() {
            let mut command = std::process::Command::new(shell);
            command.args((shell == "busybox").then_some("sh")).args(["-n", "-c", &script]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{shell}: {} in {script}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn what_is_stripped_is_lines_of_comment_and_indentation() {
    let source = "# Why.\n#!x\nf() {\n\techo \"a # b\"\n\n\tg && \n\t\th\n}\ncase $x in\na) ;;\nesac\nx=$!\nif a; then\n\tb\nfi\n";
    let stripped = "f() { echo \"a # b\"; g && h; }; case $x in a) ;; esac; x=$! ; if a; then b; fi;";
    assert_eq!(strip(source), stripped);
}

/// What the stripping relies on.
#[test]
fn the_scripts_are_written_so_that_they_can_be_stripped() {
    for source in SOURCES {
        assert!(!source.contains("<<"), "a here-document");
        for line in source.lines() {
            let quotes = line.bytes().filter(|byte| *byte == b'"').count();
            assert!(line.trim().starts_with('#') || quotes % 2 == 0, "a word over several lines: {line}");
            assert!(line.len() <= 124, "{line}");
            let code = line.trim();
            assert!(code.starts_with('#') || !code.contains(" #"), "a comment behind code: {line}");
        }
    }
}

#[test]
fn each_variable_gets_a_short_name_of_its_own() {
    assert_eq!(
        shorten("_one=$_two; read -r _ _one <x_y; WRIT_X=${_two%_}"),
        "_a=$_b; read -r _ _a <x_y; WRIT_X=${_b%_}"
    );
    let many: Vec<String> = (0..1000).map(|number| format!("_name{number}")).collect();
    let short = shorten(&many.join(" "));
    let distinct: std::collections::BTreeSet<&str> = short.split(' ').collect();
    assert_eq!(distinct.len(), many.len());
}
