//! What the service's unit allows it: `check --service` looks at directories with its eyes.
//!
//! Read are the files of systemd.unit(5), drop-ins too; of their settings those that say what
//! may be written, and by whom.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The service of the package.
const NAME: &str = "redeliver.service";

/// The units' folders, the first that has a file wins.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What is emptied by ProtectHome=.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// What only the service sees with PrivateTmp=.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The unit, as far as it says what may be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `User=`.
    pub user: Option<String>,
    /// `Group=`; without it, the user's own.
    pub group: Option<String>,
    /// `ReadWritePaths=`, and the directories that systemd makes for the service.
    writable: Vec<PathBuf>,
    /// Those of them that systemd makes at the start.
    made: Vec<PathBuf>,
    system: Protection,
    homes_hidden: bool,
    private_tmp: bool,
}

/// `ProtectSystem=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Protection {
    #[default]
    None,
    /// /usr and the boot loader.
    Usr,
    /// /etc too.
    Full,
    /// Everything.
    Strict,
}

impl Unit {
    /// Reads the unit from where systemd finds it; `path` is `$SYSTEMD_UNIT_PATH`.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn find(path: Option<OsString>) -> Result<Self, String> {
        let folders: Vec<PathBuf> = match path.filter(|path| !path.is_empty()) {
            Some(path) => std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()).collect(),
            None => FOLDERS.iter().map(PathBuf::from).collect(),
        };
        let main = folders.iter().map(|folder| folder.join(NAME)).find(|file| file.exists());
        let Some(main) = main else {
            let looked: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(format!("there is no unit {NAME} in {}", looked.join(", ")));
        };
        let mut settings = Settings::default();
        for file in std::iter::once(main).chain(drop_ins(&folders)) {
            let text = crate::files::read_text(&file)
                .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
            settings.read(&text);
        }
        Ok(settings.unit())
    }

    /// Why the service may not write in `directory`; `None` where it may. Asked for the user
    /// who runs, once he is the unit's.
    pub fn refuses(&self, directory: &Path) -> Option<String> {
        let lies = real(directory);
        let edit = "systemctl edit redeliver";
        let below = |folders: &[&str]| folders.iter().any(|folder| lies.starts_with(folder));
        if self.homes_hidden && below(&HOMES) {
            return Some(format!(
                "the unit has ProtectHome=, so that it is not there: put it elsewhere, such as below /srv, or '{edit}'"
            ));
        }
        let is_writable = self.writable.iter().any(|path| lies.starts_with(real(path)));
        if self.private_tmp && below(&TEMPORARY) && !is_writable {
            return Some(
                "the unit has a /tmp of its own, which goes when the service stops: put it elsewhere".to_owned(),
            );
        }
        let read_only = match self.system {
            Protection::Strict => !below(&["/dev", "/proc", "/sys"]),
            Protection::Full => below(&["/usr", "/boot", "/efi", "/etc"]),
            Protection::Usr => below(&["/usr", "/boot", "/efi"]),
            Protection::None => false,
        };
        if read_only && !is_writable {
            let path = directory.display();
            return Some(format!(
                "the unit keeps it read-only: '{edit}', and write [Service] and ReadWritePaths={path}"
            ));
        }
        self.permission_missing(directory)
    }

    /// Each directory that systemd makes for the service where there is a link: it does not
    /// follow one, and the service does not start.
    pub fn refused_links(&self) -> impl Iterator<Item = String> {
        self.made.iter().filter(|made| made.is_symlink()).map(|made| {
            let path = made.display();
            format!("{path} is a link, with which systemd does not start the service: mount there what it leads to, for instance with 'mount --bind'")
        })
    }

    /// What the file system says to this user.
    fn permission_missing(&self, directory: &Path) -> Option<String> {
        if !directory.exists() && self.made.iter().any(|made| directory == made) {
            return None;
        }
        let nearest = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let user = self.user.as_deref().unwrap_or("root");
        if nearest != directory && self.writable.iter().any(|path| path == directory) {
            return Some(format!(
                "it is not there, and the unit does not start without it: install -d -o {user} {}",
                directory.display()
            ));
        }
        let error = access(nearest).err()?;
        let make = if nearest == directory { "chown" } else { "install -d -o" };
        Some(format!("{user} may not write in {}: {error}; {make} {user} {}", nearest.display(), directory.display()))
    }
}

/// Whether this process may make files in a folder, or write a file.
fn access(path: &Path) -> io::Result<()> {
    use nix::unistd::AccessFlags;

    let flags = if path.is_dir() { AccessFlags::W_OK | AccessFlags::X_OK } else { AccessFlags::W_OK };
    nix::unistd::access(path, flags).map_err(io::Error::from)
}

/// Where a path leads, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match there {
        Some((part, real)) => path.strip_prefix(part).map_or_else(|_| path.to_owned(), |rest| real.join(rest)),
        None => path.to_owned(),
    }
}

/// By their names, whatever the folder; one in an earlier folder hides its namesakes.
fn drop_ins(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    for folder in folders.iter().rev() {
        let Ok(entries) = std::fs::read_dir(folder.join(format!("{NAME}.d"))) else { continue };
        let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "conf")) {
            found.insert(file.file_name().unwrap_or_default().to_owned(), file);
        }
    }
    found.into_values().collect()
}

/// The values of each key of `[Service]`, in their order; an empty one takes back those before.
#[derive(Default)]
struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    fn read(&mut self, text: &str) {
        let joined = text.replace("\\\n", " ");
        let mut in_service = false;
        for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| in_service) {
                let values = self.0.entry(key.trim().to_owned()).or_default();
                match value.trim() {
                    "" => values.clear(),
                    value => values.push(value.to_owned()),
                }
            }
        }
    }

    fn last(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.last().map(String::as_str)
    }

    fn is_on(&self, key: &str) -> bool {
        self.last(key).is_some_and(|value| !matches!(value, "no" | "false" | "off" | "0"))
    }

    fn paths(&self, key: &str) -> impl Iterator<Item = &str> {
        let words = self.0.get(key).into_iter().flatten().flat_map(|value| value.split_whitespace());
        words.map(|word| word.trim_start_matches(['-', '+']).trim_matches('"'))
    }

    fn unit(&self) -> Unit {
        let places = [
            ("StateDirectory", "/var/lib"),
            ("LogsDirectory", "/var/log"),
            ("CacheDirectory", "/var/cache"),
            ("RuntimeDirectory", "/run"),
        ];
        let made: Vec<_> =
            places.iter().flat_map(|(key, base)| self.paths(key).map(move |name| Path::new(base).join(name))).collect();
        let writable = self.paths("ReadWritePaths").map(PathBuf::from).chain(made.iter().cloned()).collect();
        let system = match self.last("ProtectSystem") {
            Some("strict") => Protection::Strict,
            Some("full") => Protection::Full,
            _ if self.is_on("ProtectSystem") => Protection::Usr,
            _ => Protection::None,
        };
        Unit {
            user: self.last("User").map(str::to_owned),
            group: self.last("Group").map(str::to_owned),
            writable,
            made,
            system,
            homes_hidden: self.is_on("ProtectHome") && self.last("ProtectHome") != Some("read-only"),
            private_tmp: self.is_on("PrivateTmp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(files: &[(&str, &str)]) -> (tempfile::TempDir, Unit) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(file, text).expect("written");
        }
        let found = Unit::find(Some(folder.path().into())).expect("a unit");
        (folder, found)
    }

    #[test]
    fn drop_ins_add_and_take_back() {
        let (_folder, unit) = unit(&[
            (
                NAME,
                "[Unit]\nUser=x\n[Service]\nUser=redeliver\nStateDirectory=redeliver \\\n  more\nReadWritePaths=/gone\nProtectSystem=strict\n",
            ),
            (
                "redeliver.service.d/b.conf",
                "[Service]\nReadWritePaths=\n# ReadWritePaths=/comment\nReadWritePaths=-/srv/a \"/srv/b\"\n",
            ),
            ("redeliver.service.d/a.conf", "[Service]\nReadWritePaths=/gone/too\nUser=mail\n"),
            ("redeliver.service.d/a.txt", "[Service]\nUser=nobody\n"),
        ]);
        assert_eq!(unit.user.as_deref(), Some("mail"));
        let expected = ["/srv/a", "/srv/b", "/var/lib/redeliver", "/var/lib/more"].map(PathBuf::from);
        assert_eq!(unit.writable, expected);
        assert_eq!(unit.system, Protection::Strict);
    }

    #[test]
    fn what_is_refused_is_told_with_the_setting() {
        let shipped = include_str!("../../packaging/systemd/redeliver.service");
        let (folder, unit) = unit(&[(NAME, shipped)]);
        assert_eq!((unit.user.as_deref(), unit.group.as_deref()), (Some("redeliver"), Some("redeliver")));
        for (directory, why) in [
            ("/home/ann/backup", "ProtectHome="),
            ("/srv/backup", "ReadWritePaths=/srv/backup"),
            ("/var/lib/redeliverer", "ReadWritePaths=/var/lib/redeliverer"),
            ("/var/tmp/backup", "/tmp of its own"),
            ("/tmp/../srv/backup", "ReadWritePaths="),
        ] {
            let told = unit.refuses(Path::new(directory)).expect(directory);
            assert!(told.contains(why), "{directory}: {told}");
        }
        // A link out of a writable folder leads where it leads.
        let (into, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&into).expect("made");
        std::os::unix::fs::symlink("/srv", &link).expect("linked");
        let open = Unit { system: Protection::Strict, writable: vec![folder.path().to_owned()], ..Unit::default() };
        assert_eq!(open.refuses(&into.join("new")), None);
        assert!(open.refuses(&link.join("x")).is_some_and(|told| told.contains("read-only")));
        assert_eq!(Unit::default().refuses(&into), None);
    }

    #[test]
    fn without_a_unit_it_is_told_where_was_looked() {
        let told = Unit::find(Some("/nowhere:/neither".into())).expect_err("none");
        assert_eq!(told, "there is no unit redeliver.service in /nowhere, /neither");
    }
}
