//! What the disk is believed to hold, from looks at it.
//!
//! A folder is copied or swapped while we look. So the first look is believed (there is nothing yet that it could
//! replace, and a load checks what it reads), and a change only when the next look says the same.

use std::sync::Arc;

use crate::pipeline::PipelineError;

/// What a look has found.
pub(super) type Found = Result<String, Arc<PipelineError>>;

/// Looks at one family.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<Found>,
}

impl Looks {
    /// Takes a look in; what is to be believed from now on, if that is known.
    pub(super) fn take(&mut self, found: Found) -> Option<Found> {
        let is_first = self.last.is_none();
        let is_same = self.last.as_ref().is_some_and(|last| is_same(last, &found));
        self.last = Some(found.clone());
        (is_first || is_same).then_some(found)
    }
}

fn is_same(one: &Found, other: &Found) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one == other,
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Found {
        Err(Arc::new(PipelineError::WeightsMissing("a".to_owned())))
    }

    #[test]
    fn a_change_is_believed_when_it_is_seen_twice() {
        let mut looks = Looks::default();
        assert!(matches!(looks.take(Ok("1".to_owned())), Some(Ok(version)) if version == "1"));
        assert!(looks.take(missing()).is_none(), "the moment of a swap");
        assert!(looks.take(Ok("2".to_owned())).is_none());
        assert!(looks.take(Ok("3".to_owned())).is_none());
        assert!(matches!(looks.take(Ok("3".to_owned())), Some(Ok(version)) if version == "3"));
        assert!(looks.take(missing()).is_none());
        assert!(matches!(looks.take(missing()), Some(Err(_))));
    }
}
