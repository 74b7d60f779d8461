//! Which networks of a model are in device memory: all of them, or each in its turn.
//!
//! ```text
//! together  conditioner + denoiser + vae           loaded once
//! in turn   conditioner │ denoiser │ vae           each loaded when its stage begins, the others dropped
//! ```
//!
//! A stage takes its network from here; where the weights come from is the
//! mapped file either way, so a network that was dropped is read again from the
//! page cache at the speed of the bus.

use crate::Error;
use crate::checkpoint::{AnyDenoiser, Checkpoint};
use crate::conditioner::Conditioner;
use crate::shape_vae::ShapeVae;
use tch::{Device, Kind};

/// Which networks are in device memory at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Residence {
    /// All of them: nothing is loaded between jobs.
    #[default]
    Together,
    /// The one whose stage runs: for a device that has not room for all.
    InTurn,
}

/// The networks of a checkpoint on a device.
#[derive(Debug)]
pub struct ResidentNetworks {
    checkpoint: Checkpoint,
    target: (Device, Kind),
    residence: Residence,
    conditioner: Option<Conditioner>,
    denoiser: Option<AnyDenoiser>,
    vae: Option<ShapeVae>,
}

impl ResidentNetworks {
    /// Checks that all weights fit, and loads them where they are to stay.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn load(
        checkpoint: Checkpoint,
        device: Device,
        kind: Kind,
        residence: Residence,
    ) -> Result<Self, Error> {
        let target = (device, kind);
        let mut networks =
            Self { checkpoint, target, residence, conditioner: None, denoiser: None, vae: None };
        match residence {
            Residence::Together => {
                let all = networks.checkpoint.load(device, kind)?;
                networks.conditioner = Some(all.conditioner);
                networks.denoiser = Some(all.denoiser);
                networks.vae = Some(all.vae);
            }
            // On the CPU everything is mapped: this reads keys and shapes, and no weights.
            Residence::InTurn => drop(networks.checkpoint.load(Device::Cpu, Kind::Float)?),
        }
        Ok(networks)
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Which networks are in memory at one time.
    pub fn residence(&self) -> Residence {
        self.residence
    }

    /// Where the networks run.
    pub fn device(&self) -> Device {
        self.target.0
    }

    /// The type in which they compute.
    pub fn kind(&self) -> Kind {
        self.target.1
    }

    /// The picture encoder.
    pub fn conditioner(&mut self) -> Result<&Conditioner, Error> {
        if self.conditioner.is_none() {
            (self.denoiser, self.vae) = (None, None);
        }
        let (device, kind) = self.target;
        filled(&mut self.conditioner, || self.checkpoint.load_conditioner(device, kind))
    }

    /// The denoiser.
    pub fn denoiser(&mut self) -> Result<&AnyDenoiser, Error> {
        if self.denoiser.is_none() {
            (self.conditioner, self.vae) = (None, None);
        }
        let (device, kind) = self.target;
        filled(&mut self.denoiser, || self.checkpoint.load_denoiser(device, kind))
    }

    /// The shape decoder.
    pub fn vae(&mut self) -> Result<&ShapeVae, Error> {
        if self.vae.is_none() {
            (self.conditioner, self.denoiser) = (None, None);
        }
        let (device, kind) = self.target;
        filled(&mut self.vae, || self.checkpoint.load_vae(device, kind))
    }

    /// Drops what can be loaded again before the next job; the weights of a model that stays together stay.
    pub fn rest(&mut self) {
        if self.residence == Residence::InTurn {
            (self.conditioner, self.denoiser, self.vae) = (None, None, None);
        }
    }

    /// Names of the networks that are in memory.
    pub fn loaded(&self) -> Vec<&'static str> {
        let there = [
            ("conditioner", self.conditioner.is_some()),
            ("model", self.denoiser.is_some()),
            ("vae", self.vae.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
}

fn filled<N>(slot: &mut Option<N>, load: impl FnOnce() -> Result<N, Error>) -> Result<&N, Error> {
    let network = match slot.take() {
        Some(network) => network,
        None => load()?,
    };
    Ok(slot.insert(network))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn networks(residence: Residence) -> ResidentNetworks {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mini_checkpoint");
        ResidentNetworks::load(Checkpoint::open(&folder).unwrap(), Device::Cpu, Kind::Float, residence)
            .unwrap()
    }

    #[test]
    fn in_turn_one_network_is_in_memory_at_a_time() {
        let mut networks = networks(Residence::InTurn);
        assert_eq!(networks.loaded(), Vec::<&str>::new());
        networks.conditioner().unwrap();
        assert_eq!(networks.loaded(), ["conditioner"]);
        networks.denoiser().unwrap();
        assert_eq!(networks.loaded(), ["model"]);
        networks.vae().unwrap();
        assert_eq!(networks.loaded(), ["vae"]);
        networks.rest();
        assert_eq!(networks.loaded(), Vec::<&str>::new());
    }

    #[test]
    fn together_they_stay() {
        let mut networks = networks(Residence::Together);
        networks.vae().unwrap();
        networks.conditioner().unwrap();
        networks.rest();
        assert_eq!(networks.loaded(), ["conditioner", "model", "vae"]);
    }
}
