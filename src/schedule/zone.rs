//! Time zones by their IANA names: the system's rules where it has them, since it is updated
//! when a country changes its mind, and those compiled in otherwise.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::files;

/// The system's rules, a file for each zone (tzfile(5)).
const SYSTEM: &str = "/usr/share/zoneinfo";

/// No zone is farther from UTC, with some room for a change of its offset.
const FARTHEST: TimeDelta = TimeDelta::hours(28);

/// Offsets are looked up so far from each other: none lasts shorter.
const STEP: TimeDelta = TimeDelta::hours(4);

/// A zone, and where its rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: Rules,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    System(Arc<tz::TimeZone>),
    BuiltIn(Tz),
}

impl Zone {
    /// UTC, which has no rules.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: Rules::BuiltIn(Tz::UTC) }
    }

    /// The zone of this name, as the system has it now.
    pub fn find(name: &str) -> Option<Self> {
        Self::find_in(Path::new(SYSTEM), name)
    }

    fn find_in(system: &Path, name: &str) -> Option<Self> {
        let built_in = name.parse().ok();
        // Only names that can stand in this database are looked for: it is a path.
        let is_name = built_in.is_some() || is_name(name);
        let rules = match system_rules(system, name).filter(|_| is_name) {
            Some(rules) => Rules::System(Arc::new(rules)),
            None => Rules::BuiltIn(built_in?),
        };
        Some(Self { name: name.to_owned(), rules })
    }

    /// As it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its clocks are ahead of UTC at `instant`.
    pub fn offset(&self, instant: DateTime<Utc>) -> FixedOffset {
        match &self.rules {
            Rules::BuiltIn(zone) => zone.offset_from_utc_datetime(&instant.naive_utc()).fix(),
            Rules::System(zone) => zone
                .find_local_time_type(instant.timestamp())
                .ok()
                .and_then(|found| FixedOffset::east_opt(found.ut_offset()))
                // Out of the range of any clock.
                .unwrap_or_else(|| Utc.fix()),
        }
    }

    /// The instants at which its clocks show `wall`: none in a gap, two where an hour is
    /// repeated.
    pub fn instants(&self, wall: NaiveDateTime) -> LocalResult<DateTime<Utc>> {
        let about = wall.and_utc();
        let mut found: Vec<DateTime<Utc>> = Vec::new();
        let mut look = about - FARTHEST;
        while look <= about + FARTHEST {
            let offset = self.offset(look);
            let instant = about - TimeDelta::seconds(offset.local_minus_utc().into());
            if self.offset(instant) == offset && !found.contains(&instant) {
                found.push(instant);
            }
            look += STEP;
        }
        found.sort_unstable();
        match found.as_slice() {
            [] => LocalResult::None,
            [only] => LocalResult::Single(*only),
            [first, .., last] => LocalResult::Ambiguous(*first, *last),
        }
    }
}

/// Letters, digits and the like between slashes; no rules with leap seconds in them.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-_".contains(&octet))
    };
    name.split('/').all(is_part)
}

fn system_rules(system: &Path, name: &str) -> Option<tz::TimeZone> {
    tz::TimeZone::from_tz_data(&files::read(&system.join(name), files::MOST).ok()?).ok()
}

/// Which rules are in force, in words: `2025b of /usr/share/zoneinfo`.
pub fn zone_data() -> String {
    zone_data_in(Path::new(SYSTEM))
}

fn zone_data_in(system: &Path) -> String {
    let of_system = || system_rules(system, "Europe/Paris");
    match (version(system), of_system()) {
        (Some(version), Some(_)) => format!("{version} of {}", system.display()),
        (None, Some(_)) => format!("{}, of a version that it does not name", system.display()),
        (_, None) => format!("{}, compiled in", chrono_tz::IANA_TZDB_VERSION),
    }
}

/// As Debian and others leave it: `# version 2025b` at the head of one file, or alone in another.
fn version(system: &Path) -> Option<String> {
    let read = |file: &str| files::read_text(&system.join(file)).ok();
    let first = |text: String| text.lines().next().map(|line| line.trim_start_matches("# version ").trim().to_owned());
    let found = read("tzdata.zi").or_else(|| read("+VERSION")).and_then(first)?;
    (!found.is_empty() && found.len() < 20 && found.is_ascii()).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of version 2 that says nothing but what follows the last change (RFC 9636).
    fn tz_file(rule: &str, seconds: i32) -> Vec<u8> {
        let header = |counts: [u32; 6]| {
            let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            [&b"TZif2"[..], &[0; 15], &counts].concat()
        };
        let block = [&seconds.to_be_bytes()[..], &[0, 0], b"XYZ\0"].concat();
        let one_type = header([0, 0, 0, 0, 1, 4]);
        [one_type.as_slice(), &block, &one_type, &block, b"\n", rule.as_bytes(), b"\n"].concat()
    }

    #[test]
    fn the_system_s_rules_come_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        std::fs::create_dir(path.join("Europe")).expect("a directory");
        std::fs::create_dir(path.join("right")).expect("a directory");
        std::fs::write(path.join("Europe/Paris"), tz_file("XYZ-5", 5 * 3600)).expect("a file");
        std::fs::write(path.join("Europe/Berlin"), "no rules").expect("a file");
        std::fs::write(path.join("Europe/Newtown"), tz_file("XYZ-6", 6 * 3600)).expect("a file");
        std::fs::write(path.join("right/Newtown"), tz_file("XYZ-6", 6 * 3600)).expect("a file");
        let noon = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        for (name, hours) in [
            ("Europe/Paris", Some(5)),
            ("Europe/Berlin", Some(1)),
            ("Europe/Madrid", Some(1)),
            ("Europe/Newtown", Some(6)),
            ("right/Newtown", None),
            ("Europe/../Europe/Paris", None),
            ("/etc/localtime", None),
            ("Europe", None),
            ("UTC", Some(0)),
            ("", None),
        ] {
            let found = Zone::find_in(path, name).map(|zone| zone.offset(noon).local_minus_utc() / 3600);
            assert_eq!(found, hours, "{name}");
        }
        assert!(zone_data_in(path).contains("of a version that it does not name"));
        std::fs::write(path.join("tzdata.zi"), "# version 2031c\n# more\n").expect("a file");
        assert_eq!(zone_data_in(path), format!("2031c of {}", path.display()));
        std::fs::remove_file(path.join("Europe/Paris")).expect("removed");
        assert_eq!(zone_data_in(path), format!("{}, compiled in", chrono_tz::IANA_TZDB_VERSION));
    }

    proptest! {
        #[test]
        fn wall_clock_times_are_those_of_chrono(
            name in prop::sample::select(vec![
                "Europe/Paris", "America/Sao_Paulo", "America/Santiago", "Africa/Cairo", "Asia/Kathmandu",
                "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "UTC",
            ]),
            seconds in 0_i64..2_000_000_000,
            near in any::<bool>(),
        ) {
            let tz: Tz = name.parse().expect(name);
            let zone = Zone { name: name.to_owned(), rules: Rules::BuiltIn(tz) };
            let mut instant = DateTime::from_timestamp(seconds, 0).expect("a time");
            if near {
                // To the next change of the clocks, around which the walls differ.
                let before = zone.offset(instant);
                let hours = (0..9000).map(|hour| instant + TimeDelta::hours(hour));
                instant = hours.clone().find(|time| zone.offset(*time) != before).unwrap_or(instant);
            }
            for minutes in [-90, -31, -1, 0, 1, 29, 61, 119] {
                let wall = (instant + TimeDelta::minutes(minutes)).with_timezone(&tz).naive_local();
                for wall in [wall, wall + TimeDelta::hours(1), wall - TimeDelta::minutes(30)] {
                    let theirs = tz.from_local_datetime(&wall).map(|one| one.to_utc());
                    prop_assert_eq!(zone.instants(wall), theirs, "{} {}", name, wall);
                }
            }
        }
    }
}
