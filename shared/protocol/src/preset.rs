//! Quality presets: what a quality level from 1 to 10 means in steps, guidance and batch.

use serde::{Deserialize, Serialize};

/// A named bundle of generation settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Quality 5: 30 steps, guidance 7.5, batch 2.
    Fast,
    /// Quality 7: 50 steps, guidance 9.0, batch 1.
    Balanced,
    /// Quality 9: 100 steps, guidance 10.0, batch 1.
    Quality,
}

impl Preset {
    /// From the cheapest to the dearest.
    pub const ALL: [Preset; 3] = [Preset::Fast, Preset::Balanced, Preset::Quality];

    /// The nearest preset at or below a quality level; the lowest preset for levels under its own.
    pub const fn for_quality(quality: u8) -> Self {
        match quality {
            0..=6 => Preset::Fast,
            7..=8 => Preset::Balanced,
            _ => Preset::Quality,
        }
    }

    /// The quality level that the preset stands for.
    pub const fn quality(self) -> u8 {
        match self {
            Preset::Fast => 5,
            Preset::Balanced => 7,
            Preset::Quality => 9,
        }
    }

    /// Denoising steps; a family without diffusion maps them to its own effort.
    pub const fn steps(self) -> u16 {
        match self {
            Preset::Fast => 30,
            Preset::Balanced => 50,
            Preset::Quality => 100,
        }
    }

    /// Classifier-free guidance scale.
    pub const fn guidance_scale(self) -> f32 {
        match self {
            Preset::Fast => 7.5,
            Preset::Balanced => 9.0,
            Preset::Quality => 10.0,
        }
    }

    /// How many pictures of a job's subject may share one pass through a network: time against memory, for the same
    /// model. Families that look at one picture have no use for it.
    pub const fn batch(self) -> u8 {
        match self {
            Preset::Fast => 2,
            Preset::Balanced | Preset::Quality => 1,
        }
    }

    /// The next cheaper preset, if there is one: a rung of the recovery ladder.
    pub const fn lower(self) -> Option<Self> {
        match self {
            Preset::Fast => None,
            Preset::Balanced => Some(Preset::Fast),
            Preset::Quality => Some(Preset::Balanced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_levels_take_the_nearest_preset_below() {
        let presets: Vec<_> = (1..=10).map(|quality| Preset::for_quality(quality).quality()).collect();
        assert_eq!(presets, [5, 5, 5, 5, 5, 5, 7, 7, 9, 9]);
        for preset in Preset::ALL {
            assert_eq!(Preset::for_quality(preset.quality()), preset);
        }
    }
}
