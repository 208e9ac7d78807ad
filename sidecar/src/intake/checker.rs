//! Checks the signatures of requests before they are ordered, beside the driver: on threads of its own, each root once,
//! however many requests it covers. A single question while all is quiet is answered at once: waking a thread takes
//! longer.

use super::LinkId;
use crate::budget::Share;
use anyhow::Context;
use mesh::auth::{Answered, Owner, Question, Rejected, Seeking, Verified};
use mesh::names::Role;
use mesh::net::{SignerTrust, unix_now};
use mesh::time::Instant;
use mesh::wire::Tag;
use mesh::wire::submit::Steer;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Questions that wait for a thread, at most.
const JOBS: usize = 1024;
/// Requests that wait for their answers, at most; further ones are told to come back.
const WAITING: usize = 8192;
/// Of these questions those of one link: whoever makes them up faster than they can be answered leaves room for others.
const JOBS_OF_LINK: usize = 64;
/// Threads, at most.
const THREADS: usize = 4;

/// Whose certificates are believed now.
type Trust = watch::Receiver<Arc<SignerTrust>>;

/// A request that waits, and who asked.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) link: LinkId,
    pub(crate) tag: Tag,
    /// Whether the whole reply is wanted, or only the vote.
    pub(crate) whole: bool,
    /// When nobody waits for either any more.
    pub(crate) until: Instant,
    /// Its share of the memory for requests that wait for the driver.
    pub(crate) share: Share,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Result<Verified, Steer>,
    pub(crate) held: Held,
}

/// Work for a thread.
#[derive(Debug)]
struct Job {
    number: u64,
    question: Question,
    /// Whose certificate is to be looked at too.
    opener: Option<Owner>,
}

/// A thread's answer.
#[derive(Debug)]
struct Done {
    number: u64,
    verdict: Result<Answered, Rejected>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checker {
    jobs: SyncSender<Job>,
    done: mpsc::Receiver<Done>,
    next: u64,
    waiting: HashMap<u64, Vec<(Seeking, Held)>>,
    /// The numbers of the questions that are asked of threads, but those of openings: the same proof may come with
    /// another certificate.
    asked: HashMap<Question, u64>,
    count: usize,
    /// How many of the questions each link asked.
    asking: HashMap<LinkId, usize>,
}

impl Checker {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has none to spare.
    pub(crate) fn start(trust: &Trust) -> anyhow::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let (jobs, inbox) = sync_channel(JOBS);
        let inbox = Arc::new(Mutex::new(inbox));
        let (out, done) = mpsc::channel(JOBS);
        for number in 0..threads {
            let (inbox, out, trust) = (inbox.clone(), out.clone(), trust.clone());
            std::thread::Builder::new()
                .name(format!("signatures-{number}"))
                .spawn(move || work(&inbox, &out, &trust))
                .context("cannot start a thread for signatures")?;
        }
        Ok(Self {
            jobs,
            done,
            next: 0,
            waiting: HashMap::new(),
            asked: HashMap::new(),
            count: 0,
            asking: HashMap::new(),
        })
    }

    /// Takes the questions of one turn; returns what is known at once.
    pub(crate) fn ask(&mut self, sought: Vec<(Seeking, Held)>) -> Vec<Judged> {
        let mut known = Vec::new();
        let alone =
            self.waiting.is_empty() && sought.windows(2).all(|pair| pair[0].0.question() == pair[1].0.question());
        if let Some((first, _)) = sought.first().filter(|_| alone)
            && sought.iter().all(|(seeking, _)| seeking.opener().is_none())
        {
            let answered = first.question().answer();
            known.extend(sought.into_iter().map(|(seeking, held)| judged(seeking, held, answered.as_ref())));
            return known;
        }
        for (seeking, held) in sought {
            if let Err(held) = self.hand_over(seeking, held) {
                known.push(Judged { verdict: Err(Steer::Busy), held });
            }
        }
        known
    }

    fn hand_over(&mut self, seeking: Seeking, held: Held) -> Result<(), Held> {
        if self.count >= WAITING {
            return Err(held);
        }
        let opener = seeking.opener().cloned();
        let question = *seeking.question();
        let same = self.asked.get(&question).copied().filter(|_| opener.is_none());
        let number = match same {
            Some(number) => number,
            None => {
                let number = self.next;
                let opens = opener.is_some();
                let asking = self.asking.entry(held.link).or_default();
                if *asking >= JOBS_OF_LINK {
                    return Err(held);
                }
                match self.jobs.try_send(Job { number, question, opener }) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(held),
                }
                *asking += 1;
                self.next += 1;
                if !opens {
                    self.asked.insert(question, number);
                }
                number
            }
        };
        self.count += 1;
        self.waiting.entry(number).or_default().push((seeking, held));
        Ok(())
    }

    /// Waits for the next answer of a thread.
    pub(crate) async fn next(&mut self) -> Vec<Judged> {
        match self.done.recv().await {
            Some(done) => self.take(&done),
            // The threads live as long as this.
            None => std::future::pending().await,
        }
    }

    /// Takes an answer that is there already.
    pub(crate) fn try_next(&mut self) -> Option<Vec<Judged>> {
        let done = self.done.try_recv().ok()?;
        Some(self.take(&done))
    }

    fn take(&mut self, done: &Done) -> Vec<Judged> {
        let waiting = self.waiting.remove(&done.number).unwrap_or_default();
        self.count -= waiting.len();
        if let Some((seeking, held)) = waiting.first() {
            if self.asked.get(seeking.question()) == Some(&done.number) {
                self.asked.remove(seeking.question());
            }
            if let Some(asking) = self.asking.get_mut(&held.link) {
                *asking -= 1;
                if *asking == 0 {
                    self.asking.remove(&held.link);
                }
            }
        }
        let judge = |(seeking, held): (Seeking, Held)| match &done.verdict {
            Ok(answered) => judged(seeking, held, Some(answered)),
            Err(why) => Judged { verdict: Err(Steer::Rejected(*why)), held },
        };
        waiting.into_iter().map(judge).collect()
    }
}

fn judged(seeking: Seeking, held: Held, answered: Option<&Answered>) -> Judged {
    let verdict = answered.ok_or(Rejected::BadSignature).and_then(|answered| seeking.settle(answered));
    Judged { verdict: verdict.map_err(Steer::Rejected), held }
}

/// A thread's life.
fn work(inbox: &Mutex<Receiver<Job>>, out: &mpsc::Sender<Done>, trust: &Trust) {
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { number, question, opener }) = next else { return };
        let verdict = question.answer().ok_or(Rejected::BadSignature);
        let verdict = verdict.and_then(|answered| match &opener {
            Some(owner) => look_at(owner, trust).map(|()| answered),
            None => Ok(answered),
        });
        if out.blocking_send(Done { number, verdict }).is_err() {
            return;
        }
    }
}

/// Whether the certificate of whoever opens a session is to be trusted now (rule 16).
fn look_at(owner: &Owner, trust: &Trust) -> Result<(), Rejected> {
    let trust = trust.borrow().clone();
    let judged = trust.judge(&owner.certificate, &[Role::Ingress, Role::Client], unix_now());
    let judged = judged.and_then(|trusted| {
        let same = trusted.key == owner.key;
        if same { Ok(trusted.identity) } else { Err("its key is another one than the request names".to_owned()) }
    });
    match judged {
        Ok(identity) => {
            tracing::debug!(%identity, "opens a session");
            Ok(())
        }
        Err(why) => {
            tracing::debug!(why, "a signing certificate is refused");
            Err(Rejected::UntrustedSigner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mesh::auth::{self, Checked, Needed, SecretKey, SharedProof, Signatures, Verifier};
    use mesh::ids::{ClientId, Generation, Seq, Slot};
    use mesh::net::Credentials;
    use mesh::wire::{Body, Request};

    /// Requests of one client, signed together.
    fn signed(key: &SecretKey, count: u64) -> Vec<Request> {
        let mut requests: Vec<Request> = (1..=count)
            .map(|seq| Request {
                client: ClientId(1),
                opened: Generation::FIRST.at(Slot(1)),
                seq: Seq(seq),
                body: Body::Call(Bytes::from_static(b"GET a\n")),
                proof: None,
            })
            .collect();
        let statements: Vec<_> = requests.iter().map(|request| auth::request_statement("demo", request)).collect();
        for (request, proof) in requests.iter_mut().zip(auth::sign(key, &statements)) {
            request.proof = Some(SharedProof::new(proof));
        }
        requests
    }

    async fn sought(request: Request, key: &SecretKey) -> (Seeking, Held) {
        let tag = request.tag();
        let needed = Needed::Key(key.public());
        let checked = auth::check(request, needed, Signatures::Required, "demo", &Verifier::default());
        let Ok(Checked::Sought(seeking)) = checked else { panic!("a question") };
        let share = crate::budget::Budget::of(1 << 20).take(1).await;
        (seeking, Held { link: LinkId(1), tag, whole: true, until: Instant::ZERO, share })
    }

    fn checker() -> Checker {
        let dir = crate::testing::TempDir::new();
        let pki = certs::Pki::init(dir.path(), "demo").expect("an authority");
        let paths = pki.issue("server", "0").expect("a leaf");
        let credentials = Credentials::load(&paths.dir, None).expect("credentials");
        Checker::start(&watch::channel(credentials.signer_trust()).1).expect("threads")
    }

    #[tokio::test]
    async fn requests_of_one_root_are_one_question_and_bad_ones_are_refused() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]).unwrap(), SecretKey::from_seed(&[2; 32]).unwrap());
        let mut checker = checker();
        let mut batch = Vec::new();
        for request in signed(&key, 5) {
            batch.push(sought(request, &key).await);
        }
        let forged = Request { body: Body::Cancel, ..signed(&key, 1).remove(0) };
        batch.push(sought(forged, &key).await);
        batch.push(sought(signed(&other, 1).remove(0), &key).await);
        assert!(checker.ask(batch).is_empty(), "more than one question goes to the threads");
        assert_eq!((checker.waiting.len(), checker.count), (3, 7));
        let mut judged = Vec::new();
        while judged.len() < 7 {
            judged.extend(checker.next().await);
        }
        let (good, bad): (Vec<_>, Vec<_>) = judged.into_iter().partition(|judged| judged.verdict.is_ok());
        assert_eq!((good.len(), bad.len()), (5, 2));
        for judged in bad {
            assert_eq!(judged.verdict, Err(Steer::Rejected(Rejected::BadSignature)));
        }
        assert_eq!((checker.waiting.len(), checker.asked.len(), checker.count), (0, 0, 0));
    }

    /// Mutant: without a bound for each link the first to come fills the queue for all.
    #[tokio::test]
    async fn one_link_leaves_room_for_others() {
        let mut checker = checker();
        let mut batch = Vec::new();
        for seed in 1..=u8::try_from(JOBS_OF_LINK + 8).unwrap() {
            let key = SecretKey::from_seed(&[seed; 32]).unwrap();
            batch.push(sought(signed(&key, 1).remove(0), &key).await);
        }
        let key = SecretKey::from_seed(&[255; 32]).unwrap();
        let (seeking, held) = sought(signed(&key, 1).remove(0), &key).await;
        batch.push((seeking, Held { link: LinkId(2), ..held }));
        let refused = checker.ask(batch);
        assert_eq!(refused.len(), 8);
        assert!(refused.iter().all(|judged| judged.held.link == LinkId(1) && judged.verdict == Err(Steer::Busy)));
        let mut judged = 0;
        while judged < JOBS_OF_LINK + 1 {
            judged += checker.next().await.len();
        }
        assert!(checker.asking.is_empty() && checker.count == 0);
    }

    #[tokio::test]
    async fn a_single_question_is_answered_at_once() {
        let key = SecretKey::from_seed(&[1; 32]).unwrap();
        let mut checker = checker();
        let mut batch = Vec::new();
        for request in signed(&key, 3) {
            batch.push(sought(request, &key).await);
        }
        assert!(checker.ask(batch).iter().all(|judged| judged.verdict.is_ok()));
    }

    /// Mutant: an opening that is let by on its signature alone, without a look at the certificate.
    #[tokio::test]
    async fn who_opens_a_session_needs_a_certificate_of_our_authority() {
        let key = SecretKey::from_seed(&[1; 32]).unwrap();
        let owner = Owner { key: key.public(), nonce: 1, certificate: Bytes::from_static(b"none") };
        let mut request = Request::open(owner.client(), 4, Some(owner));
        let statement = auth::request_statement("demo", &request);
        request.proof = Some(SharedProof::new(auth::sign(&key, &[statement]).remove(0)));
        let mut checker = checker();
        assert!(checker.ask(vec![sought(request, &key).await]).is_empty());
        let judged = checker.next().await;
        assert_eq!(judged[0].verdict, Err(Steer::Rejected(Rejected::UntrustedSigner)));
    }
}
