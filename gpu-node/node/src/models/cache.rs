//! Which models are loaded, as a plain state machine: told what is on the disk, who wants what and how loads end, it
//! says what to load and what to remove.
//!
//! ```text
//!  absent ─▶ loading ─▶ ready (leased n) ─▶ draining ─▶ removing ─▶ absent
//!               │         ▲ a version that takes over      ▲
//!               └▶ failed, tried again after a while       └── evicted, when nobody has it
//! ```
//! A family serves one version, its *current* one. Another version on the disk is loaded beside it and takes over when
//! it is ready; the old one drains: it goes when the last job that has it ends. A load that fails changes nothing of
//! what serves.
//!
//! Time is passed in, as the span since some fixed moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::{ModelKey, PipelineError};

/// The first wait after a failed load; it doubles with each failure of the same version.
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// The longest wait: an operator who has freed memory elsewhere does not wait for an hour.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What to do outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Load this; then call [`Cache::loaded`] or [`Cache::load_failed`].
    Load(ModelKey),
    /// Remove this; then call [`Cache::removed`].
    Remove(ModelKey),
}

/// The answer to somebody who wants a model.
#[derive(Debug, Clone)]
pub(crate) enum Lease {
    /// It is loaded and stays so until [`Cache::release`].
    Ready(ModelKey),
    /// It will be loaded: ask again when something has changed.
    Wait,
    /// It cannot be loaded now.
    Failed {
        error: Arc<PipelineError>,
        /// When it is tried again, if it is.
        retry_in: Option<Duration>,
    },
    /// There is no such family.
    Unknown,
}

/// How a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Loading,
    Ready,
    /// Another version has taken over, or it was unloaded: jobs that have it end on it.
    Draining,
    /// Nobody has it; its memory is being given back.
    Removing,
}

/// One version of a family.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Duration,
    pub(crate) leases: usize,
    pub(crate) last_used: Duration,
    /// Zero until it is loaded.
    pub(crate) resident_bytes: u64,
    /// How long the load itself took, without the wait for room.
    pub(crate) load_time: Duration,
    /// Whether somebody outside is at it.
    is_told: bool,
}

/// A version that did not load.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) version: String,
    pub(crate) error: Arc<PipelineError>,
    pub(crate) tries: u32,
    pub(crate) at: Duration,
    pub(crate) retry_at: Duration,
}

/// What is known of a family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// What the disk holds, or why it holds nothing that can be used; `None` = nobody has looked yet.
    pub(crate) on_disk: Option<Result<String, Arc<PipelineError>>>,
    /// The version that new jobs get.
    pub(crate) current: Option<String>,
    pub(crate) models: BTreeMap<String, Model>,
    pub(crate) failure: Option<Failure>,
    /// Never evicted, and loaded as soon as it can be.
    is_pinned: bool,
    /// Somebody waits for it.
    is_wanted: bool,
    /// Unloaded on demand: stays away until somebody wants it.
    is_paused: bool,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Cache {
    families: BTreeMap<String, Family>,
    keep_alive: Duration,
}

impl Cache {
    /// For these families. `keep_alive` protects a model from eviction after its last use.
    pub(crate) fn new(families: impl IntoIterator<Item = String>, keep_alive: Duration) -> Self {
        let families = families.into_iter().map(|name| (name, Family::default())).collect();
        Self { families, keep_alive }
    }

    /// Keeps a family loaded.
    pub(crate) fn pin(&mut self, family: &str) {
        if let Some(family) = self.families.get_mut(family) {
            family.is_pinned = true;
        }
    }

    /// Has the version on the disk loaded, if it is not. A version that failed before is tried again at once.
    /// `false` for a family that is not known.
    pub(crate) fn want(&mut self, family: &str) -> bool {
        let Some(family) = self.families.get_mut(family) else { return false };
        family.wish();
        family.failure = None;
        true
    }

    /// Notes what the disk holds.
    pub(crate) fn seen(&mut self, family: &str, on_disk: Result<String, Arc<PipelineError>>) {
        if let Some(family) = self.families.get_mut(family) {
            family.on_disk = Some(on_disk);
        }
    }

    /// Takes a lease. With `version`, on that version if it is still there: a job that is tried again keeps its own.
    pub(crate) fn lease(&mut self, name: &str, version: Option<&str>, now: Duration) -> Lease {
        let Some(family) = self.families.get_mut(name) else { return Lease::Unknown };
        let kept = version.filter(|version| family.models.get(*version).is_some_and(Model::is_usable));
        let version = kept.map(str::to_owned).or_else(|| family.current.clone());
        if let Some(version) = version
            && let Some(model) = family.models.get_mut(&version)
        {
            model.leases += 1;
            model.last_used = now;
            return Lease::Ready(ModelKey::new(name, version));
        }
        match &family.on_disk {
            Some(Err(error)) => Lease::Failed { error: error.clone(), retry_in: None },
            Some(Ok(version)) => match family.failure_of(version).filter(|failure| now < failure.retry_at) {
                Some(failure) => Lease::Failed {
                    error: failure.error.clone(),
                    retry_in: Some(failure.retry_at.saturating_sub(now)),
                },
                None => {
                    family.wish();
                    Lease::Wait
                }
            },
            None => {
                family.wish();
                Lease::Wait
            }
        }
    }

    /// Gives a lease back.
    pub(crate) fn release(&mut self, key: &ModelKey, now: Duration) {
        if let Some(model) = self.model_mut(key) {
            model.leases = model.leases.saturating_sub(1);
            model.last_used = now;
            model.settle(now);
        }
    }

    /// A load has ended well: the version takes over.
    pub(crate) fn loaded(&mut self, key: &ModelKey, resident_bytes: u64, load_time: Duration, now: Duration) {
        let Some(family) = self.families.get_mut(&key.family) else { return };
        let Some(model) = family.models.get_mut(&key.version) else { return };
        model.load_time = load_time;
        model.resident_bytes = resident_bytes;
        model.last_used = now;
        family.take_over(&key.version, now);
        family.failure = None;
        family.is_wanted = false;
        if family.is_paused {
            family.retire(now);
        }
    }

    /// A load has failed: what serves goes on serving.
    pub(crate) fn load_failed(&mut self, key: &ModelKey, error: Arc<PipelineError>, now: Duration) {
        let Some(family) = self.families.get_mut(&key.family) else { return };
        family.models.remove(&key.version);
        let tries = family.failure_of(&key.version).map_or(0, |failure| failure.tries) + 1;
        let backoff = BACKOFF_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(BACKOFF_MAX);
        let version = key.version.clone();
        family.failure = Some(Failure { version, error, tries, at: now, retry_at: now + backoff });
        family.is_wanted = false;
    }

    /// A removal is done.
    pub(crate) fn removed(&mut self, key: &ModelKey) {
        if let Some(family) = self.families.get_mut(&key.family) {
            family.models.remove(&key.version);
        }
    }

    /// Takes the current version out of service, until somebody wants the family again. `false` when none is loaded.
    pub(crate) fn unload(&mut self, family: &str, now: Duration) -> bool {
        let Some(family) = self.families.get_mut(family) else { return false };
        family.is_wanted = false;
        family.is_paused = true;
        family.retire(now)
    }

    /// Makes room: idle models that go, the least recently used first, until they free `bytes`. None at all when
    /// that is more than they have. The caller removes them, then calls [`Self::removed`].
    pub(crate) fn evict(&mut self, bytes: u64, now: Duration) -> Vec<(ModelKey, u64)> {
        let mut idle: Vec<(Duration, ModelKey, u64)> = Vec::new();
        for (name, family) in &self.families {
            for (version, model) in family.models.iter().filter(|_| !family.is_pinned) {
                let is_old = now.saturating_sub(model.last_used) >= self.keep_alive;
                if model.phase == Phase::Ready && model.leases == 0 && model.resident_bytes > 0 && is_old {
                    idle.push((model.last_used, ModelKey::new(name, version), model.resident_bytes));
                }
            }
        }
        if idle.iter().map(|(_, _, bytes)| bytes).sum::<u64>() < bytes {
            return Vec::new();
        }
        idle.sort();
        let mut evicted = Vec::new();
        let mut freed = 0;
        for (_, key, resident_bytes) in idle {
            if freed >= bytes {
                break;
            }
            freed += resident_bytes;
            if let Some(family) = self.families.get_mut(&key.family) {
                family.retire(now);
            }
            if let Some(model) = self.model_mut(&key) {
                model.is_told = true;
            }
            evicted.push((key, resident_bytes));
        }
        evicted
    }

    /// What is to be done now; each thing is said once.
    pub(crate) fn effects(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (name, family) in &mut self.families {
            family.plan(now);
            for (version, model) in family.models.iter_mut().filter(|(_, model)| !model.is_told) {
                let key = ModelKey::new(name, version);
                match model.phase {
                    Phase::Loading => effects.push(Effect::Load(key)),
                    Phase::Removing => effects.push(Effect::Remove(key)),
                    Phase::Ready | Phase::Draining => continue,
                }
                model.is_told = true;
            }
        }
        effects
    }

    /// The families, by name.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&String, &Family)> {
        self.families.iter()
    }

    /// A family.
    pub(crate) fn family(&self, name: &str) -> Option<&Family> {
        self.families.get(name)
    }

    fn model_mut(&mut self, key: &ModelKey) -> Option<&mut Model> {
        self.families.get_mut(&key.family)?.models.get_mut(&key.version)
    }
}

impl Family {
    /// Whether a load is wanted and nothing stands in its way.
    fn plan(&mut self, now: Duration) {
        let Some(Ok(version)) = self.on_disk.clone() else { return };
        if self.current.as_ref() == Some(&version) {
            self.is_wanted = false;
            return;
        }
        match self.models.get(&version).map(|model| model.phase) {
            // It has come back before it was gone.
            Some(Phase::Draining) if self.current.is_some() || self.should_be_loaded() => {
                self.take_over(&version, now);
            }
            Some(_) => {}
            None => {
                let one_loads = self.models.values().any(|model| model.phase == Phase::Loading);
                let is_due = self.failure_of(&version).is_none_or(|failure| now >= failure.retry_at);
                if !one_loads && is_due && (self.current.is_some() || self.should_be_loaded()) {
                    self.models.insert(version, Model::loading(now));
                }
            }
        }
    }

    fn should_be_loaded(&self) -> bool {
        self.is_wanted || (self.is_pinned && !self.is_paused)
    }

    fn wish(&mut self) {
        self.is_wanted = true;
        self.is_paused = false;
    }

    fn failure_of(&self, version: &str) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| failure.version == version)
    }

    /// A version serves from now on, and the one that did so far drains.
    fn take_over(&mut self, version: &str, now: Duration) {
        self.retire(now);
        if let Some(model) = self.models.get_mut(version) {
            model.enter(Phase::Ready, now);
            self.current = Some(version.to_owned());
        }
    }

    /// No version serves from now on. Whether one did.
    fn retire(&mut self, now: Duration) -> bool {
        let Some(version) = self.current.take() else { return false };
        if let Some(model) = self.models.get_mut(&version) {
            model.enter(Phase::Draining, now);
            model.settle(now);
        }
        true
    }
}

impl Model {
    fn loading(now: Duration) -> Self {
        Self {
            phase: Phase::Loading,
            since: now,
            leases: 0,
            last_used: now,
            resident_bytes: 0,
            load_time: Duration::ZERO,
            is_told: false,
        }
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.since = now;
        self.is_told = false;
    }

    /// Whether jobs can run on it.
    fn is_usable(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Draining)
    }

    /// A drained model that nobody has goes.
    fn settle(&mut self, now: Duration) {
        if self.phase == Phase::Draining && self.leases == 0 {
            self.enter(Phase::Removing, now);
        }
    }
}

#[cfg(test)]
mod tests;
