use super::*;

/// Returns the commands that the launchers in `line` start. A command has the prefix `user: ` if a launcher changes the
/// user.
fn behind(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let show = |command: &Command<'_, &str>| match command.user {
        User::Login => command.words.join(" "),
        User::Named(user) => format!("{user}: {}", command.words.join(" ")),
        User::Unknown => format!("?: {}", command.words.join(" ")),
    };
    commands(words, None).iter().skip(1).map(show).collect()
}

#[test]
fn what_stands_behind_a_launcher_is_found_exactly_if_its_options_are_understood() {
    for (line, inner) in [
        ("/usr/bin/timeout 5 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/timeout -k 5 -s KILL 10 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/timeout -vk5 --signal=KILL --foreground -- 10 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/timeout --kill-after 5 10 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/nice systemctl stop x", "systemctl stop x"),
        ("/usr/bin/nice -n 5 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/nice -n5 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/nice -5 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/nohup -- systemctl stop x", "systemctl stop x"),
        ("/usr/bin/setsid -cw systemctl stop x", "systemctl stop x"),
        ("/usr/bin/stdbuf -oL -e 0 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/ionice -c2 -n 7 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/taskset -c 0,1 systemctl stop x", "systemctl stop x"),
        ("/usr/bin/time -f %e -o /tmp/t systemctl stop x", "systemctl stop x"),
        ("/usr/bin/env systemctl stop x", "systemctl stop x"),
        ("/usr/bin/env - A=b C=d systemctl stop x", "systemctl stop x"),
        ("/usr/bin/env -i -u HOME --chdir=/srv A=b systemctl stop x", "systemctl stop x"),
        ("/usr/bin/flock -n -w 5 /run/lock systemctl stop x", "systemctl stop x"),
        ("/usr/bin/timeout 5 -- systemctl stop x", "systemctl stop x"),
        ("/usr/sbin/chroot /srv systemctl stop x", "systemctl stop x"),
        ("/usr/bin/busybox systemctl stop x", "systemctl stop x"),
        ("/usr/bin/find /srv -name a -exec systemctl stop x ;", "systemctl stop x"),
        ("/bin/bash /srv/deploy.sh x", "/srv/deploy.sh x"),
        ("/usr/bin/sudo -n systemctl stop x", "root: systemctl stop x"),
        ("/usr/bin/sudo -nu app A=b systemctl stop x", "app: systemctl stop x"),
        ("/usr/bin/sudo --user=app -- systemctl stop x", "app: systemctl stop x"),
        ("/usr/bin/sudo -u #0 systemctl stop x", "root: systemctl stop x"),
        ("/usr/bin/doas -u app systemctl stop x", "app: systemctl stop x"),
        ("/usr/sbin/runuser -u postgres -- systemctl stop x", "postgres: systemctl stop x"),
        ("/usr/sbin/gosu app:app systemctl stop x", "app: systemctl stop x"),
        ("/usr/sbin/chroot --userspec=app:app /srv systemctl stop x", "app: systemctl stop x"),
        ("/usr/bin/pkexec systemctl stop x", "root: systemctl stop x"),
    ] {
        assert_eq!(behind(line), [inner], "{line}");
    }
    assert!(behind("/bin/echo systemctl stop x").is_empty());
    assert!(behind("/usr/bin/timeout 5").is_empty() && behind("/usr/bin/nice -n").is_empty());
    // A file among the arguments of the inner program is not a command.
    assert_eq!(behind("/usr/bin/timeout 5 sha256sum /usr/sbin/reboot"), ["sha256sum /usr/sbin/reboot"]);
}

#[test]
fn launchers_behind_launchers_are_seen_through() {
    let line = "/usr/bin/nice -n 5 timeout 5 /usr/bin/sudo -n -u app env A=b nohup systemctl stop x";
    let last = behind(line);
    assert_eq!(last.len(), 5, "{last:?}");
    assert_eq!(last[4], "app: systemctl stop x");
    assert_eq!(behind("/usr/bin/sudo -u app sudo -n id").last().unwrap(), "root: id");
    let split = ["/usr/bin/env", "-S", "nice -n5 'systemctl' stop", "x"];
    let found = commands(split.to_vec(), None);
    assert_eq!(found.last().unwrap().words, ["systemctl", "stop", "x"]);
}

#[test]
fn each_later_word_may_begin_the_command_if_options_are_not_understood() {
    for line in [
        "/usr/bin/timeout --later 5 systemctl stop x",
        "/usr/bin/timeout --sig KILL 5 systemctl stop x",
        "/usr/bin/flock /run/lock -n systemctl stop x",
        "/usr/bin/busybox -x systemctl stop x",
        "/usr/bin/setpriv --reuid 7 systemctl stop x",
        "/usr/bin/su -s /bin/sh app systemctl stop x",
        "/usr/bin/strace -f -o /tmp/t systemctl stop x",
        "/usr/bin/bash -e systemctl stop x",
        "/usr/bin/xargs -n 1 systemctl stop x",
        "/lib64/ld-linux-x86-64.so.2 systemctl stop x",
        "/sbin/ip netns exec a systemctl stop x",
        "/usr/bin/python3.11 -u systemctl stop x",
    ] {
        let found = behind(line);
        assert!(found.iter().any(|inner| inner.trim_start_matches("?: ") == "systemctl stop x"), "{line}: {found:?}");
    }
    assert!(behind("/usr/bin/sudo --later id").contains(&"?: id".to_owned()));
    assert!(behind("/usr/bin/su app id").contains(&"?: id".to_owned()));
}

#[test]
fn the_work_is_bounded() {
    for unit in
        ["sudo --later -u a", "env --later", "sudo -u a env --later", "env -S env", "su", "find -exec", "setpriv"]
    {
        let words: Vec<&str> = unit.split(' ').cycle().take(64).collect();
        let found = commands(words, None);
        assert!(found.len() <= 3 * 64, "{unit}: {}", found.len());
    }
    let many: String = (0..60).map(|user| format!("sudo -u u{user} env --later ")).collect();
    let words: Vec<&str> = many.split_whitespace().take(64).collect();
    assert!(commands(words, None).len() <= 3 * 64);
    let nested = "env -S ".repeat(580);
    assert!(commands(vec!["/usr/bin/env", "-S", &nested], None).len() <= MAX_COMMANDS);
}

#[test]
fn a_program_is_the_same_by_another_path_to_the_same_directory() {
    for (word, is_launched, denied, is_same) in [
        ("/usr/bin/systemctl", false, "/usr/bin/systemctl", true),
        ("/bin/systemctl", false, "/usr/bin/systemctl", true),
        ("/usr/sbin/systemctl", false, "/bin/systemctl", true),
        ("/usr/local/bin/systemctl", false, "/usr/bin/systemctl", false),
        ("/usr/local/bin/a", false, "/usr/local/sbin/a", true),
        ("/opt/systemctl", false, "/usr/bin/systemctl", false),
        ("/usr/bin/systemctl", false, "systemctl", true),
        ("systemctl", false, "/usr/bin/systemctl", false),
        ("systemctl", true, "/usr/bin/systemctl", true),
        ("systemctl", true, "/opt/systemctl", true),
        ("./systemctl", true, "/opt/systemctl", true),
        ("/usr/bin/../bin/systemctl", true, "/usr/bin/systemctl", true),
        ("//bin/systemctl", true, "/usr/bin/systemctl", true),
        ("/opt/systemctl", true, "/usr/bin/systemctl", false),
        ("systemctl2", true, "/usr/bin/systemctl", false),
    ] {
        assert_eq!(may_be_program(word, is_launched, denied), is_same, "{word} {denied}");
        let by_spelling = spellings(word, is_launched).iter().any(|spelling| spelling == denied);
        assert!(!by_spelling || is_same, "{word} {denied}");
    }
}

#[test]
fn programs_of_the_tables_that_run_others_are_launchers_too() {
    for line in [
        "/usr/bin/retry -t 5 systemctl stop x",
        "/usr/bin/s6-setsid systemctl stop x",
        "/usr/bin/lxc-execute -n a systemctl stop x",
        "/usr/bin/truss systemctl stop x",
        "/usr/bin/busybox.static systemctl stop x",
        "/usr/bin/gdb-15 --args systemctl stop x",
        "/usr/bin/schedtool -e systemctl stop x",
        "/usr/bin/ksu app -e systemctl stop x",
        "/usr/bin/wine64 systemctl stop x",
    ] {
        let found = behind(line);
        assert!(found.iter().any(|inner| inner.trim_start_matches("?: ") == "systemctl stop x"), "{line}: {found:?}");
    }
    // daemon(8) of FreeBSD can change the user, so the user of the command is unknown.
    assert!(behind("/usr/sbin/daemon -u root systemctl stop x").contains(&"?: systemctl stop x".to_owned()));
    assert!(behind("/usr/bin/docker exec web systemctl stop x").is_empty());
}

#[test]
fn options_with_code_or_an_unknown_option_make_every_later_word_a_command() {
    for line in [
        "/usr/bin/sudo -e systemctl stop x",
        "/usr/bin/sudo --preserve-env=A,B --later systemctl stop x",
        "/usr/bin/flock -c /run/lock systemctl stop x",
        "/usr/bin/sudo -c staff systemctl stop x",
        "/usr/bin/torsocks -u app systemctl stop x",
        "/usr/bin/ionice -2 systemctl stop x",
        "/usr/bin/ionice -p 7 systemctl stop x",
        "/usr/bin/coreutils --coreutils-prog=timeout 5 systemctl stop x",
        "/usr/sbin/runuser app -s /bin/sh systemctl stop x",
    ] {
        let found = behind(line);
        let is_inner = |inner: &String| inner.trim_start_matches("?: ") == "systemctl stop x";
        assert!(found.len() > 1 && found.iter().any(is_inner), "{line}: {found:?}");
    }
    assert_eq!(behind("/usr/bin/sudo --preserve-env=A,B systemctl stop x"), ["root: systemctl stop x"]);
    assert_eq!(behind("/usr/bin/tini -g -- systemctl stop x"), ["systemctl stop x"]);
    assert_eq!(behind("/usr/bin/dumb-init -r 15:2 -- systemctl stop x"), ["systemctl stop x"]);
}
