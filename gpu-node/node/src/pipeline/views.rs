//! Further pictures of a job's subject. The job's own picture is the front.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use orfeas_protocol::Side;

/// Encoded pictures, which have passed the upload checks, one for a side at most.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Views(Arc<[(Side, Bytes)]>);

/// A side that has two pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are two pictures of the side {0:?}")]
pub struct TwicePictured(pub Side);

impl Views {
    /// In the order of the sides.
    ///
    /// # Errors
    /// A side comes twice.
    pub fn new(mut pictures: Vec<(Side, Bytes)>) -> Result<Self, TwicePictured> {
        pictures.sort_by_key(|(side, _)| *side);
        match pictures.iter().zip(pictures.iter().skip(1)).find(|(one, next)| one.0 == next.0) {
            Some((twice, _)) => Err(TwicePictured(twice.0)),
            None => Ok(Self(pictures.into())),
        }
    }

    /// The pictures.
    pub fn pictures(&self) -> &[(Side, Bytes)] {
        &self.0
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(side, picture)| (side, picture.len()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_put_in_order_and_none_comes_twice() {
        let picture = Bytes::from_static(b"x");
        let views = Views::new(vec![(Side::Back, picture.clone()), (Side::Left, picture.clone())]).unwrap();
        assert_eq!(views.pictures()[0].0, Side::Left);
        let twice = Views::new(vec![(Side::Back, picture.clone()), (Side::Back, picture)]);
        assert_eq!(twice, Err(TwicePictured(Side::Back)));
    }
}
