//! The loaded models of a device, between the loaders that bring them and the thread that runs them.
//!
//! A model is in one pair of hands at a time: it stands here, or the inference thread has taken it out for a run. So it
//! can be brought and taken away while another one runs, and no tensor is ever touched by two threads.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ModelKey;
use super::family::Family;

type Model = Box<dyn Family + Send>;

enum Place {
    Here(Model),
    /// It runs.
    Out,
}

/// The shelf.
#[derive(Default)]
pub(super) struct Shelf {
    places: Mutex<HashMap<ModelKey, Place>>,
}

impl Shelf {
    /// Brings a model; gives the one back that was there under this key.
    pub(super) fn put(&self, key: ModelKey, model: Model) -> Option<Model> {
        match self.places().insert(key, Place::Here(model)) {
            Some(Place::Here(before)) => Some(before),
            Some(Place::Out) | None => None,
        }
    }

    /// Takes a model away for good. One that is out goes when it comes back.
    pub(super) fn remove(&self, key: &ModelKey) -> Option<Model> {
        match self.places().remove(key) {
            Some(Place::Here(model)) => Some(model),
            Some(Place::Out) | None => None,
        }
    }

    /// Takes a model out for a run.
    pub(super) fn take_out(&self, key: &ModelKey) -> Option<Model> {
        let mut places = self.places();
        let place = places.get_mut(key)?;
        match std::mem::replace(place, Place::Out) {
            Place::Here(model) => Some(model),
            Place::Out => None,
        }
    }

    /// Brings a model back from its run; gives it back if its place is gone or was taken by another one.
    pub(super) fn bring_back(&self, key: &ModelKey, model: Model) -> Option<Model> {
        match self.places().get_mut(key) {
            Some(place @ Place::Out) => {
                *place = Place::Here(model);
                None
            }
            Some(Place::Here(_)) | None => Some(model),
        }
    }

    /// What is installed, running or not.
    pub(super) fn keys(&self) -> Vec<ModelKey> {
        self.places().keys().cloned().collect()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ModelKey, Place>> {
        // No code that can panic runs under this lock; a poisoned one is as good as any.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("keys", &self.keys()).finish()
    }
}
