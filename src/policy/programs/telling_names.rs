//! Names of options and variables that suggest the kind of their values.

/// Returns true if the name of an option or of a variable suggests that its value is a program, code or a source of
/// code.
pub(in super::super) fn is_telling(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "agent",
        "askpass",
        "cmd",
        "cmds",
        "cnf",
        "code",
        "command",
        "commands",
        "conf",
        "config",
        "configfile",
        "editor",
        "eval",
        "evaluate",
        "exec",
        "execute",
        "expression",
        "helper",
        "hook",
        "hooks",
        "interpreter",
        "launcher",
        "lib",
        "library",
        "load",
        "module",
        "modules",
        "pager",
        "plugin",
        "plugins",
        "preload",
        "prog",
        "program",
        "rcfile",
        "require",
        "rsh",
        "script",
        "shell",
        "wrapper",
    ];
    let lower = name.trim_start_matches('-').to_ascii_lowercase();
    // A name that begins with `exec` suggests a command, for example `ExecStart` of systemd.
    lower.starts_with("exec") || lower.split(['-', '_', '.', ':']).any(|part| PARTS.contains(&part))
}
