use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;

use super::*;
use words::Words;

mod words;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

/// Returns the shells of [`SHELLS`] that this host has. Every host has a POSIX shell of some kind, and the tests on
/// machines install the others.
fn shells() -> Vec<&'static [&'static str]> {
    let is_installed = |shell: &&&[&str]| {
        let name = shell.first().unwrap();
        ["/bin", "/usr/bin"].iter().any(|folder| std::path::Path::new(folder).join(name).exists())
    };
    let found: Vec<_> = SHELLS.iter().filter(is_installed).copied().collect();
    assert!(!found.is_empty(), "none of {SHELLS:?} is installed");
    found
}
/// Commands that session.sh lists before [`COMMANDS`] in its list of functions to unset.
const OWN: [&str; 3] = [":", "[", "."];

/// The scripts by name.
fn scripts() -> [(&'static str, &'static str); 7] {
    [
        ("inspect", inspect()),
        ("system_info", system_info()),
        ("launch", launch()),
        ("attach", attach()),
        ("stop", stop()),
        ("close", close()),
        ("cleanup", cleanup()),
    ]
}

/// Splits a script that stores its later part in a variable and evaluates this part later. Returns the later part, and
/// the script without this part.
fn later(script: &str) -> Option<(&str, String)> {
    let (before, rest) = script.split_once("='\n")?;
    let (later, behind) = rest.split_once('\'').unwrap();
    Some((later, format!("{before}={behind}")))
}

#[test]
fn bootstrap_passes_through_every_login_shell() {
    let bootstrap = bootstrap();
    assert!(bootstrap.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{bootstrap}");
    assert!(!bootstrap.contains(['\'', '\\', '!', '\n']), "{bootstrap}");
    // The bootstrap is one line, so a comment would hide the rest of the line.
    assert!(!bootstrap.contains('#') || !bootstrap.contains(" #"), "{bootstrap}");
    assert_eq!(bootstrap.trim(), bootstrap);
}

#[test]
fn shells_understand_every_script() {
    let mut texts = scripts().map(|(name, script)| (name, script.to_owned())).to_vec();
    let (later, without_later) = later(launch()).unwrap();
    texts.extend([
        ("later", later.to_owned()),
        ("without later", without_later),
        ("bootstrap", bootstrap().to_owned()),
    ]);
    for (name, text) in texts {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        for shell in shells() {
            let (program, words) = shell.split_first().unwrap();
            let output = Command::new(program).args(words).arg("-n").arg(file.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{shell:?} {name}: {said}");
        }
    }
}

#[test]
fn only_a_launch_has_a_later_part_and_no_script_has_a_gap() {
    for (name, script) in scripts() {
        assert_eq!(later(script).is_some(), name == "launch", "{name}");
        assert_eq!(script.matches('\'').count(), if name == "launch" { 2 } else { 0 }, "{name}: a single quote");
        assert!(
            !script.contains('@') || !script.replace("$@", "").contains('@'),
            "{name}: a place that was not filled"
        );
        assert!(script.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{name}");
    }
    let (later, _) = later(launch()).unwrap();
    assert!(!later.contains(r"\'"));
    // The launch script contains these sources as a text in single quotes. A single quote in a source would end this
    // text.
    for source in [PROCESSES, FOLLOW, ATTACH, TERMINATE, DRAIN, WATCH] {
        assert!(!strip(source).contains('\''));
    }
}

#[test]
fn every_command_of_a_script_is_a_function_of_it_or_is_listed() {
    for (name, script) in scripts() {
        let mut words = Words::of(script);
        if let Some((later, _)) = later(script) {
            let later = Words::of(later);
            words.commands.extend(later.commands);
            words.functions.extend(later.functions);
        }
        for command in words.commands.difference(&words.functions) {
            assert!(COMMANDS.contains(&command.as_str()) || OWN.contains(&command.as_str()), "{name}: {command}");
        }
        for function in &words.functions {
            assert!(!COMMANDS.contains(&function.as_str()), "{name}: {function} is unset by the session");
        }
    }
    let listed: BTreeSet<&str> = COMMANDS.iter().copied().collect();
    assert_eq!(listed.len(), COMMANDS.len());
    // If bash runs as sh, special builtins take precedence over functions. The bootstrap therefore unsets only
    // functions with the names of its other commands.
    for command in Words::of(&bootstrap().replace("$(</dev/stdin)", "x")).commands {
        let is_special = ["set", "unset", "export", "eval", "exit"].contains(&command.as_str());
        assert!(
            is_special || bootstrap().contains("unset -f read cat export echo;") && "read cat echo".contains(&command)
        );
    }
}

/// The launch script defines some of its functions later, by `eval`. Each call of such a function must come after an
/// `eval` in the same function.
#[test]
fn later_functions_are_called_behind_eval() {
    let now = [SESSION, JOURNAL, SEND, include_str!("../output.sh"), include_str!("../launch.sh")].concat();
    let later = Words::of(&strip(&[PROCESSES, FOLLOW, ATTACH, TERMINATE, DRAIN, WATCH].concat())).functions;
    assert!(later.is_disjoint(&Words::of(&strip(&now)).functions), "a function of both");
    let mut called = BTreeSet::new();
    for text in now.split("\n}") {
        let (outside, body) = text.rsplit_once("() {\n").unwrap_or((text, ""));
        let outside =
            outside.rsplit_once('\n').map_or(outside, |(before, _)| if body.is_empty() { outside } else { before });
        for text in [outside, body] {
            let before = text.split_once("eval \"$_later\"").map_or(text, |(before, _)| before);
            let commands = Words::of(&completed(&strip(before))).commands;
            let early: Vec<_> = commands.intersection(&later).collect();
            assert!(early.is_empty(), "{early:?} in {text}");
            called.extend(commands);
        }
    }
    assert!(["note", "supervise", "cat", "chmod", "_tell"].iter().all(|name| called.contains(*name)), "{called:?}");
}

/// Closes the open `case` commands and subshells of a truncated text.
fn completed(text: &str) -> String {
    let count = |is: fn(&str) -> bool| text.lines().filter(|line| is(line)).count();
    let cases = text.matches("case ").count() - text.matches("esac").count();
    let subshells = count(|line| line.ends_with('(')) - count(|line| line.starts_with(')'));
    format!("{text}{}{}", ";;\nesac\n".repeat(cases), ")\n".repeat(subshells))
}

#[test]
fn stripping_removes_lines_of_comment_and_indentation() {
    let source = "# Why.\n#!x\nf() {\n\techo \"a # b\"\n\n\tg && \n\t\th\n}\nx=$!\n  # y\n";
    assert_eq!(strip(source), "f() {\necho \"a # b\"\ng &&\nh\n}\nx=$!\n");
}

/// `strip` trims every line, even in a here-document, so no source line may end with a blank. `strip` removes only
/// whole lines of comment, so no comment may follow code.
#[test]
fn scripts_are_written_so_that_they_can_be_stripped() {
    let sources = [
        BOOTSTRAP,
        SESSION,
        JOURNAL,
        PROCESSES,
        SEND,
        FOLLOW,
        ATTACH,
        TERMINATE,
        DRAIN,
        WATCH,
        include_str!("../output.sh"),
        include_str!("../launch.sh"),
        include_str!("../inspect.sh"),
        include_str!("../system_info.sh"),
        include_str!("../report.sh"),
        include_str!("../stop.sh"),
        include_str!("../close.sh"),
        include_str!("../cleanup.sh"),
    ];
    for source in sources {
        assert!(source.ends_with('\n'), "the next part would go on in its last line");
        for line in source.lines() {
            let code = line.trim();
            assert!(line.len() <= 124, "{line}");
            assert!(code.starts_with('#') || !code.contains(" #") || code.contains(" # shellcheck"), "{line}");
            assert!(code == line.trim_start(), "a blank at the end: {line:?}");
        }
    }
}

#[test]
fn short_names_are_distinct_and_none_of_another_owner() {
    // There are 702 names with one or two letters: 26 + 26 * 26.
    let many: Vec<String> = (0..702).map(|number| format!("_name{number}")).collect();
    let short = shorten(&many.join(" ")).0;
    let distinct: BTreeSet<&str> = short.split(' ').collect();
    assert_eq!(distinct.len(), many.len());
    // No short name is `_` or the name of a variable of the bootstrap.
    assert!(distinct.iter().all(|name| name.len() <= 3 && *name != "_"));
    for name in Words::of_variables(bootstrap()) {
        assert!(!distinct.contains(name.as_str()), "{name}");
    }
    for (name, script) in scripts() {
        let names = Words::of_variables(script).len();
        assert!(names < 702, "{name}: {names}");
    }
}

#[test]
fn shortening_changes_names_and_nothing_else() {
    assert_eq!(
        shorten("_one=$_two; read -r _ _one <x_y; WRIT_X=${_two%_}; _n=$_t; f_one _one() _a _ab").0,
        "_A=$_B; read -r _ _A <x_y; WRIT_X=${_B%_}; _n=$_t; f_one _A() _a _C"
    );
    for text in ["", "_", "__", "a_bc", "9_bc", "é_", "x=boot_id", "/proc/boot_id", "WRIT_EXECUTION", "_A_", "$_t_"] {
        let names = Words::of_variables(text);
        assert!(shorten(text).0 == text || names.iter().any(|name| name.len() > 2), "{text}");
    }
    // Each long name occurs as often as its short name, at the same positions.
    for source in [SESSION, JOURNAL, TERMINATE, DRAIN, WATCH] {
        let (source, short) = (strip(source), shorten(&strip(source)).0);
        let split = |text: &str| -> Vec<String> { text.split(|each| !is_of_name(each)).map(str::to_owned).collect() };
        let (long_words, short_words) = (split(&source), split(&short));
        assert_eq!(long_words.len(), short_words.len());
        let pairs: BTreeSet<(&String, &String)> = long_words.iter().zip(&short_words).collect();
        assert_eq!(pairs.iter().map(|(long, _)| *long).collect::<BTreeSet<_>>().len(), pairs.len());
        assert_eq!(pairs.iter().map(|(_, short)| *short).collect::<BTreeSet<_>>().len(), pairs.len());
        for (long, short) in pairs {
            assert!(long == short || long.starts_with('_') && long.len() > 2, "{long} {short}");
        }
    }
}

/// The login can export variables under any name that does not start with `_`. The scripts therefore set only `PATH`,
/// `IFS` and variables whose names start with `_`.
#[test]
fn scripts_set_no_variable_that_a_login_may_have_exported() {
    let allowed = ["PATH", "IFS"];
    for (name, script) in scripts().into_iter().chain([("bootstrap", bootstrap())]) {
        for variable in Words::of(&script.replace("$(</dev/stdin)", "x")).variables {
            assert!(allowed.contains(&variable.as_str()) || variable.starts_with('_'), "{name}: {variable}");
        }
    }
}

impl Words {
    /// Returns the names that start with `_`, in alphabetical order.
    fn of_variables(text: &str) -> BTreeSet<String> {
        let words = text.split(|each| !is_of_name(each));
        words.filter(|word| word.starts_with('_') && word.len() > 1).map(str::to_owned).collect()
    }
}
