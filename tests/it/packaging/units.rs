//! The units, the configuration of the package, and `check --service`.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use redeliver::config::{self, Config, Source};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(root().join("packaging/systemd").join(name)).expect("a unit")
}

/// The settings of a unit from `User=` on, which are those that shut it in.
fn restrictions(unit: &str) -> BTreeSet<String> {
    let (_, behind) = unit.split_once("\nUser=").expect("a user");
    let lines = behind.split("\n[").next().unwrap_or_default().lines();
    lines.filter(|line| line.contains('=') && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_run_by_a_timer_is_shut_in_as_the_service_is() {
    let service = restrictions(&unit("redeliver.service"));
    assert!(service.len() > 25, "{service:?}");
    assert_eq!(restrictions(&unit("redeliver-run@.service")), service);
}

#[test]
fn the_unit_gives_the_service_more_time_to_end_than_it_takes() {
    let text = unit("redeliver.service");
    let seconds: u64 =
        text.split_once("TimeoutStopSec=").expect("set").1.lines().next().expect("a line").parse().expect("s");
    let shipped = config::load(&Source::BuiltIn).expect("what ships");
    assert!(seconds >= shipped.shutdown_timeout.as_secs() + 15);
    for line in ["Type=notify", "RestartPreventExitStatus=64 78", "RestartSec=5s", "WatchdogSec=2min"] {
        assert!(text.lines().any(|one| one == line), "{line}");
    }
}

/// The configuration that the package installs, as packaging/build makes it.
fn packaged() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("sed")
        .args(["-f", "packaging/redeliver.yaml.sed", "redeliver.yaml"])
        .current_dir(root())
        .output()
        .expect("sed runs");
    let file = folder.path().join("redeliver.yaml");
    let text = String::from_utf8(made.stdout).expect("UTF-8");
    assert!(text.contains("aliasesFile: /etc/aliases "), "{text}");
    std::fs::write(&file, text.replace("/etc/aliases ", "aliases ")).expect("written");
    std::fs::write(folder.path().join("aliases"), "postmaster: root\n").expect("written");
    std::fs::write(folder.path().join("admin.password"), "secret\n").expect("written");
    let loaded = config::load(&Source::File(file)).unwrap_or_else(|wrong| panic!("{wrong}"));
    (folder, loaded)
}

#[test]
fn the_packages_configuration_is_what_ships_with_its_own_places_and_a_password() {
    let (folder, packaged) = packaged();
    let shipped = config::load(&Source::BuiltIn).expect("what ships");
    assert_eq!(packaged.state_directory, Path::new("/var/lib/redeliver"));
    assert!(packaged.admin.has_password());
    assert_eq!(packaged.jobs_directory, folder.path().join("jobs"));
    assert_eq!(packaged.log.directory, None);
    assert_eq!(packaged.smtp, shipped.smtp);
    assert_eq!(format!("{:?}", packaged.processors), format!("{:?}", shipped.processors));
    assert!(packaged.smtp.listen.iter().all(|address| address.ip().is_loopback()));
}

/// A configuration in a folder of its own, with a unit, and the user who runs the test in it.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(unit: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::create_dir(site.path("units")).expect("made");
        std::fs::write(site.path("units/redeliver.service"), unit).expect("written");
        std::fs::write(site.path("redeliver.yaml"), "hostname: relay.test\nstateDirectory: state\n").expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_redeliver"))
            .args(["check", "--service", "--config"])
            .arg(self.path("redeliver.yaml"))
            .env("SYSTEMD_UNIT_PATH", self.path("units"))
            .output()
            .expect("it runs")
    }
}

fn whoami() -> String {
    let uid = own_uid();
    let passwd = std::fs::read_to_string("/etc/passwd").expect("users");
    let of = |line: &str| line.split(':').nth(2) == Some(uid.as_str());
    passwd.lines().find(|line| of(line)).and_then(|line| line.split(':').next()).expect("a user").to_owned()
}

fn own_uid() -> String {
    Path::new("/proc/self").metadata().expect("this process").uid().to_string()
}

#[test]
fn check_service_tells_at_its_place_what_the_unit_does_not_let_it_write() {
    let site = Site::new("[Service]\nProtectSystem=strict\n");
    std::fs::write(
        site.path("redeliver.yaml"),
        format!("hostname: relay.test\nstateDirectory: state\nlog: {{ directory: {} }}\n", site.path("log").display()),
    )
    .expect("written");
    std::fs::create_dir(site.path("jobs")).expect("made");
    std::fs::write(site.path("jobs/nightly.yaml"), "kind: backup\ndirectory: /srv/backup\n").expect("written");
    let allowed = format!(
        "[Service]\nUser={}\nProtectSystem=strict\nReadWritePaths={}\n",
        whoami(),
        site.path("state").display()
    );
    std::fs::write(site.path("units/redeliver.service"), allowed).expect("written");
    std::fs::create_dir(site.path("state")).expect("made");
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].contains("redeliver.yaml:3:19: ") && lines[0].contains("ReadWritePaths="), "{told}");
    assert!(lines[1].contains("jobs/nightly.yaml:2:12: /srv/backup: the unit keeps it read-only"), "{told}");

    std::fs::create_dir(site.path("units/redeliver.service.d")).expect("made");
    let more = format!("[Service]\nReadWritePaths={} -/srv/backup\nProtectSystem=full\n", site.path("log").display());
    std::fs::write(site.path("units/redeliver.service.d/more.conf"), more).expect("written");
    std::fs::write(
        site.path("jobs/nightly.yaml"),
        format!("kind: backup\ndirectory: {}\n", site.path("backup").display()),
    )
    .expect("written");
    std::fs::create_dir(site.path("log")).expect("made");
    let output = site.check();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"));
}

#[test]
fn check_service_looks_as_the_units_user() {
    let site = Site::new("[Service]\nUser=nobody\n");
    std::fs::set_permissions(site.path("redeliver.yaml"), Permissions::from_mode(0o600)).expect("its owner");
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr);
    if own_uid() == "0" {
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains("redeliver.yaml:1:1: cannot be read: Permission denied"), "{told}");
    } else {
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert!(told.contains("as the user nobody: only root can"), "{told}");
    }
    std::fs::write(site.path("units/redeliver.service"), "[Service]\nUser=no-such-user\n").expect("written");
    let told = site.check();
    assert_eq!(told.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&told.stderr).contains("no-such-user does not exist"));
}

#[test]
fn check_service_looks_with_the_units_group() {
    // Whose group of his own is another: only root can become him.
    if own_uid() != "0" {
        return;
    }
    let groups = std::fs::read_to_string("/etc/group").expect("groups");
    let group = groups.lines().find_map(|line| line.strip_prefix("mail:")).expect("mail");
    let gid = group.split(':').nth(1).and_then(|gid| gid.parse().ok()).expect("a number");
    let site = Site::new("[Service]\nUser=nobody\nGroup=mail\n");
    std::fs::create_dir(site.path("state")).expect("made");
    for (path, mode) in [(".", 0o755), ("redeliver.yaml", 0o640), ("state", 0o770)] {
        std::os::unix::fs::chown(site.path(path), None, Some(gid)).expect("its group");
        std::fs::set_permissions(site.path(path), Permissions::from_mode(mode)).expect("its owner");
    }
    let told = site.check();
    assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    std::fs::write(site.path("units/redeliver.service"), "[Service]\nUser=nobody\n").expect("written");
    assert_eq!(site.check().status.code(), Some(78), "without the group");
    std::fs::write(site.path("units/redeliver.service"), "[Service]\nUser=nobody\nGroup=no-such\n").expect("written");
    let told = site.check();
    assert_eq!(told.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&told.stderr).contains("no-such does not exist"));
}

#[test]
fn check_service_tells_of_a_link_where_systemd_wants_a_directory() {
    let site = Site::new("");
    std::fs::create_dir(site.path("disk")).expect("made");
    std::os::unix::fs::symlink(site.path("disk"), site.path("state")).expect("linked");
    let unit = format!("[Service]\nStateDirectory=../..{}\n", site.path("state").display());
    std::fs::write(site.path("units/redeliver.service"), unit).expect("written");
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("redeliver.yaml:2:17: ") && told.contains("/state is a link, with which systemd"), "{told}");
    std::fs::remove_file(site.path("state")).expect("removed");
    std::fs::create_dir(site.path("state")).expect("made");
    assert_eq!(site.check().status.code(), Some(0));
}
