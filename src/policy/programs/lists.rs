//! The names, and what is known of each.

/// Programs that run another one that is named among their words, or that read a program from them, with option
/// syntaxes of their own: no parameter at all.
pub(super) const RUN_OTHERS: &[&str] = &[
    "ansible",
    "ansible-console",
    "ansible-playbook",
    "at",
    "awk",
    "batch",
    "bwrap",
    "capsh",
    "chpst",
    "chroot",
    "crontab",
    "daemonize",
    "dbus-run-session",
    "doas",
    "dotnet",
    "dpkg-reconfigure",
    "ed",
    "emacs",
    "entr",
    "env",
    "ex",
    "expect",
    "fakeroot",
    "firejail",
    "flock",
    "gawk",
    "gdb",
    "gosu",
    "less",
    "logsave",
    "ltrace",
    "lxc-attach",
    "m4",
    "machinectl",
    "make",
    "man",
    "mawk",
    "more",
    "nawk",
    "npx",
    "nsenter",
    "numactl",
    "nvim",
    "parallel",
    "perf",
    "pkexec",
    "pnpx",
    "prlimit",
    "rsh",
    "run-parts",
    "run0",
    "runcon",
    "runuser",
    "screen",
    "script",
    "sed",
    "setarch",
    "setpriv",
    "sg",
    "socat",
    "softlimit",
    "sqlite3",
    "ssh",
    "ssh-agent",
    "sshpass",
    "start-stop-daemon",
    "strace",
    "su",
    "su-exec",
    "sudo",
    "sudo-rs",
    "sudoedit",
    "systemd-cat",
    "systemd-inhibit",
    "systemd-nspawn",
    "systemd-run",
    "tclsh",
    "tmux",
    "tsocks",
    "unbuffer",
    "unshare",
    "valgrind",
    "vi",
    "view",
    "vim",
    "watch",
    "wish",
    "xargs",
    "xterm",
    "xvfb-run",
];
/// The dynamic loader, which runs the program that it is given.
pub(super) const LOADERS: &[&str] = &["ld-linux", "ld-musl", "ld.so", "ld64"];
/// Programs that change something about how the program behind them runs, and nothing else. Where that program is a
/// constant absolute path, it is looked at as if it stood alone.
pub(super) const LAUNCHERS: &[&str] =
    &["choom", "chrt", "cpulimit", "ionice", "nice", "nohup", "setsid", "stdbuf", "taskset", "time", "timeout"];
/// Programs that are many programs; the second word says which.
pub(super) const MULTICALL: &[&str] = &["busybox", "toybox"];

/// A program that runs what a file or a word says.
pub(super) struct Interpreter {
    /// Its name, without version and build (`perl5.36-x86_64-linux-gnu`).
    name: &'static str,
    /// Letters that may stand in an option before the script: each changes nothing about what is read as program.
    flags: &'static str,
    /// Options whose next word, if it is constant, is the program: behind it there may be parameters.
    pub takes_constant: &'static [&'static str],
}

impl Interpreter {
    /// Whether a program, by its name without folder, is this one.
    pub fn is(&self, program: &str) -> bool {
        let Some(version) = program.strip_prefix(self.name) else { return false };
        let rest = version.trim_start_matches(|character: char| character.is_ascii_digit() || character == '.');
        let is_build = rest.starts_with('-') && rest.len() < version.len();
        rest.is_empty() || is_build || matches!(rest, "-static" | "-minimal")
    }

    /// Whether an option changes nothing about what is read as program.
    pub fn is_harmless(&self, word: &str) -> bool {
        word.strip_prefix('-')
            .is_some_and(|letters| !letters.is_empty() && letters.chars().all(|letter| self.flags.contains(letter)))
    }
}

const fn shell(name: &'static str) -> Interpreter {
    Interpreter { name, flags: "efhklmnpuvxBCEHPT", takes_constant: &[] }
}

const fn plain(name: &'static str) -> Interpreter {
    Interpreter { name, flags: "", takes_constant: &[] }
}

const fn python(name: &'static str) -> Interpreter {
    Interpreter { name, flags: "bBdEIOPqsSuv", takes_constant: &["-m"] }
}

/// Interpreters: parameters only behind the constant absolute path of a script, where they are the script's words.
pub(super) const INTERPRETERS: &[Interpreter] = &[
    shell("ash"),
    shell("bash"),
    shell("dash"),
    shell("ksh"),
    shell("mksh"),
    shell("posh"),
    shell("sash"),
    shell("sh"),
    shell("yash"),
    shell("zsh"),
    plain("csh"),
    plain("fish"),
    plain("tcsh"),
    python("python"),
    python("pypy"),
    python("ipython"),
    Interpreter { name: "perl", flags: "tTwW", takes_constant: &[] },
    Interpreter { name: "ruby", flags: "wW", takes_constant: &[] },
    Interpreter { name: "java", flags: "", takes_constant: &["-jar"] },
    plain("bun"),
    plain("deno"),
    plain("elixir"),
    plain("erl"),
    plain("escript"),
    plain("groovy"),
    plain("guile"),
    plain("irb"),
    plain("jrunscript"),
    plain("jshell"),
    plain("julia"),
    plain("lua"),
    plain("luajit"),
    plain("node"),
    plain("nodejs"),
    plain("ocaml"),
    plain("osascript"),
    plain("php"),
    plain("powershell"),
    plain("pwsh"),
    plain("raku"),
    plain("Rscript"),
    plain("runghc"),
    plain("scala"),
    plain("swift"),
    plain("ts-node"),
];

/// Programs with subcommands of which some run others: the subcommand must be constant, and none of these where there
/// are parameters.
pub(super) struct WithSubcommands {
    pub programs: &'static [&'static str],
    /// Subcommands that run others, wherever they stand.
    pub dangerous: &'static [&'static str],
    /// Options before the subcommand that take a value and choose where, not what.
    pub options_with_value: &'static [&'static str],
    /// Options, wherever they stand, whose value is a file that says what to run: no parameter in it.
    pub files: &'static [&'static str],
    /// The same of options that mean something else behind the subcommand.
    pub files_before: &'static [&'static str],
    /// Words before the subcommand that only group.
    pub passed_over: &'static [&'static str],
}

/// See [`WithSubcommands`].
pub(super) const WITH_SUBCOMMANDS: &[WithSubcommands] = &[
    WithSubcommands {
        programs: &["docker", "podman", "nerdctl", "crictl", "ctr", "lxc", "incus", "docker-compose"],
        dangerous: &["attach", "build", "buildx", "cp", "create", "exec", "run", "task", "tasks"],
        options_with_value: &["-H", "--host", "--context", "--namespace", "-f", "--file", "-p", "--project-name"],
        files: &["--config", "--env-file", "--project-directory", "--file"],
        files_before: &["-f"],
        passed_over: &["compose", "container"],
    },
    WithSubcommands {
        programs: &["kubectl", "oc"],
        dangerous: &["alpha", "attach", "cp", "debug", "edit", "exec", "proxy", "rsh", "run"],
        options_with_value: &["-n", "--namespace", "--context", "--cluster", "--kubeconfig"],
        // A user in it is known by the output of a program.
        files: &["--kubeconfig", "--kuberc"],
        files_before: &[],
        passed_over: &[],
    },
    WithSubcommands {
        programs: &["git"],
        dangerous: &["bisect", "config", "difftool", "filter-branch", "mergetool", "rebase", "submodule"],
        options_with_value: &["-C", "--git-dir", "--work-tree"],
        files: &["--exec-path", "--config-env"],
        files_before: &["-c"],
        passed_over: &["--no-pager"],
    },
    WithSubcommands {
        programs: &["ip"],
        dangerous: &["exec", "netns", "vrf"],
        options_with_value: &[],
        files: &["-batch"],
        files_before: &["-b"],
        passed_over: &["-4", "-6", "-br", "-brief", "-json", "-j", "-o", "-s"],
    },
];

/// Options whose value is a program, or code: no parameter in it.
pub(super) const PROGRAM_OPTIONS: &[(&str, &[&str])] = &[
    ("apt", &["-o", "--option", "-c", "--config-file"]),
    ("apt-get", &["-o", "--option", "-c", "--config-file"]),
    ("curl", &["-K", "--config"]),
    ("helm", &["--kubeconfig", "--post-renderer", "--registry-config"]),
    ("find", &["-exec", "-execdir", "-ok", "-okdir"]),
    ("mariadb", &["-e", "--execute", "--defaults-file", "--defaults-extra-file", "--plugin-dir"]),
    ("mysql", &["-e", "--execute", "--defaults-file", "--defaults-extra-file", "--plugin-dir"]),
    ("nc", &["-e", "-c"]),
    ("ncat", &["-e", "--exec", "-c", "--sh-exec", "--lua-exec"]),
    ("psql", &["-c", "--command", "-f", "--file"]),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("scp", &["-S", "-o", "-F"]),
    ("sftp", &["-S", "-o", "-F", "-b"]),
    ("sort", &["--compress-program"]),
    ("split", &["--filter"]),
    (
        "tar",
        &[
            "-I",
            "--use-compress-program",
            "--to-command",
            "--checkpoint-action",
            "-F",
            "--info-script",
            "--rsh-command",
            "--rmt-command",
        ],
    ),
    ("tcpdump", &["-z"]),
    ("wget", &["-e", "--execute", "--use-askpass", "--config"]),
    ("zip", &["-TT", "--unzip-command"]),
];
