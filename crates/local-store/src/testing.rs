//! Misbehaviour on demand, for tests of clients: a proxy before a store that breaks what passes through it, by a seed.
//!
//! It speaks plain HTTP/1.1 to any store, not to this one alone: requests go through as they are, so their signatures hold. Whether a
//! request fails, and how, depends on the seed, on what is asked, and on how often that was asked before; not on
//! the order in which requests arrive. So a seed means the same in every run.
//!
//! One request a connection, held in memory whole: it is for tests, not for throughput.

mod wire;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use wire::{Message, Verb};

/// What can happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// 503 SlowDown; the store hears of nothing.
    Unavailable,
    /// 429 with a `Retry-After` of one second.
    Throttled,
    /// The connection is reset when half of the body is there.
    ResetMidBody,
    /// It is reset when all of the request is there; the store hears of nothing.
    ResetAfterBody,
    /// The store carries the request out, and the connection is reset before its answer.
    LostReply,
    /// The store's answer breaks off in its middle.
    TornReply,
    /// The answer comes late.
    Delayed,
    /// The part is stored; the answer has another ETag.
    WrongEtag,
    /// The answer is as if the part were stored, and it is not.
    DroppedPart,
    /// The answer is as if the copy were made, of nothing.
    EmptyCopy,
    /// The listing of parts lacks the last one, and says that it is whole.
    TruncatedListing,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Unavailable,
        Self::Throttled,
        Self::ResetMidBody,
        Self::ResetAfterBody,
        Self::LostReply,
        Self::TornReply,
        Self::Delayed,
        Self::WrongEtag,
        Self::DroppedPart,
        Self::EmptyCopy,
        Self::TruncatedListing,
    ];

    /// True if it can happen to such a request.
    fn fits(self, verb: Verb) -> bool {
        match self {
            Self::WrongEtag | Self::DroppedPart => verb == Verb::UploadPart,
            Self::ResetMidBody => matches!(verb, Verb::UploadPart | Verb::Complete),
            Self::EmptyCopy => verb == Verb::CopyPart,
            Self::TruncatedListing => verb == Verb::ListParts,
            _ => true,
        }
    }
}

/// Which requests fail, and how.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// What chance depends on.
    pub seed: u64,
    /// Of a thousand requests of a kind, so many fail.
    pub per_mille: u32,
    /// How they may fail.
    pub faults: Vec<Fault>,
    /// How late a late answer is.
    pub delay: Duration,
}

impl FaultPlan {
    /// What happens to the request `verb`, about `part`, that was made `before` times.
    fn pick(&self, verb: Verb, part: &str, before: u64) -> Option<Fault> {
        let mut chance = Chance(self.seed);
        for byte in format!("{verb:?} {part} {before}").bytes() {
            chance.0 = (chance.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if chance.below(1000) >= u64::from(self.per_mille) {
            return None;
        }
        let fitting: Vec<Fault> = self.faults.iter().copied().filter(|fault| fault.fits(verb)).collect();
        let index = usize::try_from(chance.below(fitting.len() as u64)).unwrap_or_default();
        fitting.get(index).copied()
    }
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// From which request on the line is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The next one.
    Now,
    /// The next one that completes an upload, whose answer is lost where `carried_out`.
    Complete {
        /// Whether the store still hears of it.
        carried_out: bool,
    },
}

/// How a line is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are reset.
    Reset,
    /// Nothing comes back, for so long.
    Silent(Duration),
}

/// A line that is cut for some requests.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Moment,
    cut: Cut,
    /// Requests that are still to be lost.
    left: u64,
}

/// A proxy that is running; it ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    endpoint: String,
    shared: Arc<Shared>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    plan: FaultPlan,
    seen: Mutex<HashMap<(Verb, String), u64>>,
    happened: Mutex<BTreeMap<Fault, usize>>,
    outage: Mutex<Option<Outage>>,
}

impl FaultProxy {
    /// Starts one on a free port of loopback, before the store at `upstream`.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub async fn start(upstream: SocketAddr, plan: FaultPlan) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream,
            plan,
            seen: Mutex::default(),
            happened: Mutex::default(),
            outage: Mutex::default(),
        });
        let end = CancellationToken::new();
        let (task, ended) = (Arc::clone(&shared), end.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&task);
                tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
                    if let Err(error) = shared.pass(stream).await {
                        tracing::debug!(%error, "an exchange broke");
                    }
                }));
            }
        }));
        Ok(Self { endpoint, shared, _end: end.drop_guard() })
    }

    /// Where the proxy listens, as a URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Cuts the line: so many requests are lost, whatever they are about. So an outage is counted, not timed.
    pub fn cut(&self, from: Moment, cut: Cut, requests: u64) {
        *self.shared.outage() = Some(Outage { from, cut, left: requests });
    }

    /// Requests that are still to be lost.
    pub fn to_be_lost(&self) -> u64 {
        self.shared.outage().map_or(0, |outage| outage.left)
    }

    /// How often requests of some kind came here: parts that were sent, for instance, by all who sent them.
    pub fn parts_sent(&self) -> Vec<u32> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = seen.iter().filter(|((verb, _), _)| *verb == Verb::UploadPart);
        let mut parts: Vec<u32> = parts
            .flat_map(|((_, part), times)| {
                let times = usize::try_from(*times).unwrap_or(usize::MAX);
                part.parse().into_iter().flat_map(move |part| std::iter::repeat_n(part, times))
            })
            .collect();
        parts.sort_unstable();
        parts
    }

    /// What has happened so far, and how often.
    pub fn happened(&self) -> BTreeMap<Fault, usize> {
        self.shared.happened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a request is lost, if it is, and whether the store hears of it nonetheless.
    fn lose(&self, verb: Verb) -> Option<(Cut, bool)> {
        let mut outage = self.outage();
        let Outage { from, cut, left } = outage.as_mut()?;
        let carried_out = match *from {
            Moment::Complete { carried_out } if verb == Verb::Complete => carried_out,
            Moment::Complete { .. } => return None,
            Moment::Now => false,
        };
        // It has begun.
        *from = Moment::Now;
        let Some(rest) = left.checked_sub(1) else {
            *outage = None;
            return None;
        };
        *left = rest;
        Some((*cut, carried_out))
    }

    /// One request and its answer, or what becomes of them.
    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(mut request) = Message::read_head(&mut client).await? else { return Ok(()) };
        let verb = request.verb();
        if let Some((cut, carried_out)) = self.lose(verb) {
            if carried_out {
                request.read_body(&mut client, None).await?;
                request.forward(self.upstream).await?;
            }
            if let Cut::Silent(time) = cut {
                tokio::time::sleep(time).await;
            }
            return client.set_zero_linger();
        }
        let key = (verb, request.part().to_owned());
        let before = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let fault = self.plan.pick(verb, &key.1, before);
        if let Some(fault) = fault {
            *self.happened.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
        }
        if fault == Some(Fault::ResetMidBody) {
            request.read_body(&mut client, Some(request.content_length() / 2)).await?;
            return client.set_zero_linger();
        }
        request.read_body(&mut client, None).await?;
        let mut answer = match fault {
            Some(Fault::ResetAfterBody) => return client.set_zero_linger(),
            Some(Fault::Unavailable) => wire::refusal("503 Slow Down", "SlowDown", ""),
            Some(Fault::Throttled) => {
                wire::refusal("429 Too Many Requests", "TooManyRequests", "retry-after: 1\r\n")
            }
            Some(Fault::DroppedPart) => wire::as_if_stored(&request),
            Some(Fault::EmptyCopy) => wire::as_if_copied(),
            _ => request.forward(self.upstream).await?,
        };
        match fault {
            Some(Fault::LostReply) => return client.set_zero_linger(),
            Some(Fault::TornReply) => {
                answer.truncate(answer.len() / 2);
                wire::send(&mut client, &answer).await?;
                return client.set_zero_linger();
            }
            Some(Fault::Delayed) => tokio::time::sleep(self.plan.delay).await,
            Some(Fault::WrongEtag) => wire::change_etag(&mut answer),
            Some(Fault::TruncatedListing) => wire::drop_last_part(&mut answer),
            _ => {}
        }
        wire::send(&mut client, &answer).await?;
        wire::close(client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, per_mille: u32) -> FaultPlan {
        FaultPlan { seed, per_mille, faults: Fault::ALL.into(), delay: Duration::ZERO }
    }

    #[test]
    fn a_seed_means_the_same_every_time_and_seeds_differ() {
        let picks = |seed| -> Vec<_> {
            (0..200).map(|n| plan(seed, 500).pick(Verb::UploadPart, &n.to_string(), 0)).collect()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
        let failed = picks(1).iter().flatten().count();
        assert!((60..140).contains(&failed), "{failed}");
        assert!(plan(1, 0).pick(Verb::Complete, "", 0).is_none());
    }

    #[test]
    fn every_fault_happens_to_something_and_none_to_what_it_does_not_fit() {
        let verbs = [Verb::UploadPart, Verb::CopyPart, Verb::ListParts, Verb::Complete, Verb::Other];
        let mut happened = std::collections::BTreeSet::new();
        for (verb, n) in verbs.into_iter().flat_map(|verb| (0..200).map(move |n| (verb, n))) {
            let fault = plan(7, 1000).pick(verb, "", n).unwrap();
            assert!(fault.fits(verb), "{fault:?} {verb:?}");
            happened.insert(fault);
        }
        assert_eq!(happened.len(), Fault::ALL.len());
    }
}
