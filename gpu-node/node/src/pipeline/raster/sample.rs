//! What can be averaged: single values and vectors of them.

/// A sample that filters can add and scale.
pub(crate) trait Sample: Copy + Send + Sync {
    const ZERO: Self;
    fn add(self, other: Self) -> Self;
    fn scale(self, factor: f32) -> Self;

    fn lerp(self, other: Self, t: f32) -> Self {
        self.scale(1.0 - t).add(other.scale(t))
    }
}

impl Sample for f32 {
    const ZERO: f32 = 0.0;

    fn add(self, other: f32) -> f32 {
        self + other
    }

    fn scale(self, factor: f32) -> f32 {
        self * factor
    }
}

impl<const N: usize> Sample for [f32; N] {
    const ZERO: [f32; N] = [0.0; N];

    fn add(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a += b;
        }
        self
    }

    fn scale(mut self, factor: f32) -> Self {
        for a in &mut self {
            *a *= factor;
        }
        self
    }
}
