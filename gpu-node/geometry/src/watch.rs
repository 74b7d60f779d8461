//! How long work is followed and stopped.
//!
//! Who calls decides what an end before time is: the error of the watch goes through, and work that nobody watches
//! has [`Infallible`](std::convert::Infallible) in its place.

/// Called every few milliseconds with how much of the work is done, from 0 to 1; an error stops the work and is its
/// outcome.
pub type Watch<'w, E> = dyn FnMut(f32) -> Result<(), E> + 'w;

/// Elements of a list that are worked on between two looks: a hundred microseconds to a few milliseconds, beside
/// which a look costs nothing.
pub(crate) const ELEMENTS: usize = 1 << 13;

/// Looks before each [`ELEMENTS`]th element of `total`.
pub(crate) fn before<E>(watch: &mut Watch<'_, E>, element: usize, total: usize) -> Result<(), E> {
    if element.is_multiple_of(ELEMENTS) { watch(element as f32 / total.max(1) as f32) } else { Ok(()) }
}

/// The same watch over a part of the work.
pub(crate) fn part<'w, E>(
    watch: &'w mut Watch<'_, E>,
    from: f32,
    to: f32,
) -> impl FnMut(f32) -> Result<(), E> + 'w {
    move |done| watch(from + (to - from) * done)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Debug;

    /// Stops `work` at each of its looks, and checks that it looks `looks_min` times, that it looks no more after it
    /// was stopped, and that what it tells never falls and stays within 0 to 1.
    pub(crate) fn stops_at_each_look<T: Debug>(
        looks_min: usize,
        work: impl Fn(&mut super::Watch<'_, usize>) -> Result<T, usize>,
    ) {
        let mut told = Vec::new();
        let whole = work(&mut |done| {
            told.push(done);
            Ok(())
        });
        assert!(whole.is_ok());
        assert!(told.len() >= looks_min, "{} looks", told.len());
        assert!(told.iter().all(|done| (0.0..=1.0).contains(done)) && told.is_sorted(), "{told:?}");
        for stop_at in 1..=told.len() {
            let mut looks = 0;
            let outcome = work(&mut |_| {
                looks += 1;
                if looks >= stop_at { Err(looks) } else { Ok(()) }
            });
            assert_eq!((outcome.err(), looks), (Some(stop_at), stop_at));
        }
    }
}
