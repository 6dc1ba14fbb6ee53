//! What the alert rules and the dashboard of the package ask for is what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use redeliver::metrics::{Metrics, Stored, StoredJob, StoredPlace};

/// Labels that Prometheus gives: where a series comes from, what it has of a label of ours
/// that is named as one of its own, and the bucket of a histogram.
const PROMETHEUS: [&str; 4] = ["instance", "job", "exported_job", "le"];

/// Each series' name, and its labels.
type Series = BTreeMap<String, BTreeSet<String>>;

fn shipped(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    std::fs::read_to_string(file).expect("it ships")
}

/// One of everything: a kind of which there is none yet has no labels.
fn there_is() -> Series {
    let metrics = Metrics::new();
    metrics.http_request(200);
    metrics.missed("retry", 1);
    let stored = Stored {
        places: vec![StoredPlace { place: "spool".into(), mails: 1, unacknowledged: 1, oldest: Some(1) }],
        outcomes: vec![("deferred".into(), "rcpt".into(), "4".into(), 7)],
        jobs: vec![StoredJob { job: "retry".into(), last_success: Some(1), last_seconds: Some(0.25) }],
        schedules: vec![("retry".into(), true)],
        tasks: vec![("completed".into(), 2)],
        dsn: vec![("failed".into(), 4)],
        wal_bytes: Some(4096),
        free_bytes: Some(4096),
    };
    let mut series = Series::new();
    for line in metrics.text(&stored).lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        series.entry(name.to_owned()).or_default().extend(labels_in(&line[name.len()..]));
    }
    series
}

/// Names in front of `=`, `!=` and `=~`.
fn labels_in(text: &str) -> Vec<String> {
    let inside = text.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
    let before = inside.split("=\"").flat_map(|part| part.split("=~\"")).map(|part| part.trim_end_matches('!'));
    let names = before.filter_map(|part| part.rsplit([',', ' ', '"']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What a query asks of which series, and the labels by which it sorts.
fn wrong(query: &str, series: &Series) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeSet<String> = PROMETHEUS.map(str::to_owned).into();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in query.match_indices("redeliver_").filter(|(at, _)| !query[..*at].ends_with(is_word)) {
        let rest = &query[at..];
        let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let Some(labels) = series.get(name) else {
            wrong.push(name.to_owned());
            continue;
        };
        known.extend(labels.iter().cloned());
        let unknown = labels_in(&rest[name.len()..]).into_iter();
        wrong.extend(unknown.filter(|label| !labels.contains(label) && !PROMETHEUS.contains(&label.as_str())));
    }
    wrong.extend(sorted_by(query).into_iter().filter(|label| !known.contains(label)));
    wrong
}

/// Labels in `by (...)` and `on (...)`.
fn sorted_by(query: &str) -> Vec<String> {
    let lists = ["by (", "on ("].iter().flat_map(|word| query.split(word).skip(1));
    let names = lists.flat_map(|rest| rest.split(')').next().unwrap_or_default().split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

/// Each text behind `key`, however deep.
fn texts<'a>(value: &'a serde_json::Value, key: &str, found: &mut Vec<&'a str>) {
    let inner: Vec<_> = match value {
        serde_json::Value::Object(members) => {
            found.extend(members.get(key).and_then(|text| text.as_str()));
            members.values().collect()
        }
        serde_json::Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    for value in inner {
        texts(value, key, found);
    }
}

#[test]
fn the_dashboard_asks_for_numbers_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&shipped("grafana/redeliver.json")).expect("JSON");
    let series = there_is();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        assert_eq!(wrong(query, &series), Vec::<String>::new(), "{query}");
    }
    let mut legends = Vec::new();
    texts(&dashboard, "legendFormat", &mut legends);
    let all: BTreeSet<_> = series.values().flatten().map(String::as_str).chain(PROMETHEUS).collect();
    for name in legends.iter().flat_map(|legend| legend.split("{{").skip(1)) {
        assert!(name.split("}}").next().is_some_and(|name| all.contains(name)), "{name}");
    }
}

#[test]
fn the_panels_of_the_dashboard_stand_beside_each_other() {
    let dashboard: serde_json::Value = serde_json::from_str(&shipped("grafana/redeliver.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeMap::new();
    for panel in panels {
        let place = |name| panel["gridPos"][name].as_u64().expect("a number");
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            let at = (place("x") + x, place("y") + y);
            assert!(at.0 < 24, "{}", panel["title"]);
            assert_eq!(taken.insert(at, &panel["title"]), None, "{}", panel["title"]);
        }
        let says = |name| panel[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(says("title") && (panel["type"] == "row" || says("description")), "{}", panel["title"]);
    }
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
}

#[test]
fn the_alert_rules_ask_for_labels_that_there_are() {
    let rules: serde_yaml::Value = serde_yaml::from_str(&shipped("prometheus/redeliver.rules.yml")).expect("YAML");
    let rules = serde_json::to_value(rules).expect("as JSON");
    let series = there_is();
    let mut queries = Vec::new();
    texts(&rules, "expr", &mut queries);
    assert!(queries.len() > 6, "{queries:?}");
    for query in queries {
        assert_eq!(wrong(query, &series), Vec::<String>::new(), "{query}");
    }
}

#[test]
fn a_query_for_what_there_is_not_is_found() {
    let series = there_is();
    for (query, found) in [
        ("sum by (outcome, place) (rate(redeliver_outcomes_total{stage=\"rcpt\"}[5m]))", vec!["place"]),
        ("redeliver_mails{domain=\"a\", place=~\"b|c\"}", vec!["domain"]),
        ("redeliver_outcomes{outcome=\"failed\"}", vec!["redeliver_outcomes"]),
        ("histogram_quantile(0.99, sum by (le) (rate(redeliver_store_commit_seconds_bucket[5m])))", vec![]),
        ("time() - redeliver_oldest_mail_timestamp_seconds{instance=~\"$instance\",place!=\"spool\"}", vec![]),
    ] {
        assert_eq!(wrong(query, &series), found, "{query}");
    }
}
