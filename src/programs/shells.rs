//! Finds commands that give a shell to a person who types their input. Only `writ lint` uses this module.
//!
//! # Caveats
//! A program that is not listed can give a shell, too. A script can start any program.

use super::flags::{Takes, cluster};
use super::names::known_name;
use super::table;

/// Way from the input of a program to other programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ShellAccess {
    /// The program executes its input as commands or as code.
    Prompt,
    /// The program has a command for its input that starts other programs, for example `!sh`.
    Escape,
    /// The program shows long output in a pager, and the pager has such a command.
    Pager,
}

/// Condition under which programs give a shell.
struct Known {
    /// Names of the programs, separated by spaces.
    programs: &'static str,
    access: ShellAccess,
    /// Words of which one is necessary, separated by spaces. Empty if none is necessary.
    only_with: &'static str,
    /// Words before the operands with which the program gives a shell in any case, separated by spaces.
    always_with: &'static str,
    /// Words with which the program gives no shell, separated by spaces. Usually the options for a constant command.
    without: &'static str,
    /// Maximum number of operands with which the program gives a shell. With more operands, it runs a constant script
    /// or command. `None` for any number.
    operands: Option<usize>,
}

/// Returns the condition of programs that always execute their input.
const fn prompt(programs: &'static str) -> Known {
    Known { programs, access: ShellAccess::Prompt, only_with: "", always_with: "", without: "", operands: None }
}

/// Returns the condition of programs whose input can start other programs.
const fn escape(programs: &'static str) -> Known {
    Known { access: ShellAccess::Escape, ..prompt(programs) }
}

/// Returns the condition of programs that execute their input if they have at most this number of operands.
const fn up_to(operands: usize, programs: &'static str) -> Known {
    Known { operands: Some(operands), ..prompt(programs) }
}

/// Conditions. If a program has several, the first one that is fulfilled counts.
const KNOWN: &[Known] = &[
    // Shells and interpreters. With an operand or an option for code, they execute constant code.
    Known {
        without: "-c --command --commands --eval",
        always_with: "-s",
        ..up_to(
            0,
            "sh ash dash bash rbash ksh ksh93 mksh lksh oksh pdksh rksh posh sash yash zsh rzsh osh ysh bosh csh tcsh \
             fish elvish nu xonsh",
        )
    },
    Known {
        without: "-c -m",
        always_with: "-i",
        ..up_to(0, "python pypy ipython jython micropython graalpy py bpython ptpython")
    },
    Known { without: "-e -E", always_with: "-d", ..up_to(0, "perl raku") },
    Known { without: "-e -c --eval", ..up_to(0, "ruby jruby mruby lua luajit luau tclsh wish expect jimsh julia") },
    Known {
        without: "-e -p --eval --print",
        always_with: "-i --interactive",
        ..up_to(0, "node nodejs deno bun ts-node tsx qjs js rhino d8")
    },
    Known { without: "-r -B -R -F -E -f --run", always_with: "-a", ..up_to(0, "php") },
    Known {
        without: "-e -f --eval --batch --load --script",
        ..up_to(0, "R Rterm octave guile racket gsi csi sbcl clisp ecl ghci ocaml utop scala groovy gnuplot m4 dc")
    },
    Known { without: "-Command -c -File -f -EncodedCommand", ..up_to(0, "pwsh powershell") },
    prompt("irb pry byebug rdbg erl iex jshell jdb groovysh clojure clj msfconsole ansible-console"),
    Known { without: "-batch --batch", ..escape("gdb lldb crash") },
    // Programs that start a shell unless they have a command.
    Known { without: "-c --command --session-command", ..prompt("su login newgrp") },
    Known { without: "-c --command --session-command -u --user", ..up_to(1, "runuser") },
    Known { without: "-c", ..up_to(1, "sg") },
    Known { only_with: "-i -s --login --shell", ..up_to(0, "sudo") },
    Known { only_with: "-s", ..up_to(0, "doas") },
    Known { only_with: "-S --shell", ..prompt("systemd-run") },
    Known { only_with: "shell login", ..prompt("machinectl") },
    up_to(0, "run0 unshare nsenter lxc-attach fakeroot fakechroot firejail parallel"),
    up_to(1, "chroot"),
    Known { only_with: "shell console attach", ..prompt("lxc incus docker podman nerdctl") },
    Known { only_with: "attach debug edit", ..prompt("kubectl oc") },
    Known { without: "-N -Q -G -V", ..up_to(1, "ssh slogin autossh mosh rsh dbclient rlogin") },
    Known { without: "-c --command", ..prompt("script scriptlive") },
    Known {
        without: "-ls -list ls list-sessions list-windows list-panes has-session kill-session",
        ..prompt("screen tmux tmate byobu zellij dtach abduco dvtm")
    },
    Known { without: "-f -l -r -d", ..prompt("at batch") },
    Known { only_with: "-e", ..escape("crontab") },
    // Programs with a command for other programs.
    escape("vi vim nvim view rvim rview ex vimdiff nvi elvis vile vigr vipw visudo sudoedit sensible-editor editor"),
    escape("ed nano pico emacs zile mg jed joe ne mcedit kak helix hx micro"),
    escape("less more most pg zless zmore bzless bzmore xzless xzmore zstdless sensible-pager pager man"),
    escape("w3m lynx elinks"),
    escape("mc nnn ranger vifm lf fzf tig mutt neomutt pine alpine mail mailx nail s-nail irssi ftp lftp tnftp telnet"),
    escape("smbclient cu tip minicom kermit ckermit"),
    Known { without: "-b", ..escape("sftp psftp") },
    Known {
        without: "-c --command -f --file -l --list -e --execute -batch",
        ..escape("psql mysql mariadb sqlplus mongo mongosh cqlsh")
    },
    Known { operands: Some(1), ..escape("sqlite sqlite3") },
    Known { only_with: "edit", ..escape("systemctl") },
    Known {
        access: ShellAccess::Pager,
        without: "--no-pager -P --paging",
        ..prompt(
            "systemctl journalctl loginctl hostnamectl timedatectl localectl machinectl networkctl resolvectl \
             coredumpctl busctl bootctl systemd-analyze git bat batcat perldoc pydoc ri gh aws",
        )
    },
    Known { access: ShellAccess::Pager, only_with: "-l --list -H --human", ..prompt("dpkg dmesg") },
];

/// Returns the way to a shell for a person who types the input of this command. Returns `None` if the program is not
/// known, or gives no shell with these arguments.
pub(crate) fn shell_access(words: &[&str]) -> Option<ShellAccess> {
    let (program, arguments) = words.split_first()?;
    let name = known_name(program, &|name| KNOWN.iter().any(|known| known.has_program(name)))?;
    let mut fitting = KNOWN.iter().filter(|known| known.has_program(name));
    fitting.find(|known| known.gives_shell(program, arguments)).map(|known| known.access)
}

impl Known {
    fn has_program(&self, name: &str) -> bool {
        self.programs.split(' ').any(|listed| listed == name)
    }

    fn gives_shell(&self, program: &str, arguments: &[&str]) -> bool {
        let has_one_dash = table::find(program).is_some_and(|(_, description)| description.has_one_dash);
        let has = |words: &[&str], listed: &str| {
            listed.split_whitespace().any(|listed| words.iter().any(|word| is_listed(word, listed, has_one_dash)))
        };
        let operands = operands(program, arguments);
        // Words behind the first operand can be options of a script.
        let own = operands.first().and_then(|first| arguments.get(..*first)).unwrap_or(arguments);
        (self.only_with.is_empty() || has(arguments, self.only_with))
            && (has(own, self.always_with)
                || (!has(arguments, self.without) && self.operands.is_none_or(|most| operands.len() <= most)))
    }
}

/// Returns true if a word is the listed word or option, also with a value (`--eval=x`) or among other letters (`-lc`).
fn is_listed(word: &str, listed: &str, has_one_dash: bool) -> bool {
    let is_letter = listed.len() == 2 && listed.starts_with('-') && !has_one_dash;
    let is_cluster = is_letter && word.len() > 2 && word.starts_with('-') && !word.starts_with("--");
    word == listed
        || (listed.starts_with("--") && word.strip_prefix(listed).is_some_and(|rest| rest.starts_with('=')))
        || (is_cluster && listed.chars().nth(1).is_some_and(|letter| word.contains(letter)))
}

/// Returns the indexes of the arguments that are neither options nor the values of listed options.
fn operands(program: &str, arguments: &[&str]) -> Vec<usize> {
    let description = table::find(program).map(|(_, description)| description);
    let takes = |name: &str| description.map_or(Takes::Unknown, |description| description.takes(name));
    let (mut operands, mut has_ended) = (Vec::new(), false);
    let mut words = arguments.iter().enumerate();
    while let Some((index, word)) = words.next() {
        let is_option = !has_ended && word.starts_with(['-', '+']);
        let takes_next = match *word {
            "--" => Takes::Nothing,
            long if long.starts_with("--") => takes(long),
            short if description.is_some_and(|description| description.has_one_dash) => takes(short),
            short => cluster(short, |letter| takes(&format!("-{letter}"))),
        };
        has_ended |= *word == "--";
        if !is_option {
            operands.push(index);
        } else if takes_next == Takes::Value {
            words.next();
        }
    }
    operands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(command: &str) -> Option<ShellAccess> {
        shell_access(&command.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn program_that_reads_commands_gives_a_shell() {
        for command in [
            "/bin/sh",
            "/bin/bash -l",
            "/bin/bash --rcfile /etc/x",
            "/bin/bash -s one two",
            "/bin/bash +h",
            "/bin/bash -o vi -",
            "/usr/bin/python3.13",
            "/usr/bin/python3 -i /opt/x.py",
            "/usr/bin/perl",
            "/usr/bin/node",
            "/usr/bin/sudo -u app -i",
            "/usr/bin/sudo -s",
            "/usr/bin/su",
            "/usr/bin/su - app",
            "/usr/sbin/runuser -l app",
            "/usr/sbin/chroot /srv/root",
            "/usr/bin/nsenter -t 1 -m -p",
            "/usr/bin/ssh -p 22 db-1",
            "/usr/bin/tmux",
            "/usr/bin/tmux attach",
            "/usr/bin/screen -r",
            "/usr/bin/script /tmp/x",
            "/usr/bin/machinectl shell web",
        ] {
            assert_eq!(access(command), Some(ShellAccess::Prompt), "{command}");
        }
    }

    #[test]
    fn program_that_starts_others_gives_a_shell() {
        for command in [
            "/usr/bin/vim.tiny /etc/motd",
            "/usr/bin/less /var/log/syslog",
            "/usr/bin/man ls",
            "/usr/bin/gdb -p 4711",
            "/usr/bin/ftp host",
            "/usr/bin/psql -d shop",
            "/usr/bin/mysql shop",
            "/usr/bin/sqlite3 /srv/x.db",
            "/usr/bin/systemctl edit web",
        ] {
            assert_eq!(access(command), Some(ShellAccess::Escape), "{command}");
        }
        for command in ["/usr/bin/journalctl -u web", "/usr/bin/systemctl status web", "/usr/bin/git log"] {
            assert_eq!(access(command), Some(ShellAccess::Pager), "{command}");
        }
    }

    #[test]
    fn constant_code_and_other_programs_give_no_shell() {
        for command in [
            "/bin/sh /opt/menu",
            "/bin/sh -c /opt/menu",
            "/bin/bash -lc /opt/menu",
            "/bin/bash -o pipefail /opt/menu",
            "/usr/bin/python3 /opt/x.py -i",
            "/usr/bin/python3 -m http.server",
            "/usr/bin/perl -ne print",
            "/usr/bin/node --eval=1",
            "/usr/bin/sudo -l",
            "/usr/bin/sudo -u app /opt/menu",
            "/usr/bin/su app -c /opt/menu",
            "/usr/sbin/runuser -u app /opt/menu",
            "/usr/sbin/chroot /srv/root /opt/menu",
            "/usr/bin/ssh -p 22 db-1 /opt/menu",
            "/usr/bin/tmux ls",
            "/usr/bin/psql -c x",
            "/usr/bin/sqlite3 /srv/x.db .tables",
            "/usr/bin/journalctl --no-pager -u web",
            "/usr/bin/top",
            "/opt/menu",
            "/opt/bash-menu",
            "",
        ] {
            assert_eq!(access(command), None, "{command}");
        }
        assert_eq!(shell_access(&[]), None);
    }
}
