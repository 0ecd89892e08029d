//! A model of several servers on one catalog and one bucket, explored whole: every order in which claims, leases that run out,
//! ingests, cancels, publications and collections can be interleaved.
//!
//! One creation, whose disk has one block, which may lie in the store already, left over by an image that is gone: what a collection
//! wants to remove and an ingest wants to rely on. The state machine is the real one ([`transition`]); a step of the model is one
//! commit, one request to the store, or the passing of a time. A worker or a collection that sleeps, dies or is cut off is one that takes
//! no step for a while, or never again, so nothing needs to be modelled for it.
//!
//! Each rule that keeps the whole right can be switched off; the exploration has to find what goes wrong then.

use std::collections::{HashSet, VecDeque};

use super::*;

/// The rules of the real thing, see `block_store::Ledger`.
#[derive(Clone, Copy)]
struct Rules {
    /// What a worker writes is refused outside of its epoch.
    fence: bool,
    /// An ingest waits for a condemned block.
    waits: bool,
    /// An ingest claims a block before it looks whether it is stored.
    claims: bool,
    /// A collection asks for the manifests in use again when it has passed its sentence.
    asks_again: bool,
    /// It asks for claims before it asks for manifests.
    claims_first: bool,
    /// A collection whose sentence has run out removes nothing.
    looks_at_clock: bool,
    /// A manifest has a name of its own for each epoch: attempts may have read different versions of their source.
    own_names: bool,
}

const ALL: Rules = Rules {
    fence: true,
    waits: true,
    claims: true,
    asks_again: true,
    claims_first: true,
    looks_at_clock: true,
    own_names: true,
};

/// What the catalog knows of the block of the creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Claim {
    None,
    Claimed,
    Stored,
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Claim,
    AskCondemned,
    Look,
    Put,
    Note,
    Save,
    Publish,
    TakeBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sweep {
    Idle,
    /// Has listed the store.
    Listed,
    /// Has asked for manifests in use.
    Named,
    /// Has read them.
    Read,
    Condemned,
    ClaimsAsked,
    NamedAgain,
    ReadAgain,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Collector {
    at: Sweep,
    /// Manifests, a bit for each epoch.
    stored: u8,
    named: u8,
    /// Whether the block is listed by a manifest that was read.
    listed: bool,
    claimed: bool,
    /// Whether its own clock says that its sentence has run out.
    late: bool,
}

const IDLE: Collector =
    Collector { at: Sweep::Idle, stored: 0, named: 0, listed: false, claimed: false, late: false };

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    operation: Standing,
    claim: Claim,
    /// The epoch whose manifest the READY image has.
    published: Option<Epoch>,
    /// Whether the manifest of the READY image was written by another attempt than the one that ended.
    overwritten: bool,
    ends: u8,
    cancelled: bool,
    /// The collector that has condemned the block, and whether its sentence has run out.
    condemned: Option<(usize, bool)>,
    block: bool,
    manifests: u8,
    workers: Vec<Option<(Epoch, Step)>>,
    collectors: Vec<Collector>,
}

fn bit(epoch: Epoch) -> u8 {
    1 << epoch
}

impl World {
    fn new(workers: usize, collectors: usize, block: bool) -> Self {
        let operation = Standing { kind: Kind::Create, state: State::Queued, epoch: 0, lease: Lease::Free };
        Self {
            operation,
            claim: Claim::None,
            published: None,
            overwritten: false,
            ends: 0,
            cancelled: false,
            condemned: None,
            block,
            manifests: 0,
            workers: vec![None; workers],
            collectors: vec![IDLE; collectors],
        }
    }

    /// What must hold in every state.
    fn fault(&self) -> Option<&'static str> {
        if let Some(epoch) = self.published {
            if !self.block {
                return Some("a READY image lacks its block");
            }
            if self.manifests & bit(epoch) == 0 {
                return Some("a READY image lacks its manifest");
            }
            if self.cancelled {
                return Some("a cancel was accepted, and the image is READY");
            }
        }
        if self.overwritten {
            return Some("the manifest of a READY image was overwritten");
        }
        if self.ends > 1 {
            return Some("the operation ended twice");
        }
        (self.published.is_some() != (self.operation.state == State::Succeeded))
            .then_some("READY and SUCCEEDED are not one")
    }

    /// Once nobody works on it, a collection leaves what the image needs and nothing else.
    fn fault_after_collection(&self, rules: Rules) -> Option<&'static str> {
        let at_rest = self.operation.state.is_done()
            && self.collectors.iter().all(|collector| collector.at == Sweep::Idle)
            && self.condemned.is_none_or(|(_, run_out)| run_out);
        if !at_rest {
            return None;
        }
        let mut world = self.clone();
        loop {
            world = world.sweep(0, rules)?;
            if world.collectors[0].at == Sweep::Idle {
                break;
            }
        }
        let needed = world.published.map_or(0, bit);
        (world.block != world.published.is_some() || world.manifests != needed)
            .then_some("a collection has left something, or taken too much")
    }

    fn apply(&mut self, event: Event, rules: Rules) -> Result<(), Refused> {
        let current = self.operation.epoch;
        let event = match event {
            _ if rules.fence => event,
            Event::Renew(_) => Event::Renew(current),
            Event::Succeed(_) => Event::Succeed(current),
            Event::Fail(_) => Event::Fail(current),
            Event::Stopped(_) => Event::Stopped(current),
            event => event,
        };
        let was_done = self.operation.state.is_done();
        self.operation = transition(self.operation, event)?;
        if self.operation.state.is_done() && !was_done {
            self.ends += 1;
            self.claim = Claim::None;
        }
        Ok(())
    }

    /// What a worker tries whose lease may be lost.
    fn try_to(&mut self, event: Event, rules: Rules) {
        let _refused = self.apply(event, rules).is_err();
    }

    fn next(&self, rules: Rules, epochs: Epoch) -> Vec<Self> {
        let mut next = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if self.operation.lease == Lease::Held {
            with(&|world| world.operation.lease = Lease::RunOut);
        }
        if !self.operation.state.is_done() && !self.cancelled {
            with(&|world| world.cancelled = world.apply(Event::Cancel, rules).is_ok());
        }
        if let Some((collector, false)) = self.condemned {
            with(&|world| {
                world.condemned = Some((collector, true));
                world.collectors[collector].late = true;
            });
        }
        for worker in 0..self.workers.len() {
            self.work(worker, rules, epochs, &mut next);
        }
        next.extend((0..self.collectors.len()).filter_map(|collector| self.sweep(collector, rules)));
        next
    }

    /// All that a worker may do next.
    fn work(&self, worker: usize, rules: Rules, epochs: Epoch, next: &mut Vec<Self>) {
        let mut go = |step: Option<(Epoch, Step)>, change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            world.workers[worker] = step;
            change(&mut world);
            next.push(world);
        };
        let Some((epoch, step)) = self.workers[worker] else {
            let claimed = transition(self.operation, Event::Claim).ok().filter(|next| next.epoch <= epochs);
            if let Some(claimed) = claimed {
                let step = if claimed.state == State::Cancelling { Step::TakeBack } else { Step::Begin };
                go(Some((claimed.epoch, step)), &|world| world.operation = claimed);
            }
            return;
        };
        let at = |step| Some((epoch, step));
        let is_fenced = self.clone().apply(Event::Renew(epoch), rules).is_err();
        // A renewal; a return, a failure, a cancel that it has seen.
        if !is_fenced && self.operation.lease == Lease::RunOut {
            go(at(step), &|world| world.try_to(Event::Renew(epoch), rules));
        }
        if epoch < epochs {
            go(None, &|world| world.try_to(Event::Release(epoch), rules));
        }
        go(None, &|world| world.try_to(Event::Fail(epoch), rules));
        if self.operation.state == State::Cancelling && step != Step::TakeBack {
            go(at(Step::TakeBack), &|_| {});
        }
        match step {
            Step::Begin | Step::Claim if is_fenced => go(None, &|_| {}),
            Step::Begin => {
                if self.claim == Claim::Stored {
                    go(at(Step::Save), &|_| {});
                }
                go(at(Step::Claim), &|world| world.claim = Claim::None);
            }
            Step::Claim => go(at(Step::AskCondemned), &|world| {
                if rules.claims {
                    world.claim = Claim::Claimed;
                }
            }),
            Step::AskCondemned => {
                if !rules.waits || self.condemned.is_none_or(|(_, run_out)| run_out) {
                    go(at(Step::Look), &|_| {});
                }
            }
            Step::Look => go(at(if self.block { Step::Note } else { Step::Put }), &|_| {}),
            Step::Put => go(at(Step::Note), &|world| world.block = true),
            Step::Note => {
                if !is_fenced && self.claim == Claim::Claimed {
                    go(at(Step::Save), &|world| world.claim = Claim::Stored);
                }
                go(at(Step::Save), &|_| {});
            }
            Step::Save => go(at(Step::Publish), &|world| {
                world.manifests |= bit(rules.name(epoch));
                world.overwritten = world.published == Some(rules.name(epoch));
            }),
            Step::Publish => {
                let mut world = self.clone();
                let published = world.apply(Event::Succeed(epoch), rules);
                world.workers[worker] = match published {
                    Ok(()) => {
                        world.published = Some(rules.name(epoch));
                        None
                    }
                    Err(Refused::State { state: State::Cancelling, .. }) => at(Step::TakeBack),
                    Err(_) => None,
                };
                next.push(world);
            }
            Step::TakeBack => go(None, &|world| world.try_to(Event::Stopped(epoch), rules)),
        }
    }

    /// The names of manifests in use, as `Catalog::manifests` has them.
    fn names(&self, rules: Rules) -> u8 {
        let attempt = if self.operation.state.is_done() { 0 } else { bit(rules.name(self.operation.epoch)) };
        attempt | self.published.map_or(0, bit)
    }

    /// The next step of a collection, as `BlockStore::collect` has them.
    fn sweep(&self, collector: usize, rules: Rules) -> Option<Self> {
        let mut world = self.clone();
        let mut at = self.collectors[collector];
        let reads = |at: Collector| at.listed || at.named & self.manifests != 0;
        match at.at {
            Sweep::Idle => {
                // Nothing to do.
                if !self.block && self.manifests == 0 {
                    at = Collector { at: Sweep::Over, ..IDLE };
                } else {
                    at =
                        Collector { at: Sweep::Listed, stored: self.manifests, claimed: !self.block, ..IDLE };
                }
            }
            Sweep::Listed => (at.at, at.named) = (Sweep::Named, self.names(rules)),
            Sweep::Named => {
                // Unused manifests go one by one in between; all at once is one of the orders.
                world.manifests &= !(at.stored & !at.named);
                (at.at, at.listed) = (Sweep::Read, at.named & world.manifests != 0);
            }
            Sweep::Read if at.listed || at.claimed => at.at = Sweep::Over,
            Sweep::Read => match self.condemned {
                Some((_, false)) => at.at = Sweep::Over,
                _ => {
                    world.condemned = Some((collector, false));
                    (at.at, at.late) = (Sweep::Condemned, false);
                    if !rules.claims_first {
                        at.named = self.names(rules);
                        at.listed = reads(at);
                    }
                }
            },
            Sweep::Condemned => {
                (at.at, at.claimed) = (Sweep::ClaimsAsked, self.claim != Claim::None);
            }
            Sweep::ClaimsAsked => {
                at.at = Sweep::NamedAgain;
                if rules.asks_again && rules.claims_first {
                    at.named = self.names(rules);
                }
            }
            Sweep::NamedAgain => {
                at.at = Sweep::ReadAgain;
                if rules.asks_again {
                    at.listed = reads(at);
                }
            }
            Sweep::ReadAgain => {
                let is_in_time = !at.late || !rules.looks_at_clock;
                if !at.listed && !at.claimed && is_in_time {
                    world.block = false;
                }
                at.at = Sweep::Over;
            }
            Sweep::Over => {
                if self.condemned.is_some_and(|(owner, _)| owner == collector) {
                    world.condemned = None;
                }
                at = IDLE;
            }
        }
        world.collectors[collector] = at;
        Some(world)
    }
}

impl Rules {
    fn name(self, epoch: Epoch) -> Epoch {
        if self.own_names { epoch } else { 0 }
    }
}

/// Explores everything that is reachable; the number of states, or what goes wrong in one of them.
fn explore(rules: Rules, workers: usize, collectors: usize, epochs: Epoch) -> Result<usize, String> {
    let starts = [true, false].map(|block| World::new(workers, collectors, block));
    let mut seen: HashSet<World> = starts.iter().cloned().collect();
    let mut queue: VecDeque<World> = starts.into();
    while let Some(world) = queue.pop_front() {
        if let Some(fault) = world.fault().or_else(|| world.fault_after_collection(rules)) {
            return Err(format!("{fault}: {world:?}"));
        }
        for next in world.next(rules, epochs) {
            if !seen.contains(&next) {
                seen.insert(next.clone());
                queue.push_back(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn nothing_goes_wrong_in_any_order() {
    for (workers, collectors, epochs) in [(2, 1, 3), (1, 2, 2)] {
        let states = explore(ALL, workers, collectors, epochs).unwrap();
        println!("{workers} workers, {collectors} collections, {epochs} epochs: {states} states");
        assert!(states > 10_000, "{states} states are not all");
    }
}

#[test]
fn every_rule_is_needed() {
    for (name, rules) in [
        ("fence", Rules { fence: false, ..ALL }),
        ("waits", Rules { waits: false, ..ALL }),
        ("claims", Rules { claims: false, ..ALL }),
        ("asks_again", Rules { asks_again: false, ..ALL }),
        ("claims_first", Rules { claims_first: false, ..ALL }),
        ("looks_at_clock", Rules { looks_at_clock: false, ..ALL }),
        ("own_names", Rules { own_names: false, ..ALL }),
    ] {
        let found = explore(rules, 2, 1, 2);
        let fault = found.err().unwrap_or_else(|| panic!("without `{name}` nothing goes wrong"));
        println!("without `{name}`: {}", fault.split(':').next().unwrap_or_default());
    }
}

/// Whatever happens after an accepted cancel: never SUCCEEDED, never FAILED.
#[test]
fn a_cancel_is_a_promise() {
    let cancelling = Standing { kind: Kind::Create, state: State::Cancelling, epoch: 0, lease: Lease::Free };
    let mut reachable = vec![cancelling];
    let mut at = 0;
    while let Some(&now) = reachable.get(at) {
        for epoch in 0..=3 {
            for event in [
                Event::Claim,
                Event::Renew(epoch),
                Event::Release(epoch),
                Event::Cancel,
                Event::Succeed(epoch),
                Event::Fail(epoch),
                Event::Stopped(epoch),
            ] {
                match transition(now, event) {
                    Ok(next) if next.epoch <= 3 && !reachable.contains(&next) => reachable.push(next),
                    _ => {}
                }
            }
        }
        at += 1;
    }
    assert!(reachable.iter().all(|now| matches!(now.state, State::Cancelling | State::Cancelled)));
    assert!(reachable.iter().any(|now| now.state == State::Cancelled));
}
