use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::*;

const FAMILIES: [&str; 2] = ["a", "b"];
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const BYTES: u64 = 100;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache() -> Cache {
    Cache::new(FAMILIES.map(str::to_owned), KEEP_ALIVE)
}

fn key(version: &str) -> ModelKey {
    ModelKey::new("a", version)
}

fn failure() -> Arc<PipelineError> {
    Arc::new(PipelineError::OutOfMemory("scripted".to_owned()))
}

fn leased(cache: &mut Cache, version: Option<&str>, now: Duration) -> ModelKey {
    match cache.lease("a", version, now) {
        Lease::Ready(key) => key,
        other => panic!("{other:?}"),
    }
}

/// With version 1 on the disk and loaded.
fn warm() -> Cache {
    let mut cache = cache();
    cache.seen("a", Ok("1".to_owned()));
    assert!(matches!(cache.lease("a", None, secs(0)), Lease::Wait));
    assert_eq!(cache.effects(secs(0)), [Effect::Load(key("1"))]);
    cache.loaded(&key("1"), BYTES, secs(2), secs(3));
    cache
}

#[test]
fn many_who_want_a_model_load_it_once() {
    let mut cache = cache();
    assert!(matches!(cache.lease("a", None, secs(0)), Lease::Wait), "nobody has looked at the disk yet");
    assert_eq!(cache.effects(secs(0)), []);
    cache.seen("a", Ok("1".to_owned()));
    assert_eq!(cache.effects(secs(0)), [Effect::Load(key("1"))]);
    for _ in 0..3 {
        assert!(matches!(cache.lease("a", None, secs(1)), Lease::Wait));
        assert_eq!(cache.effects(secs(1)), []);
    }
    cache.loaded(&key("1"), BYTES, secs(2), secs(3));
    assert_eq!(leased(&mut cache, None, secs(3)), key("1"));
    let model = &cache.family("a").unwrap().models["1"];
    assert_eq!((model.load_time, model.leases), (secs(2), 1));
    assert!(matches!(cache.lease("c", None, secs(3)), Lease::Unknown));
}

#[test]
fn a_new_version_takes_over_when_it_is_ready_and_the_old_one_goes_with_its_last_job() {
    let mut cache = warm();
    let first = leased(&mut cache, None, secs(4));
    cache.seen("a", Ok("2".to_owned()));
    assert_eq!(cache.effects(secs(5)), [Effect::Load(key("2"))]);
    assert_eq!(leased(&mut cache, None, secs(6)), key("1"), "the old one serves until then");
    cache.loaded(&key("2"), BYTES, secs(2), secs(7));
    assert_eq!(leased(&mut cache, None, secs(8)), key("2"));
    assert_eq!(leased(&mut cache, Some("1"), secs(8)), key("1"), "a job that is tried again keeps its own");
    cache.release(&first, secs(9));
    cache.release(&first, secs(9));
    assert_eq!(cache.effects(secs(9)), []);
    cache.release(&first, secs(9));
    assert_eq!(cache.effects(secs(9)), [Effect::Remove(key("1"))]);
    assert_eq!(leased(&mut cache, Some("1"), secs(9)), key("2"), "it is not there any more");
}

#[test]
fn a_failed_load_leaves_the_working_version_alone_and_is_tried_again_later() {
    let mut cache = warm();
    cache.seen("a", Ok("2".to_owned()));
    assert_eq!(cache.effects(secs(5)), [Effect::Load(key("2"))]);
    cache.load_failed(&key("2"), failure(), secs(6));
    assert_eq!(leased(&mut cache, None, secs(6)), key("1"));
    assert_eq!(cache.effects(secs(10)), []);
    assert_eq!(cache.effects(secs(11)), [Effect::Load(key("2"))]);
    cache.load_failed(&key("2"), failure(), secs(12));
    assert_eq!(cache.effects(secs(21)), [], "the wait doubles");
    assert_eq!(cache.effects(secs(22)), [Effect::Load(key("2"))]);
    cache.load_failed(&key("2"), failure(), secs(23));
    cache.seen("a", Ok("3".to_owned()));
    assert_eq!(cache.effects(secs(23)), [Effect::Load(key("3"))], "another version is another matter");
}

#[test]
fn who_wants_a_model_that_does_not_load_is_told_so_until_it_is_time() {
    let mut cache = cache();
    cache.seen("a", Ok("1".to_owned()));
    cache.want("a");
    assert_eq!(cache.effects(secs(0)), [Effect::Load(key("1"))]);
    cache.load_failed(&key("1"), failure(), secs(1));
    match cache.lease("a", None, secs(2)) {
        Lease::Failed { retry_in, .. } => assert_eq!(retry_in, Some(secs(4))),
        other => panic!("{other:?}"),
    }
    assert_eq!(cache.effects(secs(60)), [], "nobody wants it any more");
    assert!(matches!(cache.lease("a", None, secs(60)), Lease::Wait));
    assert_eq!(cache.effects(secs(60)), [Effect::Load(key("1"))]);
    cache.load_failed(&key("1"), failure(), secs(61));
    assert!(cache.want("a"), "an operator does not wait");
    assert_eq!(cache.effects(secs(61)), [Effect::Load(key("1"))]);
    cache.seen("b", Err(failure()));
    assert!(matches!(cache.lease("b", None, secs(2)), Lease::Failed { retry_in: None, .. }));
}

#[test]
fn weights_that_vanish_from_the_disk_serve_on() {
    let mut cache = warm();
    cache.seen("a", Err(failure()));
    assert_eq!(leased(&mut cache, None, secs(5)), key("1"));
}

#[test]
fn room_is_made_of_what_is_idle_for_long_enough_and_only_if_that_helps() {
    let mut cache = warm();
    let lease = leased(&mut cache, None, secs(4));
    assert_eq!(cache.evict(1, secs(60)), [], "it is leased");
    cache.release(&lease, secs(60));
    assert_eq!(cache.evict(1, secs(69)), [], "it was used a moment ago");
    assert_eq!(cache.evict(BYTES + 1, secs(70)), [], "it would not be enough");
    assert_eq!(cache.evict(1, secs(70)), [(key("1"), BYTES)]);
    assert_eq!(cache.effects(secs(70)), [], "who evicts removes");
    assert!(matches!(cache.lease("a", None, secs(71)), Lease::Wait));
    assert_eq!(cache.effects(secs(71)), [], "not while it is being removed");
    cache.removed(&key("1"));
    assert_eq!(cache.effects(secs(72)), [Effect::Load(key("1"))]);
}

#[test]
fn a_pinned_family_is_loaded_at_once_and_stays_unless_an_operator_says_otherwise() {
    let mut cache = cache();
    cache.pin("a");
    cache.seen("a", Ok("1".to_owned()));
    assert_eq!(cache.effects(secs(0)), [Effect::Load(key("1"))]);
    cache.loaded(&key("1"), BYTES, secs(2), secs(1));
    assert_eq!(cache.evict(1, secs(1_000)), []);
    assert!(cache.unload("a", secs(1_000)));
    assert_eq!(cache.effects(secs(1_000)), [Effect::Remove(key("1"))]);
    cache.removed(&key("1"));
    assert_eq!(cache.effects(secs(1_001)), []);
    cache.want("a");
    assert_eq!(cache.effects(secs(1_002)), [Effect::Load(key("1"))]);
    assert!(!cache.unload("a", secs(1_003)), "it is not loaded yet");
    cache.loaded(&key("1"), BYTES, secs(2), secs(1_004));
    assert_eq!(cache.effects(secs(1_004)), [Effect::Remove(key("1"))], "nobody wants it any more");
}

#[test]
fn a_version_that_comes_back_while_it_drains_serves_again() {
    let mut cache = warm();
    let lease = leased(&mut cache, None, secs(4));
    cache.seen("a", Ok("2".to_owned()));
    assert_eq!(cache.effects(secs(5)), [Effect::Load(key("2"))]);
    cache.loaded(&key("2"), BYTES, secs(2), secs(6));
    cache.seen("a", Ok("1".to_owned()));
    assert_eq!(cache.effects(secs(7)), [Effect::Remove(key("2"))]);
    assert_eq!(leased(&mut cache, None, secs(7)), lease);
}

#[derive(Debug, Clone)]
enum Step {
    Lease { family: usize, version: Option<u8> },
    Release(usize),
    Loaded(usize),
    LoadFailed(usize),
    Removed(usize),
    Seen { family: usize, version: Option<u8> },
    Want(usize),
    Unload(usize),
    Evict(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let family = 0..FAMILIES.len();
    let version = prop_oneof![1 => Just(None), 3 => (0..3u8).prop_map(Some)];
    let step = prop_oneof![
        6 => (family.clone(), version.clone()).prop_map(|(family, version)| Step::Lease { family, version }),
        4 => (0..8usize).prop_map(Step::Release),
        5 => (0..4usize).prop_map(Step::Loaded),
        1 => (0..4usize).prop_map(Step::LoadFailed),
        3 => (0..4usize).prop_map(Step::Removed),
        3 => (family.clone(), version).prop_map(|(family, version)| Step::Seen { family, version }),
        1 => family.clone().prop_map(Step::Want),
        1 => family.prop_map(Step::Unload),
        2 => (1..=2 * BYTES).prop_map(Step::Evict),
        3 => (0..20u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

/// What an engine sees: which models it holds, which are on their way, who runs on what.
#[derive(Default)]
struct Outside {
    loading: Vec<ModelKey>,
    installed: BTreeSet<ModelKey>,
    removing: Vec<ModelKey>,
    leases: Vec<ModelKey>,
    /// The version that took over last, while it serves.
    serving: BTreeMap<String, String>,
    last_used: BTreeMap<ModelKey, Duration>,
}

impl Outside {
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Load(key) => {
                    let twice = self.installed.contains(&key)
                        || self.loading.iter().any(|loading| loading.family == key.family);
                    prop_assert!(!twice, "{} is loaded twice", key);
                    self.loading.push(key);
                }
                Effect::Remove(key) => self.remove(key)?,
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: ModelKey) -> Result<(), TestCaseError> {
        prop_assert!(!self.leases.contains(&key), "{} is leased and removed", key);
        prop_assert!(self.installed.contains(&key), "{} is removed and was not there", key);
        prop_assert!(!self.removing.contains(&key), "{} is removed twice", key);
        self.removing.push(key);
        Ok(())
    }

    fn lease(&mut self, key: ModelKey, now: Duration) -> Result<(), TestCaseError> {
        prop_assert!(self.installed.contains(&key) && !self.removing.contains(&key), "{} is not there", key);
        self.last_used.insert(key.clone(), now);
        self.leases.push(key);
        Ok(())
    }
}

/// The version that `Option` stands for, in the words of a lease.
fn named(version: Option<u8>) -> Option<String> {
    version.map(|version| version.to_string())
}

/// What a cache could do wrong, to see that [`check`] notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    LoadsTwice,
    LosesALease,
    RemovesWhatIsLeased,
}

/// Holds a cache to what an engine sees of it.
fn check(steps: Vec<Step>, fault: Option<Fault>) -> Result<(), TestCaseError> {
    let mut cache = cache();
    cache.pin("b");
    let mut outside = Outside::default();
    let mut now = secs(0);
    for step in steps {
        match step {
            Step::Lease { family, version } => {
                let (name, version) = (FAMILIES[family], named(version));
                if let Lease::Ready(key) = cache.lease(name, version.as_deref(), now) {
                    let serving = outside.serving.get(name);
                    let is_own = version.as_ref() == Some(&key.version);
                    prop_assert!(is_own || serving == Some(&key.version), "{} for {:?}", key, serving);
                    outside.lease(key, now)?;
                }
            }
            Step::Release(which) if which < outside.leases.len() => {
                let key = outside.leases.swap_remove(which);
                if fault != Some(Fault::LosesALease) {
                    cache.release(&key, now);
                }
                outside.last_used.insert(key, now);
            }
            Step::Loaded(which) if which < outside.loading.len() => {
                let key = outside.loading.swap_remove(which);
                outside.installed.insert(key.clone());
                outside.serving.insert(key.family.clone(), key.version.clone());
                outside.last_used.insert(key.clone(), now);
                cache.loaded(&key, BYTES, secs(2), now);
                let current = cache.family(&key.family).and_then(|family| family.current.clone());
                prop_assert!(current.is_none_or(|version| version == key.version), "it did not take over");
            }
            Step::LoadFailed(which) if which < outside.loading.len() => {
                let key = outside.loading.swap_remove(which);
                let before = cache.family(&key.family).and_then(|family| family.current.clone());
                cache.load_failed(&key, failure(), now);
                let after = cache.family(&key.family).and_then(|family| family.current.clone());
                prop_assert_eq!(before, after, "a failed load replaced a version");
            }
            Step::Removed(which) if which < outside.removing.len() => {
                let key = outside.removing.swap_remove(which);
                outside.installed.remove(&key);
                cache.removed(&key);
            }
            Step::Seen { family, version } => {
                cache.seen(FAMILIES[family], named(version).ok_or_else(failure));
            }
            Step::Want(family) => prop_assert!(cache.want(FAMILIES[family])),
            Step::Unload(family) => {
                cache.unload(FAMILIES[family], now);
            }
            Step::Evict(bytes) => {
                let evicted = cache.evict(bytes, now);
                let freed: u64 = evicted.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(evicted.is_empty() || freed >= bytes, "{} for {}", freed, bytes);
                for (key, _) in evicted {
                    prop_assert_ne!(&key.family, "b", "it is pinned");
                    prop_assert!(now - outside.last_used[&key] >= KEEP_ALIVE, "{} was in use", key);
                    outside.remove(key)?;
                }
            }
            Step::Wait(seconds) => now += secs(seconds),
            Step::Release(_) | Step::Loaded(_) | Step::LoadFailed(_) | Step::Removed(_) => {}
        }
        // An unloaded or evicted version serves nobody any more; what comes next is a load's business. A version that
        // returned while it drained serves again without one.
        let effects = cache.effects(now);
        match fault {
            Some(Fault::LoadsTwice) => outside.carry_out(effects.clone())?,
            Some(Fault::RemovesWhatIsLeased) => {
                outside
                    .carry_out(outside.leases.first().cloned().map(Effect::Remove).into_iter().collect())?;
            }
            Some(Fault::LosesALease) | None => {}
        }
        outside.carry_out(effects)?;
        for (name, family) in cache.families() {
            match &family.current {
                Some(version) => outside.serving.insert(name.clone(), version.clone()),
                None => outside.serving.remove(name),
            };
            let serving = family.current.as_ref().map(|version| ModelKey::new(name, version));
            prop_assert!(serving.is_none_or(|key| outside.installed.contains(&key)), "it is not ready");
            for (version, model) in &family.models {
                let key = ModelKey::new(name, version);
                let leases = outside.leases.iter().filter(|leased| **leased == key).count();
                prop_assert_eq!(model.leases, leases, "leases of {}", key);
            }
        }
    }
    // Once everybody has gone, one version of each family is left at most.
    for key in std::mem::take(&mut outside.leases) {
        cache.release(&key, now);
    }
    for key in std::mem::take(&mut outside.loading) {
        outside.installed.insert(key.clone());
        cache.loaded(&key, BYTES, secs(2), now);
    }
    for name in FAMILIES {
        cache.seen(name, Err(failure()));
    }
    outside.carry_out(cache.effects(now))?;
    for key in std::mem::take(&mut outside.removing) {
        outside.installed.remove(&key);
        cache.removed(&key);
    }
    for name in FAMILIES {
        let left = outside.installed.iter().filter(|key| key.family == name).count();
        prop_assert!(left <= 1, "{} versions of {} are left", left, name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    #[test]
    fn no_history_loads_twice_evicts_what_is_leased_or_loses_a_lease(steps in steps()) {
        check(steps, None)?;
    }
}

#[test]
fn a_cache_that_goes_wrong_is_found_out() {
    for fault in [Fault::LoadsTwice, Fault::LosesALease, Fault::RemovesWhatIsLeased] {
        let found = TestRunner::deterministic().run(&steps(), |steps| check(steps, Some(fault)));
        assert!(matches!(found, Err(TestError::Fail(..))), "{fault:?} was not noticed");
    }
}
