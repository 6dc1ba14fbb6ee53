//! Over generated containers: what James kept, refused or bounced is never deleted in silence
//! by the YAML, and no mail comes to a RemoteDelivery that it would not have come to in James,
//! whatever somebody else's matchers and mailets may do.

mod container;
mod james;
mod ours;

use std::cell::Cell;
use std::path::Path;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::{Converted, convert, mistakes};
use crate::cli::convert::xml::Element;
use container::{Container, RECIPIENTS, any_container};
use james::{World, any_world};
use ours::Ours;

/// How often something was seen, so that the property is known to have been asked.
#[derive(Debug, Default)]
struct Seen {
    ran: Cell<u32>,
    came_to_a_peer: Cell<u32>,
    deleted: Cell<u32>,
    kept_instead: Cell<u32>,
    clean: Cell<u32>,
}

fn count(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

#[test]
fn nothing_that_james_kept_is_lost_and_nothing_that_it_stopped_goes_out() {
    let seen = Seen::default();
    let given = Config::default();
    // The same in every run, unless PROPTEST_RNG_SEED and PROPTEST_CASES say otherwise.
    let rng_seed = if let RngSeed::Random = given.rng_seed { RngSeed::Fixed(17) } else { given.rng_seed };
    let config = Config { cases: given.cases.max(384), rng_seed, failure_persistence: None, ..given };
    let ran = TestRunner::new(config)
        .run(&(any_container(), any_world()), |(container, world)| holds(&container, &world, &seen));
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    let Seen { ran, came_to_a_peer, deleted, kept_instead, clean } = &seen;
    for (cell, least) in [(ran, 200), (came_to_a_peer, 200), (deleted, 100), (kept_instead, 500), (clean, 5)] {
        assert!(cell.get() >= least, "too little was seen: {seen:?}");
    }
}

fn holds(container: &Container, world: &World, seen: &Seen) -> Result<(), TestCaseError> {
    let xml = container.xml();
    let converted = convert(&Element::parse(&xml).expect("well-formed"), "mailetcontainer.xml");
    let told = told(&converted);
    if container.has_something_to_tell() {
        proptest::prop_assert!(told, "65 is missing\n{xml}\n{}", converted.yaml);
    }
    let Some(ours) = Ours::load(&converted.yaml) else {
        proptest::prop_assert!(told, "refused, and not said\n{xml}\n{}", converted.yaml);
        return Ok(());
    };
    count(&seen.ran);
    if container.has_nothing_to_tell() && converted.dead_end.is_none() {
        proptest::prop_assert!(!told, "65 for nothing\n{xml}\n{:?}", converted.notes);
        count(&seen.clean);
    }
    let ends = ours.run(world.null_sender);
    for (at, recipient) in RECIPIENTS.iter().enumerate() {
        let end = &ends[at];
        let james = james::run(container, world, at, &ours.jobs);
        let story = || format!("{recipient}: ours {end:?}, James {james:?}\n{world:?}\n{xml}\n{}", converted.yaml);
        if end.is_lost() {
            proptest::prop_assert!(james.is_lost(), "deleted in silence: {}", story());
            count(&seen.deleted);
        }
        if !end.is_lost() && james.is_lost() {
            count(&seen.kept_instead);
        }
        // Of domains that James hosted it is said that their mail goes out.
        if !world.is_local(at) {
            proptest::prop_assert!(end.reached.is_subset(&james.reached), "goes out: {}", story());
        }
        if !end.reached.is_empty() {
            count(&seen.came_to_a_peer);
        }
    }
    Ok(())
}

/// Whether the exit code is 65.
fn told(converted: &Converted) -> bool {
    converted.notes.iter().any(|note| note.must_be_known)
        || converted.dead_end.is_some()
        || !mistakes(converted).is_empty()
}

/// Writes the configuration with its jobs, as somebody does who follows the comments.
fn write_files(yaml: &str, folder: &Path) {
    std::fs::write(folder.join("redeliver.yaml"), yaml).expect("written");
    let mut name = None;
    for line in yaml.lines().filter_map(|line| line.strip_prefix("# ")) {
        if line.ends_with(".yaml:") {
            name = Some(folder.join(line.trim_end_matches(':')));
        } else if let Some(file) = &name {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            let so_far = std::fs::read_to_string(file).unwrap_or_default();
            std::fs::write(file, format!("{so_far}{}\n", line.trim_start())).expect("written");
        }
    }
}
