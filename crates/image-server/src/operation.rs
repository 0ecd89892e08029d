//! The states of an operation, the lease on it, and the one function that changes them (invariant 8 of the design).
//!
//! ```text
//!  QUEUED --claim--> RUNNING --succeed--> SUCCEEDED
//!    |  ^             |  ^ \----fail-----> FAILED
//!    |  '---release---'  '-- claim, when the lease has run out
//!    '------cancel-------> CANCELLING --fail, stopped--> CANCELLED
//! ```
//! A cancel that was accepted is a promise: from CANCELLING no way leads to SUCCEEDED, whoever works on it. Work that was finished
//! at that very moment is taken back. A delete cannot be cancelled, there is nothing to keep.
//!
//! Whoever claims an operation gets the next *epoch*, and every event of a worker names the epoch that it works in. One that is not
//! the operation's is refused: a worker that slept through the end of its lease can write nothing any more, however late it wakes. A
//! lease that has run out and that nobody else has taken can still be renewed. Whether a lease has run out is for the database's
//! clock to say; [`Lease`] is its answer.

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Whether somebody may be working on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lease {
    /// Nobody is.
    Free,
    /// Somebody is.
    Held,
    /// Somebody was, and has not been heard of for as long as the lease was.
    RunOut,
}

/// Counts the leases of one operation.
pub(crate) type Epoch = i64;

/// All that decides about the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Standing {
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// Of the latest lease; 0 where there was none.
    pub(crate) epoch: Epoch,
    pub(crate) lease: Lease,
}

/// What happens to an operation. What a worker does names the epoch of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A worker takes it.
    Claim,
    /// Its worker is still there; also whatever it writes beside the state of the operation.
    Renew(Epoch),
    /// Its worker hands it back, to stop.
    Release(Epoch),
    /// A caller wants it to stop.
    Cancel,
    /// The work is complete.
    Succeed(Epoch),
    /// The work ended in an error.
    Fail(Epoch),
    /// The work stopped because it was told to.
    Stopped(Epoch),
}

impl Event {
    const fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Claim | Self::Cancel => None,
            Self::Renew(epoch)
            | Self::Release(epoch)
            | Self::Succeed(epoch)
            | Self::Fail(epoch)
            | Self::Stopped(epoch) => Some(epoch),
        }
    }
}

/// An event that cannot happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Not in this state.
    #[error("{event:?} cannot happen to a {kind:?} operation that is {state:?}")]
    State { kind: Kind, state: State, event: Event },
    /// Not by a worker of this epoch: another one has the operation.
    #[error("the lease of epoch {held} is lost, the operation is in epoch {current}")]
    LeaseLost { held: Epoch, current: Epoch },
}

/// What `event` makes of an operation. An event that changes nothing gives the same.
pub(crate) fn transition(now: Standing, event: Event) -> Result<Standing, Refused> {
    let Standing { kind, state, epoch, lease } = now;
    if let Some(held) = event.epoch().filter(|held| *held != epoch) {
        return Err(Refused::LeaseLost { held, current: epoch });
    }
    let (state, lease) = match (kind, state, event) {
        (_, State::Queued | State::Running, Event::Claim) if lease != Lease::Held => {
            (State::Running, Lease::Held)
        }
        (_, State::Cancelling, Event::Claim) if lease != Lease::Held => (state, Lease::Held),
        (_, State::Running | State::Cancelling, Event::Renew(_)) => (state, Lease::Held),
        (_, State::Running, Event::Release(_)) => (State::Queued, Lease::Free),
        (_, State::Cancelling, Event::Release(_)) => (state, Lease::Free),
        (Kind::Create, State::Queued | State::Running | State::Cancelling, Event::Cancel) => {
            (State::Cancelling, lease)
        }
        // Cancelling what has ended is no error: the caller sees how it ended.
        (_, State::Succeeded | State::Failed | State::Cancelled, Event::Cancel) => (state, lease),
        (_, State::Running, Event::Succeed(_)) => (State::Succeeded, Lease::Free),
        (_, State::Running, Event::Fail(_)) => (State::Failed, Lease::Free),
        // An error on the way to the end that was asked for is that end.
        (Kind::Create, State::Cancelling, Event::Fail(_) | Event::Stopped(_)) => {
            (State::Cancelled, Lease::Free)
        }
        _ => return Err(Refused::State { kind, state, event }),
    };
    // Who hands back has nothing to write any more either.
    let epoch = epoch + Epoch::from(matches!(event, Event::Claim | Event::Release(_)));
    Ok(Standing { kind, state, epoch, lease })
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
