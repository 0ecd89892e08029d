//! Tests of the state machine, one event at a time; `model` has them in every order.

use super::*;

const EPOCH: Epoch = 3;

const EVENTS: [Event; 7] = [
    Event::Claim,
    Event::Renew(EPOCH),
    Event::Release(EPOCH),
    Event::Cancel,
    Event::Succeed(EPOCH),
    Event::Fail(EPOCH),
    Event::Stopped(EPOCH),
];

fn standing(kind: Kind, state: State, lease: Lease) -> Standing {
    Standing { kind, state, epoch: EPOCH, lease }
}

/// Every combination, row by row: the state after Claim, Renew, Release, Cancel, Succeed, Fail, Stopped; `-` is refused. The lease is
/// one that has run out: only Claim looks at it.
const TABLE: [(Kind, State, &str); 12] = [
    (Kind::Create, State::Queued, "RUNNING - - CANCELLING - - -"),
    (Kind::Create, State::Running, "RUNNING RUNNING QUEUED CANCELLING SUCCEEDED FAILED -"),
    (Kind::Create, State::Cancelling, "CANCELLING CANCELLING CANCELLING CANCELLING - CANCELLED CANCELLED"),
    (Kind::Create, State::Succeeded, "- - - SUCCEEDED - - -"),
    (Kind::Create, State::Failed, "- - - FAILED - - -"),
    (Kind::Create, State::Cancelled, "- - - CANCELLED - - -"),
    (Kind::Delete, State::Queued, "RUNNING - - - - - -"),
    (Kind::Delete, State::Running, "RUNNING RUNNING QUEUED - SUCCEEDED FAILED -"),
    (Kind::Delete, State::Cancelling, "CANCELLING CANCELLING CANCELLING - - - -"),
    (Kind::Delete, State::Succeeded, "- - - SUCCEEDED - - -"),
    (Kind::Delete, State::Failed, "- - - FAILED - - -"),
    (Kind::Delete, State::Cancelled, "- - - CANCELLED - - -"),
];

#[test]
fn the_whole_table() {
    assert_eq!(TABLE.len(), Kind::ALL.len() * State::ALL.len());
    for (kind, state, row) in TABLE {
        let expected: Vec<_> = row.split(' ').collect();
        assert_eq!(expected.len(), EVENTS.len());
        for (event, expected) in EVENTS.into_iter().zip(expected) {
            let found = transition(standing(kind, state, Lease::RunOut), event);
            assert_eq!(found.map_or("-", |next| next.state.word()), expected, "{kind:?} {state:?} {event:?}");
        }
    }
}

#[test]
fn a_lease_that_is_held_is_not_given_to_another() {
    for kind in Kind::ALL {
        for state in State::ALL {
            assert!(
                transition(standing(kind, state, Lease::Held), Event::Claim).is_err(),
                "{kind:?} {state:?}"
            );
        }
        let taken = transition(standing(kind, State::Running, Lease::RunOut), Event::Claim).unwrap();
        assert_eq!((taken.epoch, taken.lease), (EPOCH + 1, Lease::Held));
    }
}

#[test]
fn whoever_works_in_another_epoch_changes_nothing() {
    for kind in Kind::ALL {
        for state in State::ALL {
            for lease in [Lease::Free, Lease::Held, Lease::RunOut] {
                for event in EVENTS.into_iter().filter(|event| event.epoch().is_some()) {
                    let now = Standing { epoch: EPOCH + 1, ..standing(kind, state, lease) };
                    let lost = Err(Refused::LeaseLost { held: EPOCH, current: EPOCH + 1 });
                    assert_eq!(transition(now, event), lost, "{now:?} {event:?}");
                }
            }
        }
    }
}

#[test]
fn whoever_hands_back_writes_nothing_any_more() {
    for state in [State::Running, State::Cancelling] {
        let back = transition(standing(Kind::Create, state, Lease::Held), Event::Release(EPOCH)).unwrap();
        assert_eq!(back.lease, Lease::Free);
        for event in EVENTS.into_iter().filter(|event| event.epoch().is_some()) {
            assert!(matches!(transition(back, event), Err(Refused::LeaseLost { .. })), "{event:?}");
        }
    }
}

#[test]
fn an_end_is_an_end() {
    for state in State::ALL.into_iter().filter(|state| state.is_done()) {
        for kind in Kind::ALL {
            for event in EVENTS {
                let now = standing(kind, state, Lease::Free);
                match transition(now, event) {
                    Ok(next) => assert_eq!((next, event), (now, Event::Cancel)),
                    Err(_) => assert_ne!(event, Event::Cancel),
                }
            }
        }
    }
}

#[test]
fn words_come_back() {
    for state in State::ALL {
        assert_eq!(State::from_word(state.word()), Some(state));
    }
    for kind in Kind::ALL {
        assert_eq!(Kind::from_word(kind.word()), Some(kind));
    }
    assert_eq!(State::from_word("DONE"), None);
}
