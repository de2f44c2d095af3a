//! The launchers that are known, and how their options are read.

/// A program that starts the command that stands behind its own options and operands.
pub(super) struct Launcher {
    pub names: &'static [&'static str],
    /// Letters of options without a value.
    pub flags: &'static str,
    /// Letters of options with a value, in the same word or the next one.
    pub values: &'static str,
    pub long_flags: &'static [&'static str],
    pub long_values: &'static [&'static str],
    /// How many words stand between the options and the command.
    pub operands: usize,
    /// Whether `NAME=value` may stand before the command, and `-` alone is an option.
    pub has_assignments: bool,
    pub user: UserFrom,
}

/// Where a launcher has the user from that executes the command.
pub(super) enum UserFrom {
    /// It is the same one.
    Caller,
    /// By an option (its letter and its long name), else this one; None: else the same one.
    Option { letter: &'static str, name: &'static str, default: Option<&'static str> },
    /// By an option; without it the words mean something else.
    OptionOnly { letter: &'static str, name: &'static str },
    /// By the first operand.
    Operand,
}

const fn plain(names: &'static [&'static str], flags: &'static str, values: &'static str) -> Launcher {
    Launcher {
        names,
        flags,
        values,
        long_flags: &["help", "version"],
        long_values: &[],
        operands: 0,
        has_assignments: false,
        user: UserFrom::Caller,
    }
}

pub(super) const LAUNCHERS: &[Launcher] = &[
    Launcher {
        long_flags: &["foreground", "preserve-status", "verbose"],
        long_values: &["kill-after", "signal"],
        operands: 1,
        ..plain(&["timeout", "gtimeout"], "fpv", "ks")
    },
    Launcher { long_values: &["adjustment"], ..plain(&["nice", "gnice"], "0123456789", "n") },
    plain(&["nohup", "gnohup"], "", ""),
    plain(&["busybox", "busybox.static", "busybox-extras", "toybox", "coreutils"], "", ""),
    Launcher { long_flags: &["ctty", "fork", "wait"], ..plain(&["setsid"], "cfw", "") },
    Launcher { long_values: &["input", "output", "error"], ..plain(&["stdbuf", "gstdbuf"], "", "ioe") },
    Launcher {
        long_flags: &["ignore"],
        long_values: &["class", "classdata"],
        ..plain(&["ionice"], "t0123456789", "cn")
    },
    Launcher { long_values: &["adjust"], ..plain(&["choom"], "", "n") },
    Launcher { long_flags: &["all-tasks", "cpu-list"], operands: 1, ..plain(&["taskset"], "ac", "") },
    Launcher {
        long_flags: &["append", "portability", "verbose", "quiet"],
        long_values: &["format", "output"],
        ..plain(&["time", "gtime"], "apvq", "fo")
    },
    Launcher {
        long_flags: &[
            "ignore-environment",
            "debug",
            "default-signal",
            "ignore-signal",
            "block-signal",
            "list-signal-handling",
        ],
        long_values: &["unset", "chdir", "split-string", "argv0"],
        has_assignments: true,
        ..plain(&["env", "genv"], "iv", "uCSa")
    },
    Launcher {
        long_flags: &[
            "askpass",
            "background",
            "bell",
            "preserve-env",
            "set-home",
            "login",
            "reset-timestamp",
            "no-update",
            "non-interactive",
            "preserve-groups",
            "stdin",
            "shell",
        ],
        long_values: &[
            "close-from",
            "chdir",
            "group",
            "host",
            "prompt",
            "chroot",
            "role",
            "type",
            "command-timeout",
            "other-user",
        ],
        has_assignments: true,
        user: UserFrom::Option { letter: "u", name: "user", default: Some("root") },
        ..plain(&["sudo", "sudo-rs"], "ABbEHiknNPSs", "CDghpRrTt")
    },
    Launcher {
        user: UserFrom::Option { letter: "u", name: "user", default: Some("root") },
        ..plain(&["doas"], "Lns", "aC")
    },
    Launcher {
        long_flags: &["disable-internal-agent", "keep-cwd"],
        user: UserFrom::Option { letter: "u", name: "user", default: Some("root") },
        ..plain(&["pkexec"], "", "")
    },
    Launcher {
        long_flags: &["preserve-environment", "login", "fast", "pty", "no-pty"],
        long_values: &["group", "supp-group", "whitelist-environment"],
        user: UserFrom::OptionOnly { letter: "u", name: "user" },
        ..plain(&["runuser"], "lmpfPT", "gGw")
    },
    Launcher {
        operands: 1,
        user: UserFrom::Operand,
        ..plain(&["gosu", "su-exec", "setuidgid", "s6-setuidgid"], "", "")
    },
    Launcher {
        long_flags: &["shared", "exclusive", "unlock", "nonblock", "nb", "close", "no-fork", "verbose", "fcntl"],
        long_values: &["timeout", "wait", "conflict-exit-code"],
        operands: 1,
        ..plain(&["flock"], "sxeunoFv", "wE")
    },
    Launcher {
        long_flags: &["skip-chdir"],
        long_values: &["groups"],
        operands: 1,
        user: UserFrom::Option { letter: "u", name: "userspec", default: None },
        ..plain(&["chroot"], "", "")
    },
    plain(&["chronic"], "ev", ""),
    plain(&["eatmydata", "torsocks", "torify", "tsocks"], "", ""),
    plain(&["proxychains", "proxychains4"], "q", "f"),
    plain(&["dumb-init", "tini"], "cgsvw", "epr"),
];

/// Launchers whose options are too many, or too different from system to system: each later word may begin the command.
pub(super) const ANY_LATER_WORD: &[&str] = &[
    "aa-exec",
    "at",
    "batch",
    "bwrap",
    "catatonit",
    "catchsegv",
    "cgexec",
    "chrt",
    "command",
    "cpulimit",
    "daemon",
    "dbus-launch",
    "dbus-run-session",
    "entr",
    "envdir",
    "exec",
    "fakechroot",
    "fakeroot",
    "fakeroot-sysv",
    "fakeroot-tcp",
    "faketime",
    "fd",
    "gdb",
    "gdbserver",
    "hyperfine",
    "i386",
    "ifne",
    "lckdo",
    "linux32",
    "linux64",
    "logsave",
    "ltrace",
    "mispipe",
    "nocache",
    "numactl",
    "parallel",
    "pee",
    "perf",
    "pgrphack",
    "prlimit",
    "proot",
    "qemu-x86_64",
    "rlwrap",
    "rr",
    "run-one",
    "run-parts",
    "runcon",
    "s6-softlimit",
    "schedtool",
    "screen",
    "script",
    "scriptlive",
    "sem",
    "setarch",
    "setlock",
    "sg",
    "softlimit",
    "ssh-agent",
    "sshpass",
    "strace",
    "systemd-cat",
    "systemd-inhibit",
    "systemd-socket-activate",
    "timelimit",
    "tmux",
    "trickle",
    "tsp",
    "uclampset",
    "uname26",
    "unbuffer",
    "valgrind",
    "vglrun",
    "watch",
    "watchexec",
    "with-contenv",
    "with-lock-ex",
    "x86_64",
    "xargs",
    "xterm",
    "xvfb-run",
];

/// The same, and what the command runs as is not read either.
pub(super) const ANY_LATER_WORD_AS_ANY_USER: &[&str] = &[
    "arch-chroot",
    "capsh",
    "chpst",
    "chrootuid",
    "daemonize",
    "envuidgid",
    "firejail",
    "lxc-attach",
    "machinectl",
    "newgrp",
    "nsenter",
    "run0",
    "s6-applyuidgid",
    "s6-envuidgid",
    "schroot",
    "setpriv",
    "setusercontext",
    "start-stop-daemon",
    "su",
    "systemd-nspawn",
    "systemd-run",
    "unshare",
];

/// The dynamic loader, which runs the program that it is given.
pub(super) const LOADERS: &[&str] = &["ld-linux", "ld-musl", "ld.so", "ld64"];

/// Programs that run the script whose path is their first operand.
pub(super) const INTERPRETERS: &[&str] = &[
    "ash", "bash", "bun", "csh", "dash", "deno", "fish", "guile", "java", "ksh", "lua", "luajit", "mksh", "node",
    "nodejs", "perl", "php", "posh", "pwsh", "pypy", "python", "rbash", "Rscript", "ruby", "sash", "sh", "tcsh",
    "tclsh", "yash", "zsh",
];
