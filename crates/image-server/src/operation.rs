//! The states of an operation and the one function that changes them (invariant 8 of the design).
//!
//! ```text
//!  QUEUED --start--> RUNNING --succeed--> SUCCEEDED
//!    |  ^               | \----fail-----> FAILED
//!    |  '----requeue----'  \
//!    '------cancel-------> CANCELLING --fail, cancelled--> CANCELLED
//! ```
//! A cancel that was accepted is a promise: from CANCELLING no way leads to SUCCEEDED, not even over a restart. Work
//! that was finished at that very moment is taken back. A delete cannot be cancelled, there is nothing to keep.

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Takes an image in.
    Create,
    /// Removes one.
    Delete,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Create, Self::Delete];

    /// The word in the catalog.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
        }
    }

    /// The sentence that callers see.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Create => "Create image",
            Self::Delete => "Delete image",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Where an operation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Accepted, waits for a place.
    Queued,
    /// Being worked on.
    Running,
    /// Must not succeed any more; what was done is being taken back.
    Cancelling,
    /// Done: the image is READY, or gone.
    Succeeded,
    /// Done: an error, and nothing left.
    Failed,
    /// Done: stopped on demand, and nothing left.
    Cancelled,
}

impl State {
    pub(crate) const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether nothing will change any more.
    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word in the catalog.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker takes it.
    Start,
    /// The server starts again and nobody works on it.
    Requeue,
    /// A caller wants it to stop.
    Cancel,
    /// The work is complete.
    Succeed,
    /// The work ended in an error.
    Fail,
    /// The work stopped because it was told to, and nothing of it is left.
    Stopped,
}

impl Event {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] =
        [Self::Start, Self::Requeue, Self::Cancel, Self::Succeed, Self::Fail, Self::Stopped];
}

/// An event that cannot happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a {kind:?} operation that is {state:?}")]
pub(crate) struct Refused {
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) event: Event,
}

/// The state after `event`. An event that changes nothing gives the same state.
pub(crate) fn transition(kind: Kind, state: State, event: Event) -> Result<State, Refused> {
    let next = match (kind, state, event) {
        (_, State::Queued, Event::Start) => State::Running,
        (_, State::Queued | State::Running, Event::Requeue) => State::Queued,
        (_, State::Cancelling, Event::Requeue) => State::Cancelling,
        (Kind::Create, State::Queued | State::Running | State::Cancelling, Event::Cancel) => {
            State::Cancelling
        }
        // Cancelling what has ended is no error: the caller sees how it ended.
        (_, State::Succeeded | State::Failed | State::Cancelled, Event::Cancel) => state,
        (_, State::Running, Event::Succeed) => State::Succeeded,
        (_, State::Running, Event::Fail) => State::Failed,
        // An error on the way to the end that was asked for is that end.
        (Kind::Create, State::Cancelling, Event::Fail | Event::Stopped) => State::Cancelled,
        _ => return Err(Refused { kind, state, event }),
    };
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination, row by row: the state after Start, Requeue, Cancel, Succeed, Fail, Stopped; `-` is refused.
    const TABLE: [(Kind, State, &str); 12] = [
        (Kind::Create, State::Queued, "RUNNING QUEUED CANCELLING - - -"),
        (Kind::Create, State::Running, "- QUEUED CANCELLING SUCCEEDED FAILED -"),
        (Kind::Create, State::Cancelling, "- CANCELLING CANCELLING - CANCELLED CANCELLED"),
        (Kind::Create, State::Succeeded, "- - SUCCEEDED - - -"),
        (Kind::Create, State::Failed, "- - FAILED - - -"),
        (Kind::Create, State::Cancelled, "- - CANCELLED - - -"),
        (Kind::Delete, State::Queued, "RUNNING QUEUED - - - -"),
        (Kind::Delete, State::Running, "- QUEUED - SUCCEEDED FAILED -"),
        (Kind::Delete, State::Cancelling, "- CANCELLING - - - -"),
        (Kind::Delete, State::Succeeded, "- - SUCCEEDED - - -"),
        (Kind::Delete, State::Failed, "- - FAILED - - -"),
        (Kind::Delete, State::Cancelled, "- - CANCELLED - - -"),
    ];

    #[test]
    fn the_whole_table() {
        assert_eq!(TABLE.len(), Kind::ALL.len() * State::ALL.len());
        for (kind, state, row) in TABLE {
            let expected: Vec<_> = row.split(' ').collect();
            assert_eq!(expected.len(), Event::ALL.len());
            for (event, expected) in Event::ALL.into_iter().zip(expected) {
                let found = transition(kind, state, event).map_or("-", State::word);
                assert_eq!(found, expected, "{kind:?} {state:?} {event:?}");
            }
        }
    }

    #[test]
    fn an_end_is_an_end() {
        for state in State::ALL.into_iter().filter(|state| state.is_done()) {
            for event in Event::ALL {
                for kind in Kind::ALL {
                    assert!(
                        transition(kind, state, event).is_ok_and(|next| next == state)
                            || event != Event::Cancel
                    );
                    assert!(transition(kind, state, event).is_err() || event == Event::Cancel);
                }
            }
        }
    }

    /// Whatever happens after an accepted cancel, over any number of events: never SUCCEEDED, never FAILED.
    #[test]
    fn a_cancel_is_a_promise() {
        let mut reachable = vec![State::Cancelling];
        let mut at = 0;
        while let Some(&state) = reachable.get(at) {
            for event in Event::ALL {
                match transition(Kind::Create, state, event) {
                    Ok(next) if !reachable.contains(&next) => reachable.push(next),
                    _ => {}
                }
            }
            at += 1;
        }
        assert_eq!(reachable, [State::Cancelling, State::Cancelled]);
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
}
