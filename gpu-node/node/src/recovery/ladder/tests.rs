use proptest::prelude::*;

use super::*;

const ALL: Reductions = Reductions { batch: true, preset: true };

/// The steps of a run whose every try fails in the same way.
fn climb(class: FailureClass, exact: bool, has_source: bool, can: Reductions) -> Vec<Vec<Rung>> {
    let mut ladder = Ladder::new(exact, has_source);
    let mut steps = Vec::new();
    while let Step::Again(rungs) = ladder.next(class, can) {
        steps.push(rungs);
    }
    steps
}

#[test]
fn out_of_memory_frees_and_halves_before_it_lowers_the_preset() {
    let steps = climb(FailureClass::OutOfMemory, false, false, ALL);
    let freed = vec![Rung::EmptyCache, Rung::EvictIdle, Rung::HalveBatch];
    assert_eq!(steps, [freed, vec![Rung::LowerPreset]]);
}

#[test]
fn what_cannot_be_reduced_is_passed_over() {
    let none = Reductions::default();
    assert_eq!(
        climb(FailureClass::OutOfMemory, false, false, none),
        [vec![Rung::EmptyCache, Rung::EvictIdle]]
    );
    assert!(climb(FailureClass::TimeOut, false, false, none).is_empty());
}

#[test]
fn an_exact_request_keeps_its_preset_and_may_only_take_longer() {
    let steps = climb(FailureClass::OutOfMemory, true, false, ALL);
    assert_eq!(steps.concat().last(), Some(&Rung::HalveBatch));
    assert!(climb(FailureClass::TimeOut, true, false, ALL).is_empty());
}

#[test]
fn missing_weights_are_fetched_only_where_a_source_is_known() {
    let fetched = climb(FailureClass::WeightsMissing, false, true, ALL);
    assert_eq!(fetched[0], [Rung::FetchWeights, Rung::ReloadModel]);
    assert_eq!(fetched[1][0], Rung::BackOff, "the source may be away for a moment");
    assert_eq!(climb(FailureClass::WeightsMissing, false, false, ALL), [vec![Rung::ReloadModel]]);
}

#[test]
fn what_cannot_help_is_not_tried() {
    for class in [FailureClass::BadInput, FailureClass::Bug, FailureClass::DeviceLost] {
        assert!(climb(class, false, true, ALL).is_empty(), "{class:?}");
    }
}

fn any_class() -> impl Strategy<Value = FailureClass> {
    prop_oneof![
        Just(FailureClass::OutOfMemory),
        Just(FailureClass::WeightsMissing),
        Just(FailureClass::Connection),
        Just(FailureClass::TimeOut),
        Just(FailureClass::BadInput),
        Just(FailureClass::Bug),
        Just(FailureClass::DeviceLost),
    ]
}

/// Settings as the ladder sees them: batch and preset count down to their ends.
#[derive(Debug, Clone, Copy)]
struct Toy {
    halvings_left: u8,
    presets_left: u8,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever fails in whatever order: at most three tries, no rung that is not possible or not allowed, memory
    /// rungs in their order, and the same history gives the same steps.
    #[test]
    fn every_history_of_failures_keeps_the_rules(
        exact: bool,
        has_source: bool,
        halvings in 0u8..4,
        presets in 0u8..3,
        failures in prop::collection::vec(any_class(), 1..8),
    ) {
        let mut ladder = Ladder::new(exact, has_source);
        let mut again = ladder.clone();
        let mut toy = Toy { halvings_left: halvings, presets_left: presets };
        let mut tries = 1;
        let mut emptied = false;
        for class in failures {
            let can = Reductions { batch: toy.halvings_left > 0, preset: toy.presets_left > 0 };
            let step = ladder.next(class, can);
            prop_assert_eq!(&step, &again.next(class, can), "a decision depends on its history alone");
            let Step::Again(rungs) = step else { break };
            tries += 1;
            prop_assert!(tries <= TRIES_MAX);
            prop_assert!(!rungs.is_empty(), "a step changes something");
            for rung in &rungs {
                prop_assert!(!(exact && rung.lowers_quality()));
                match rung {
                    Rung::HalveBatch => {
                        prop_assert!(toy.halvings_left > 0 && class == FailureClass::OutOfMemory);
                        toy.halvings_left -= 1;
                    }
                    Rung::LowerPreset => {
                        prop_assert!(toy.presets_left > 0);
                        let for_memory = class == FailureClass::OutOfMemory;
                        prop_assert!(!for_memory || emptied, "quality goes last");
                        prop_assert!(for_memory || class == FailureClass::TimeOut);
                        toy.presets_left -= 1;
                    }
                    Rung::EmptyCache => emptied = true,
                    Rung::EvictIdle => prop_assert_eq!(class, FailureClass::OutOfMemory),
                    Rung::FetchWeights => prop_assert!(has_source && class == FailureClass::WeightsMissing),
                    Rung::ReloadModel => prop_assert_eq!(class, FailureClass::WeightsMissing),
                    Rung::BackOff => prop_assert!(
                        matches!(class, FailureClass::Connection | FailureClass::WeightsMissing)
                    ),
                }
            }
            let helps = !matches!(class, FailureClass::BadInput | FailureClass::Bug | FailureClass::DeviceLost);
            prop_assert!(helps, "{:?} is not tried again", class);
        }
    }
}
