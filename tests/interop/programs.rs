//! The programs that the tests run: where they are, which are missing, and how the test's own are built.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use rustix::io::FdFlags;
use tempfile::TempDir;

use crate::client::Place;

/// What a test needs that not every machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    SocketActivate,
    Go,
    C,
    Libsystemd,
    Bash,
    Older,
}

impl Need {
    const ALL: [Self; 6] =
        [Self::SocketActivate, Self::Go, Self::C, Self::Libsystemd, Self::Bash, Self::Older];

    /// What is missing, and where it is to be had: the Debian package, as a rule.
    fn look_for(self) -> Result<(), &'static str> {
        let (found, message) = match self {
            Self::SocketActivate => (
                succeeds(Command::new("systemd-socket-activate").arg("--version")),
                "no systemd-socket-activate (Debian: systemd)",
            ),
            Self::Go if !succeeds(Command::new("go").arg("version")) => (false, "no go (Debian: golang-go)"),
            Self::Go => (
                Path::new(GOPATH).join("src/github.com/facebookgo/grace/gracenet/net.go").exists(),
                "no Go package gracenet (Debian: golang-github-facebookgo-grace-dev)",
            ),
            Self::C => (
                succeeds(Command::new("cc").args(["-fsyntax-only", "-include", "stdio.h"]).args(NO_SOURCE)),
                "no C compiler with a C library's headers (Debian: gcc, libc6-dev)",
            ),
            Self::Libsystemd => (
                succeeds(
                    Command::new("cc")
                        .args(["-fsyntax-only", "-include", "systemd/sd-daemon.h"])
                        .args(NO_SOURCE),
                ),
                "no headers of libsystemd (Debian: libsystemd-dev)",
            ),
            Self::Bash => (succeeds(Command::new("bash").arg("--version")), "no bash (Debian: bash)"),
            Self::Older if !succeeds(git().arg("--version")) => (false, "no git (Debian: git)"),
            Self::Older if !succeeds(cargo().arg("--version")) => (false, "no cargo (Debian: cargo)"),
            Self::Older => (
                succeeds(git().args(["cat-file", "-e", &format!("{OLDER}^{{tree}}")])),
                "no commit of the older release (a whole clone has it: git fetch --unshallow)",
            ),
        };
        if found { Ok(()) } else { Err(message) }
    }
}

const NO_SOURCE: [&str; 3] = ["-x", "c", "/dev/null"];

/// The commit of the older release, which stays in the tests of every later release.
const OLDER: &str = "149d19bed73911140c80968a16ddf3570f6cc5ed";

/// Returns a git command that runs in the repository of this test.
fn git() -> Command {
    let mut command = Command::new("git");
    command.args(["-C", env!("CARGO_MANIFEST_DIR")]);
    command
}

/// Returns the cargo that runs this test, or else the one in `PATH`.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where Debian keeps the sources of Go packages.
const GOPATH: &str = "/usr/share/gocode";

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Everything that can be run, for all tests.
pub(crate) struct Programs {
    missing: Vec<(Need, &'static str)>,
    all_required: bool,
    /// Gone with [`Programs::clean`]: statics are not dropped.
    directory: Mutex<Option<TempDir>>,
    go: OnceLock<PathBuf>,
    listen_fds: OnceLock<PathBuf>,
    activate: OnceLock<PathBuf>,
    older: OnceLock<PathBuf>,
}

impl Programs {
    pub(crate) fn new() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| {
            let all_required = match std::env::var("GRACENET_INTEROP").as_deref() {
                Ok("all") => true,
                Err(_) | Ok("" | "available") => false,
                Ok(other) => panic!("GRACENET_INTEROP is `all`, `available` or unset, not {other:?}"),
            };
            let look = |need: Need| Some((need, need.look_for().err()?));
            Self {
                missing: Need::ALL.into_iter().filter_map(look).collect(),
                all_required,
                directory: Mutex::new(Some(tempfile::tempdir().unwrap())),
                go: OnceLock::new(),
                listen_fds: OnceLock::new(),
                activate: OnceLock::new(),
                older: OnceLock::new(),
            }
        })
    }

    /// Why a test with this need cannot run.
    pub(crate) fn missing(&self, need: Need) -> Option<String> {
        let (_, message) = self.missing.iter().find(|(missing, _)| *missing == need)?;
        Some((*message).to_owned())
    }

    /// Whether a test that cannot run is one that has failed.
    pub(crate) const fn all_required(&self) -> bool {
        self.all_required
    }

    /// Removes what was built.
    pub(crate) fn clean(&self) {
        drop(self.directory.lock().unwrap().take());
    }

    fn target(&self, name: &str) -> PathBuf {
        self.directory.lock().unwrap().as_ref().unwrap().path().join(name)
    }

    /// The example, which cargo puts beside the directory of this test's binary.
    pub(crate) fn serve(&self) -> PathBuf {
        let test = std::env::current_exe().unwrap();
        let serve = test.parent().and_then(Path::parent).unwrap().join("examples/serve");
        assert!(serve.exists(), "{} is not there: cargo build --example serve", serve.display());
        serve
    }

    /// The server on the Go original.
    pub(crate) fn go(&self) -> &Path {
        self.go.get_or_init(|| {
            let target = self.target("go");
            let mut command = Command::new("go");
            command.args(["build", "-o"]).arg(&target).arg(source("go/main.go"));
            command.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOPATH", GOPATH);
            command.env("CGO_ENABLED", "0");
            command.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"));
            build(&mut command);
            target
        })
    }

    /// The successor on libsystemd.
    pub(crate) fn listen_fds(&self) -> &Path {
        self.listen_fds.get_or_init(|| self.compile("listen_fds", &["-lsystemd"]))
    }

    /// The predecessor by hand.
    pub(crate) fn activate(&self) -> &Path {
        self.activate.get_or_init(|| self.compile("activate", &[]))
    }

    /// Returns `serve` of the older release. Its source and its build stay in the target folder for the next run.
    pub(crate) fn serve_of_older(&self) -> &Path {
        self.older.get_or_init(|| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("older").join(OLDER);
            let source = directory.join("source");
            if !source.exists() {
                std::fs::create_dir_all(&directory).unwrap();
                unpack(&directory, &source);
            }
            let mut command = cargo();
            command.args(["build", "--locked", "--example", "serve"]);
            command.arg("--message-format=json-render-diagnostics").current_dir(source);
            command.env("CARGO_TARGET_DIR", directory.join("target"));
            // The build takes less time without debug information.
            command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
            let messages = build(&mut command);
            // The place of the executable depends on cargo's configuration, such as `build.target`.
            let (_, executable) = messages.rsplit_once("\"executable\":\"").unwrap();
            executable.split_once('"').unwrap().0.into()
        })
    }

    fn compile(&self, name: &str, libraries: &[&str]) -> PathBuf {
        let target = self.target(name);
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(&target);
        command.arg(source(&format!("c/{name}.c"))).args(libraries);
        build(&mut command);
        target
    }
}

/// A symbolic link that stands for the program, as a deployment replaces it.
pub(crate) struct Deployed {
    directory: TempDir,
    link: PathBuf,
}

impl Deployed {
    pub(crate) fn new(program: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("current");
        let this = Self { directory, link };
        this.deploy(program);
        this
    }

    pub(crate) fn deploy(&self, program: &Path) {
        let next = self.directory.path().join("next");
        symlink(program, &next).unwrap();
        std::fs::rename(next, &self.link).unwrap();
    }

    pub(crate) fn unix(&self) -> Place {
        Place::Unix(self.directory.path().join("socket"))
    }

    pub(crate) fn command(&self, places: &[&Place]) -> Command {
        let mut command = Command::new(&self.link);
        command.args(places.iter().map(|place| place.argument()));
        command
    }
}

/// A file of this test's.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// Runs the command, which has to succeed, and returns what it prints.
fn build(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Unpacks the older release into `source`, all of it or nothing.
fn unpack(directory: &Path, source: &Path) {
    let unpacked = tempfile::tempdir_in(directory).unwrap();
    let (archive, files) = (unpacked.path().join("archive"), unpacked.path().join("files"));
    std::fs::create_dir(&files).unwrap();
    build(git().args(["archive", "--format=tar", "-o"]).arg(&archive).arg(OLDER));
    build(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&files));
    match std::fs::rename(files, source) {
        // Another run of this test was faster.
        Err(_) if source.exists() => {}
        result => result.unwrap(),
    }
}

/// Keeps what this process happened to be started with out of the programs it starts.
pub(crate) fn close_on_exec() {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let fd: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        if fd > 2 {
            // SAFETY: it is looked at, not owned; one that is closed by now answers with an error.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
}
