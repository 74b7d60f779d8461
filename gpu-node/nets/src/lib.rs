//! The networks and schedulers of the neural families.
