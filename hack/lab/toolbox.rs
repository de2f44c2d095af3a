//! Finds kube-apiserver, etcd and kubectl, for example in `$KUBEBUILDER_ASSETS`, or builds them from source once.
//!
//! A build downloads only Go modules, whose checksums are in `hack/toolbox/*/go.sum`. The built programs stay in the
//! user's cache directory. The name of their directory contains the version and a hash of all inputs.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::error::LabError;
use super::files::{self, Lock};
use super::say;

/// Usual directories of the Go toolchain, searched after `$PATH`.
const GO_FOLDERS: &[&str] = &["/usr/local/go/bin", "/usr/lib/go/bin", "/snap/bin"];

/// The programs of the laboratory.
#[derive(Debug, Clone)]
pub struct Toolbox {
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// The store of the API server.
    pub etcd: PathBuf,
    /// The command-line client, for the demo and for tests of commands that a user types.
    pub kubectl: PathBuf,
}

/// Programs that only some tests need, built when first needed.
impl Toolbox {
    /// Finds or builds the controllers of Kubernetes (see [`super::Controllers`]).
    ///
    /// # Errors
    /// Same as [`Toolbox::find_or_build`].
    pub fn kube_controller_manager() -> Result<PathBuf, LabError> {
        KUBE_CONTROLLER_MANAGER.cached_or_built()
    }

    /// Finds or builds Helm, in the version with which the chart is tested. An installed Helm can have another version.
    ///
    /// # Errors
    /// Same as [`Toolbox::find_or_build`].
    pub fn helm() -> Result<PathBuf, LabError> {
        HELM.cached_or_built()
    }
}

/// Inputs for the build of a program.
struct Recipe {
    name: &'static str,
    /// Go package to build.
    package: &'static str,
    /// Directory below the repository that contains go.mod and go.sum.
    module: &'static str,
    /// Go module whose version in go.mod is the version of the program.
    versioned_by: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// Source files of the module in this repository, if there are any.
    sources: &'static [&'static str],
    /// Text about the duration of the first build on two cores, printed before the build.
    first_time: &'static str,
}

const KUBERNETES_MODULE: &str = "hack/toolbox/kubernetes";
const KUBERNETES_GO_MOD: &str = include_str!("../toolbox/kubernetes/go.mod");
const KUBERNETES_GO_SUM: &str = include_str!("../toolbox/kubernetes/go.sum");

const KUBE_APISERVER: Recipe = Recipe {
    name: "kube-apiserver",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    module: KUBERNETES_MODULE,
    versioned_by: "k8s.io/kubernetes",
    go_mod: KUBERNETES_GO_MOD,
    go_sum: KUBERNETES_GO_SUM,
    sources: &[],
    first_time: "3 to 5 minutes the first time",
};

const KUBECTL: Recipe = Recipe {
    name: "kubectl",
    package: "k8s.io/kubernetes/cmd/kubectl",
    first_time: "half a minute after kube-apiserver, else minutes, the first time",
    ..KUBE_APISERVER
};

const KUBE_CONTROLLER_MANAGER: Recipe = Recipe {
    name: "kube-controller-manager",
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    first_time: "1 to 2 minutes after kube-apiserver, else 5, the first time",
    ..KUBE_APISERVER
};

const HELM: Recipe = Recipe {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    module: "hack/toolbox/helm",
    versioned_by: "helm.sh/helm/v4",
    go_mod: include_str!("../toolbox/helm/go.mod"),
    go_sum: include_str!("../toolbox/helm/go.sum"),
    sources: &[],
    first_time: "1 to 2 minutes the first time",
};

const ETCD: Recipe = Recipe {
    name: "etcd",
    package: "go.etcd.io/etcd/server/v3",
    module: "hack/toolbox/etcd",
    versioned_by: "go.etcd.io/etcd/server/v3",
    go_mod: include_str!("../toolbox/etcd/go.mod"),
    go_sum: include_str!("../toolbox/etcd/go.sum"),
    sources: &[],
    first_time: "less than a minute the first time",
};

const GITOPS_HEALTH: Recipe = Recipe {
    name: "gitops-health",
    package: ".",
    module: "hack/toolbox/gitops",
    versioned_by: "github.com/argoproj/argo-cd/v3",
    go_mod: include_str!("../toolbox/gitops/go.mod"),
    go_sum: include_str!("../toolbox/gitops/go.sum"),
    sources: &[
        include_str!("../toolbox/gitops/main.go"),
        include_str!("../toolbox/gitops/judge.go"),
        include_str!("../toolbox/gitops/cases.go"),
    ],
    first_time: "3 to 7 minutes the first time",
};

impl Toolbox {
    /// Finds the programs, and builds missing ones.
    ///
    /// # Errors
    /// `$KUBEBUILDER_ASSETS` is set but incomplete, Go is missing, or a build fails.
    pub fn find_or_build() -> Result<Self, LabError> {
        if let Some(folder) = assets_folder() {
            let (kube_apiserver, etcd) = (folder.join("kube-apiserver"), folder.join("etcd"));
            let missing: Vec<&str> = [("kube-apiserver", &kube_apiserver), ("etcd", &etcd)]
                .into_iter()
                .filter(|(_, program)| !files::is_program(program))
                .map(|(name, _)| name)
                .collect();
            if !missing.is_empty() {
                return Err(LabError::AssetsIncomplete { missing: missing.join(" and no "), folder });
            }
            return Ok(Self { kubectl: find_or_build_kubectl()?, kube_apiserver, etcd });
        }
        Ok(Self {
            etcd: ETCD.cached_or_built()?,
            kube_apiserver: KUBE_APISERVER.cached_or_built()?,
            kubectl: find_or_build_kubectl()?,
        })
    }
}

/// Returns the value of `$KUBEBUILDER_ASSETS`, if it is set and not empty.
fn assets_folder() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns kubectl, for tests with an existing cluster. Searches `$KUBEBUILDER_ASSETS`, `$PATH` and the cache, and
/// builds kubectl if it is in none of them.
pub fn find_or_build_kubectl() -> Result<PathBuf, LabError> {
    let asset = assets_folder().map(|folder| folder.join("kubectl")).filter(|program| runs(program));
    match asset.or_else(|| files::find_program("kubectl", &[]).filter(|program| runs(program))) {
        Some(found) => Ok(found),
        None => KUBECTL.cached_or_built(),
    }
}

/// Finds or builds gitops-health, for tests. This program reports the health that Argo CD and Flux derive from an
/// object.
pub fn find_or_build_gitops_health() -> Result<PathBuf, LabError> {
    GITOPS_HEALTH.cached_or_built()
}

/// Returns true if this kubectl works on this machine. A kubectl for another architecture does not work.
fn runs(kubectl: &Path) -> bool {
    let version = Command::new(kubectl)
        .args(["version", "--client"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

impl Recipe {
    /// Returns the program's version from go.mod, for example `v1.36.3` from the line
    /// `k8s.io/kubernetes v1.36.3 // indirect`.
    fn version(&self) -> &'static str {
        self.go_mod
            .lines()
            .map(str::split_whitespace)
            .find_map(|mut words| (words.next() == Some(self.versioned_by)).then(|| words.next()).flatten())
            .unwrap_or("unknown")
    }

    /// Returns the flags for the linker. They omit debug information and, for programs of Kubernetes, set the version
    /// that /version reports.
    fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if self.module == KUBERNETES_MODULE {
            let version = self.version();
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for (variable, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                flags.push_str(&format!(" -X k8s.io/component-base/version.{variable}={value}"));
            }
        }
        flags
    }

    /// Returns the name of the program's directory in the cache, for example
    /// `etcd-v3.7.3-linux-x86_64-0123456789abcdef`. The last part is a hash of the inputs.
    fn cache_key(&self) -> String {
        let mut hash = Sha256::new();
        let linker_flags = self.linker_flags();
        let parts = [self.package, self.go_mod, self.go_sum, linker_flags.as_str()];
        for part in parts.iter().chain(self.sources) {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{digest}", self.name, self.version(), std::env::consts::OS, std::env::consts::ARCH)
    }

    /// Returns the program from the cache. If it is missing, one process builds it, and all other processes wait.
    fn cached_or_built(&self) -> Result<PathBuf, LabError> {
        let cache = cache_folder()?;
        let key = self.cache_key();
        let folder = cache.join(&key);
        let program = folder.join(self.name);
        if files::is_program(&program) {
            return Ok(program);
        }
        fs::create_dir_all(&folder).map_err(LabError::file("make the folder", &folder))?;
        let _lock = Lock::take(&cache.join(format!("{key}.lock")), &format!("building {}", self.name))?;
        if files::is_program(&program) {
            return Ok(program);
        }
        // Only the holder of the lock builds here, so all files in the directory are left from interrupted builds.
        for leftover in fs::read_dir(&folder).map_err(LabError::file("read", &folder))?.flatten() {
            let _ = fs::remove_file(leftover.path());
        }
        let unfinished = folder.join(format!("{}.{}.part", self.name, std::process::id()));
        self.build(&unfinished)?;
        fs::rename(&unfinished, &program).map_err(LabError::file("rename", &unfinished))?;
        Ok(program)
    }

    /// Runs `go build` and prints its progress.
    fn build(&self, output: &Path) -> Result<(), LabError> {
        let go = files::find_program("go", GO_FOLDERS).ok_or(LabError::GoMissing { name: self.name.to_owned() })?;
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.module);
        let what = format!("building {} {} from source ({})", self.name, self.version(), self.first_time);
        let mut step = say::step(what);
        let mut build = Command::new(&go);
        build
            .args(["build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-v", "-ldflags"])
            .arg(self.linker_flags());
        build.arg("-o").arg(output).arg(self.package);
        // A go.work or GOFLAGS of the user must not change the build.
        build.current_dir(&module).env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
        build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = build.spawn().map_err(LabError::run(go.display()))?;
        let mut packages = 0_usize;
        let mut last = VecDeque::with_capacity(files::TAIL_LINES);
        for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
            let Ok(line) = line else { break };
            // Lines such as `go: downloading ...` name no package.
            packages += usize::from(!line.starts_with("go: ") && !line.contains(' '));
            step.progress(format_args!("{packages} packages so far"));
            if last.len() == files::TAIL_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        let status = child.wait().map_err(LabError::run(go.display()))?;
        if !status.success() {
            let tail = Vec::from(last).join("\n");
            return Err(LabError::BuildFailed { name: self.name.to_owned(), folder: module, tail });
        }
        step.done();
        Ok(())
    }
}

/// Returns `$XDG_CACHE_HOME/writ/toolbox`. If the variable is not set, returns `~/.cache/writ/toolbox`.
pub fn cache_folder() -> Result<PathBuf, LabError> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    Ok(base.ok_or(LabError::NoCacheFolder)?.join("writ").join("toolbox"))
}
