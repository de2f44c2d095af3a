//! Rules with patterns in the words of usual programs. If a value of a pattern chooses the program or the code to run,
//! the rule is invalid. The other rules stay in force.

use super::*;

/// Returns a rule with this `run`. Its placeholders can be `{word}`, `{name}` and `{path}` (patterns), `{n}` (an
/// integer) and `{one}` (an enum).
fn rule(run: &str) -> String {
    let patterns = [("word", "[a-z][a-z0-9]*"), ("name", "[a-z][a-z0-9._-]*"), ("path", "(/[a-z][a-z0-9.-]*)+")];
    let used: Vec<String> = patterns
        .iter()
        .filter(|(name, _)| run.contains(&format!("{{{name}}}")))
        .map(|(name, pattern)| format!("{name}: {{pattern: '{pattern}'}}"))
        .chain(run.contains("{n}").then(|| "n: {integer: {minimum: 1, maximum: 9}}".to_owned()))
        .chain(run.contains("{one}").then(|| "one: {enum: [/bin/ls, sh, exec]}".to_owned()))
        .collect();
    let words: Vec<String> = run.split(' ').map(|word| format!("'{word}'")).collect();
    format!("- {{name: r, run: [{}], parameters: {{{}}}}}", words.join(", "), used.join(", "))
}

/// Returns the errors and warnings about roles of words.
fn findings(run: &str) -> (Vec<String>, Vec<String>) {
    let whitelist = whitelist("web", &rule(run));
    let compiled = compile(&whitelist);
    let errors: Vec<String> = compiled.invalid_rules.iter().map(|broken| broken.problem.to_string()).collect();
    let rules = compiled.allow_rules.iter();
    let warnings = rules.flat_map(|rule| super::super::programs::warnings(&rule.run, &rule.parameters)).collect();
    (errors, warnings)
}

const USUAL: &[&str] = &[
    "/usr/bin/timeout {n} /usr/bin/nice -n {n} /usr/local/bin/report {name}",
    "/usr/bin/sudo -n -u postgres /usr/bin/pg_dump -n {word}",
    "/usr/sbin/runuser -u app -- /opt/app/bin/report --day={name}",
    "/usr/bin/flock -n /run/lock/x /usr/local/bin/report {name}",
    "/usr/bin/env LANG=C LC_ALL=C /usr/local/bin/report {name}",
    "/usr/bin/strace -c -p {n}",
    "/usr/bin/make -C /srv/app -j {n} all",
    "/usr/bin/docker exec web {one} {n}",
    "/bin/bash -euo pipefail /srv/a.sh {name}",
    "/bin/bash --norc -x /srv/a.sh {name}",
    "/usr/bin/java -Xmx512m -XX:+UseG1GC -cp /srv/a.jar com.example.Main {name}",
    "/usr/bin/java -Xms{n}m -Dreport.day={name} -jar /srv/a.jar {name}",
    "/usr/bin/python3.13t -I -u /srv/a.py --day={name}",
    "/usr/bin/python3 -m myapp.report {name}",
    "/usr/bin/perl -w /opt/a.pl {name}",
    "/usr/bin/node --max-old-space-size=512 /srv/a.js {name}",
    "/usr/bin/php /srv/app/artisan queue:retry {name}",
    "/srv/app/manage.py migrate {name}",
    "/usr/bin/git -C /srv/app checkout {name}",
    "/usr/bin/git -C /srv/{word} pull --ff-only origin {name}",
    "/usr/bin/git -C /srv/app log -n {n} --format=%h {name}",
    "/usr/bin/git clone https://git.internal/{word}.git /srv/x",
    "/usr/bin/git config --get {name}",
    "/usr/bin/docker network create {name}",
    "/usr/bin/docker logs --tail {n} {name}",
    "/usr/bin/docker container restart {name}",
    "/usr/bin/docker pull registry.internal/app:{name}",
    "/usr/bin/docker run --rm -e DAY={name} registry.internal/app:1 report {name}",
    "/usr/bin/docker exec web /opt/app/drain {name}",
    "/usr/bin/docker compose -f /srv/c.yaml up -d {name}",
    "/usr/bin/kubectl -n web rollout restart deployment/{name}",
    "/usr/bin/kubectl scale --replicas={n} deployment/{name}",
    "/usr/bin/kubectl logs {name} -c {name}",
    "/usr/bin/kubectl set image deployment/web web=registry.internal/app:{name}",
    "/usr/bin/systemctl restart -- {name}",
    "/usr/bin/systemctl show -p MainPID {name}",
    "/usr/bin/journalctl --no-pager -u {name} -n {n}",
    "/usr/bin/tail -n {n} /var/log/app/{word}.log",
    "/bin/grep -c -- {name} /var/log/app.log",
    "/usr/bin/find /srv/data -name {name} -mtime +{n} -delete",
    "/usr/bin/find /srv/{word} -type f -exec gzip -9 {{}} +",
    "/usr/bin/du -sh /srv/{word}",
    "/usr/bin/df -h {path}",
    "/usr/bin/stat {path}",
    "/usr/bin/psql -d app -v day={name} -f /srv/report.sql",
    "/usr/bin/pg_dump -d {word} -f /srv/backup/{word}.sql",
    "/usr/bin/redis-cli -n {n} del {name}",
    "/usr/bin/aws s3 cp /srv/x s3://bucket/{name}",
    "/usr/bin/terraform -chdir=/srv/tf workspace select {name}",
    "/usr/bin/ansible-playbook /srv/site.yml --limit {word}",
    "/usr/local/bin/helm upgrade {word} /srv/chart --set image.tag={name}",
    "/usr/local/bin/helm rollback {word} {n}",
    "/usr/bin/rabbitmqctl delete_queue {name}",
    "/usr/bin/supervisorctl restart {name}",
    "/usr/bin/tar -xzf /srv/in/{word}.tgz -C /srv/app",
    "/usr/bin/rsync -a /srv/{word}/ backup.internal:/srv/{word}/",
    "/usr/bin/scp /srv/a.tar backup.internal:{name}",
    "/usr/bin/openssl x509 -noout -in /etc/ssl/{word}.pem",
    "/usr/sbin/lvextend -L +{n}G /dev/vg0/{word}",
    "/usr/sbin/ufw deny from {name}",
    "/usr/bin/fail2ban-client set sshd unbanip {name}",
    "/usr/sbin/ip route get {name}",
    "/bin/ping -c {n} {name}",
    "/usr/bin/dpkg -s {name}",
    "/usr/bin/rpm -q {name}",
    "/usr/bin/apt-mark hold {name}",
    "/usr/bin/vault kv get secret/app/{name}",
    "/usr/bin/certbot renew --cert-name {name}",
    "/usr/bin/timedatectl set-timezone {path}",
    "/bin/busybox ls {path}",
    "/opt/report {name} --day {name}",
    "/usr/bin/mysqldump --single-transaction app {word}",
];

const WORTH_A_WARNING: &[&str] = &[
    "/bin/bash -x /srv/a.sh {path}",
    "/usr/bin/cat {path}",
    "/usr/bin/tail -n 5 -- {path}",
    "/usr/bin/rm -f {path}",
    "/usr/bin/tar -xf {path}",
    "/usr/bin/curl https://{name}/health",
    "/usr/bin/docker exec {name} /bin/ls",
    "/usr/bin/passwd -l {name}",
    "/usr/bin/apt-get install -y {name}",
    "/usr/bin/systemctl enable {name}",
    "/usr/sbin/nginx -t -c /etc/nginx/{name}",
    "/usr/local/bin/deploy {path}",
    "/usr/local/bin/deploy --exec {name}",
    "/usr/local/bin/deploy --plugin-dir={word}",
    "/usr/bin/some-tool -o {path}",
    "/bin/busybox cat {path}",
    "/usr/bin/dd if={path} of=/dev/null",
    "/usr/bin/git clone {path} /srv/x",
    "/usr/bin/systemd-run -p ExecStartPre={word} /bin/true",
];

/// Rules in which the value chooses the program or the code to run, in spite of an unusual spelling of the option or
/// the program.
const DECIDING: &[&str] = &[
    "/usr/bin/rsync -ave {word} a b",
    "/usr/bin/psql -tAc {word}",
    "/usr/bin/psql17 -qAtc {word}",
    "/usr/bin/git --git-dir {path} log",
    "/usr/bin/git -C {path} status",
    "/usr/bin/kubectl --kubeconfig {path} get pods",
    "/usr/bin/kubectl --kubeconf={path} get pods",
    "/usr/bin/tar --use-comp={word} -cf /x /y",
    "/usr/bin/tar xIf {word} /srv/x.tar",
    "/usr/bin/tar cfI /srv/x.tar {word} /y",
    "/usr/bin/gtar -I{word} -cf /x /y",
    "/bin/rbash -c {word}",
    "/bin/bash -euo pipefail -c {word}",
    "/bin/bash -euo pipefail {path}",
    "/usr/bin/vim.basic -c {word}",
    "/usr/bin/vim.tiny +{word}",
    "/bin/nc.traditional -l -p 1 -e {word}",
    "/usr/bin/x86_64 {path}",
    "/usr/bin/setarch i686 -R {path}",
    "/usr/bin/python3.13t -Ic {word}",
    "/usr/bin/python3 -m timeit -s {word} pass",
    "/usr/bin/python3 -m {name}",
    "/usr/bin/python3 -m pdb {path}",
    "/usr/bin/chronic {path}",
    "/usr/bin/proot -r /srv/root {path}",
    "/usr/bin/faketime yesterday {path}",
    "/usr/bin/systemd-socket-activate -l 80 {path}",
    "/usr/bin/podman unshare {path}",
    "/usr/bin/runc exec app {path}",
    "/usr/bin/salt-call cmd.run {word}",
    "/usr/bin/pdsh -w web1 {word}",
    "/usr/bin/clush -w web1 {word}",
    "/usr/bin/autossh -M 0 host {word}",
    "/usr/bin/kubectl apply -f {path}",
    "/usr/bin/kubectl -n web apply --filename={path}",
    "/usr/bin/systemctl link {path}",
    "/usr/bin/systemctl enable {path}",
    "/usr/sbin/nginx -g {word}",
    "/usr/sbin/nginx -c {path}",
    "/usr/sbin/logrotate {path}",
    "/usr/bin/rpm -i {path}",
    "/usr/bin/rpm -Uvh {path}",
    "/usr/bin/dpkg -i {path}",
    "/usr/bin/apt-get install -y {path}",
    "/usr/bin/pip install {path}",
    "/usr/bin/R -e {word}",
    "/usr/bin/octave --eval {word}",
    "/usr/bin/gnuplot -e {word}",
    "/usr/bin/lldb -o {word}",
    "/usr/bin/bpftrace -e {word}",
    "/usr/bin/openssl dgst -engine {word} /srv/x",
    "/usr/bin/find /srv -exec {path} ;",
    "/usr/bin/find /srv -name x -execdir /usr/bin/env {word} ;",
    "/usr/bin/timeout 5 /usr/bin/sudo -n /usr/bin/nice {path}",
    "/usr/bin/timeout 5 {one} {word}",
    "/bin/busybox timeout 5 {path}",
    "/usr/bin/coreutils --coreutils-prog=timeout 5 {path}",
    "/usr/bin/env LD_PRELOAD={path} /bin/ls",
    "/usr/bin/sudo -n PYTHONPATH={path} /bin/ls",
    "/usr/bin/systemctl {word} nginx",
    "/usr/bin/docker --host x {word}",
    "/usr/bin/docker run -v {path}:/x app",
    "/usr/bin/docker run --rm app {word}",
    "/usr/bin/terraform -chdir={path} apply",
    "/usr/bin/java -javaagent:{path} -jar /srv/a.jar",
    "/usr/bin/java -D{word}={word} -cp {path} Main",
    "/usr/lib/git-core/git-submodule foreach {word}",
    "/usr/bin/x86_64-linux-gnu-gcc-14 -fplugin={path} /x.c",
    "/usr/local/bin/wrapper /usr/bin/perl -e {word}",
    "/usr/local/bin/wrapper bash -xc {word}",
    "/usr/bin/make -C /srv/app {word}",
    "/usr/bin/su {word} -c /bin/true",
    "/usr/bin/sudo -u {word} /bin/true",
    "/usr/bin/modprobe {word}",
    "/usr/bin/gdb-multiarch -batch -ex {word} /x",
    "/usr/bin/zip -T -TT {word} x.zip y",
];

#[test]
fn a_free_pattern_decides_nothing_of_what_usual_programs_run() {
    let mut wrong = Vec::new();
    for run in USUAL {
        let (errors, warnings) = findings(run);
        if !errors.is_empty() || !warnings.is_empty() {
            wrong.push(format!("{run}: {errors:?} {warnings:?}"));
        }
    }
    for run in WORTH_A_WARNING {
        let (errors, warnings) = findings(run);
        if !errors.is_empty() || warnings.is_empty() {
            wrong.push(format!("{run}, worth a warning: {errors:?}"));
        }
    }
    for run in DECIDING {
        let (errors, _) = findings(run);
        if errors.is_empty() || !errors[0].starts_with("run must not have the parameter") {
            wrong.push(format!("{run} is in force: {errors:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_variable_that_loads_something_has_listed_values() {
    for name in ["GEM_PATH", "RCLONE_PASSWORD_COMMAND", "LDFLAGS", "TF_PLUGIN_CACHE_DIR", "PGPASSFILE"] {
        let broken = |values: &str| {
            let rules = format!("- {{name: r, run: [/bin/true], environment: {{{name}: {{{values}}}}}}}");
            compile(&whitelist("web", &rules)).invalid_rules
        };
        let problems = broken("pattern: '[a-z/]+'");
        assert!(matches!(problems[0].problem, RuleError::LoadingVariable { .. }), "{problems:?}");
        assert!(broken("enum: [/srv/a, /srv/b]").is_empty() && broken("integer: {maximum: 3}").is_empty(), "{name}");
    }
}

/// Command lines whose options do not take `{name}` as a value, per the manuals. `{name}` is therefore the program.
const BEFORE_THE_PROGRAM: &[&str] = &[
    "/usr/bin/tini -g {name}",
    "/usr/bin/xargs -i {name}",
    "/usr/bin/xargs --replace {name}",
    "/usr/bin/prlimit --nofile {name}",
    "/usr/bin/numactl -l {name}",
    "/usr/bin/uclampset -s {name}",
    "/usr/bin/faketime -f @0 {name}",
    "/usr/bin/sshpass -e {name}",
    "/usr/bin/rlwrap -N {name}",
    "/usr/bin/tsp -g {name}",
    "/usr/bin/systemd-run --slice-inherit {name}",
    "/usr/bin/systemd-nspawn -b {name}",
    "/usr/bin/s6-setlock -w /run/lock/x {name}",
    "/usr/bin/s6-softlimit -h {name}",
    "/usr/bin/time -n {name}",
    "/usr/bin/unshare --propagation slave {name}",
    "/usr/bin/unshare --setgroups allow {name}",
    "/usr/bin/schedtool -e {name}",
];

#[test]
fn options_of_launchers_take_the_values_that_their_manuals_say() {
    for run in BEFORE_THE_PROGRAM {
        let (errors, _) = findings(run);
        assert!(errors.iter().any(|error| error.contains("a program to run")), "{run}: {errors:?}");
    }
    for run in [
        "/usr/bin/dumb-init -r 15:2 /opt/app/bin/report {name}",
        "/usr/bin/dumb-init -r {n} /opt/app/bin/report {name}",
        "/usr/bin/unshare --propagation slave /opt/app/bin/report {name}",
        "/usr/bin/unshare --propagation {word} /opt/app/bin/report {name}",
        "/usr/bin/prlimit --nofile=64 /opt/app/bin/report {name}",
        "/usr/bin/sudo -n --auth-type {word} -u app /opt/app/bin/report {name}",
    ] {
        assert_eq!(findings(run), (Vec::new(), Vec::new()), "{run}");
    }
}
