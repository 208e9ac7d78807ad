//! One client: keeps its connection, or opens one for each request, and asks.

use super::Shared;
use super::workload::Draws;
use crate::wire::{Conversation, Op, Step};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Before another connection is tried.
const AGAIN: Duration = Duration::from_millis(20);
/// Room for replies.
const READ_BYTES: usize = 4 << 10;

/// What to do next.
enum Next {
    /// Ask; latency counts from here.
    Ask(Instant),
    /// Nothing is due yet.
    Wait,
    /// No more.
    End,
}

/// A connection that is open.
struct Link {
    stream: TcpStream,
    conversation: Conversation,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// See the module.
pub(super) struct Connection {
    shared: Rc<Shared>,
    index: usize,
    draws: Draws,
    /// Requests without a reply so far.
    asked: VecDeque<(Op, Instant)>,
}

impl Connection {
    pub(super) fn new(shared: Rc<Shared>, index: usize, draws: Draws) -> Self {
        Self { shared, index, draws, asked: VecDeque::new() }
    }

    /// Connects, waits for the others, and asks until the end.
    pub(super) async fn run(mut self) {
        let mut link = None;
        while link.is_none() && !self.shared.spec.per_request {
            match self.open().await {
                Ok(opened) => link = Some(opened),
                Err(error) => self.again(&error).await,
            }
        }
        self.shared.opened.set(self.shared.opened.get() + 1);
        self.shared.news.notify_one();
        let Ok(permit) = self.shared.go.acquire().await else { return };
        permit.forget();
        if self.shared.spec.per_request {
            return self.one_by_one().await;
        }
        loop {
            let ended = match &mut link {
                Some(link) => self.converse(link).await,
                None => self.open().await.map(|opened| link = Some(opened)).map(|()| false),
            };
            match ended {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    link = None;
                    self.again(&error).await;
                    if self.shared.end.get().is_some_and(|end| Instant::now() >= end) {
                        return;
                    }
                }
            }
        }
    }

    /// Writes keys for the first time, one after the other, until somebody has written the last one.
    pub(super) async fn fill(mut self) {
        while let Err(error) = self.try_fill().await {
            self.again(&error).await;
        }
    }

    async fn try_fill(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut link = if shared.spec.per_request { None } else { Some(self.open().await?) };
        loop {
            let key = shared.filling.get();
            if key >= shared.spec.keys {
                return Ok(());
            }
            shared.filling.set(key + 1);
            let good = match &mut link {
                Some(link) => {
                    shared.speech.create(&mut link.conversation, key, &mut link.output);
                    self.exchange(link).await
                }
                None => self.exchange_alone(Op::Put, key).await,
            };
            if !matches!(good, Ok(true)) {
                shared.filling.set(shared.filling.get().min(key));
                return Err(good.err().unwrap_or_else(|| io::Error::other("an error reply to a PUT")));
            }
        }
    }

    /// Notes what went wrong, and waits a little.
    async fn again(&mut self, error: &io::Error) {
        self.lost(error);
        tokio::time::sleep(AGAIN).await;
    }

    /// A connection on which requests may be sent.
    async fn open(&self) -> io::Result<Link> {
        let _permit = self.shared.opening.acquire().await.map_err(io::Error::other)?;
        let mut link = self.connect().await?;
        link.stream.set_nodelay(true)?;
        link.flush().await?;
        while !link.conversation.is_ready() {
            if link.read().await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before it was ready"));
            }
            while let Step::Other { used } =
                self.shared.speech.hear(&mut link.conversation, &link.input, &mut link.output)
            {
                link.input.drain(..used);
            }
            link.flush().await?;
        }
        Ok(link)
    }

    async fn connect(&self) -> io::Result<Link> {
        let to = &self.shared.spec.to;
        let stream = TcpStream::connect(to[self.index % to.len()]).await?;
        let mut output = Vec::new();
        let conversation = self.shared.speech.begin(&mut output);
        Ok(Link { stream, conversation, input: Vec::with_capacity(READ_BYTES), output })
    }

    /// Sends what is in `output`, and waits for one reply: whether it is good.
    async fn exchange(&self, link: &mut Link) -> io::Result<bool> {
        link.flush().await?;
        if self.shared.speech.half_closes() {
            link.stream.shutdown().await?;
        }
        loop {
            if link.read().await? == 0 {
                let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a reply");
                return if link.input.is_empty() {
                    Err(closed())
                } else {
                    Ok(self.shared.speech.is_good_end(&link.input))
                };
            }
            loop {
                match self.shared.speech.hear(&mut link.conversation, &link.input, &mut link.output) {
                    Step::More => break,
                    Step::Other { used } => drop(link.input.drain(..used)),
                    Step::Reply { used, good } => {
                        link.input.drain(..used);
                        return Ok(good);
                    }
                }
            }
            link.flush().await?;
        }
    }

    /// The same on a connection of its own.
    async fn exchange_alone(&self, op: Op, key: u64) -> io::Result<bool> {
        let mut link = self.connect().await?;
        self.shared.speech.ask(&mut link.conversation, op, key, &mut link.output);
        self.exchange(&mut link).await
    }

    fn next(&self, now: Instant) -> Next {
        let ended = self.shared.end.get().is_some_and(|end| now >= end);
        if self.shared.spec.rate.is_none() {
            return if ended { Next::End } else { Next::Ask(now) };
        }
        match self.shared.due[self.index].0.borrow_mut().pop_front() {
            Some(due) => Next::Ask(due),
            None if ended || self.shared.handed_out.get() => Next::End,
            None => Next::Wait,
        }
    }

    /// A connection for each request.
    async fn one_by_one(&mut self) {
        loop {
            let since = match self.next(Instant::now()) {
                Next::Ask(since) => since,
                Next::Wait => {
                    self.shared.due[self.index].1.notified().await;
                    continue;
                }
                Next::End => return,
            };
            let (op, key) = self.draws.next(&self.shared.keys);
            self.asked.push_back((op, since));
            match self.exchange_alone(op, key).await {
                Ok(good) => self.answered(Instant::now(), good, b"on a connection of its own"),
                Err(error) => self.again(&error).await,
            }
        }
    }

    /// Asks on a connection that is kept; true: there is no more to ask.
    async fn converse(&mut self, link: &mut Link) -> io::Result<bool> {
        let shared = self.shared.clone();
        loop {
            let now = Instant::now();
            let mut next = Next::Wait;
            while self.asked.len() < shared.spec.pipeline {
                next = self.next(now);
                let Next::Ask(since) = next else { break };
                let (op, key) = self.draws.next(&shared.keys);
                shared.speech.ask(&mut link.conversation, op, key, &mut link.output);
                self.asked.push_back((op, since));
            }
            link.flush().await?;
            if self.asked.is_empty() && matches!(next, Next::End) {
                return Ok(true);
            }
            let may_ask = self.asked.len() < shared.spec.pipeline && matches!(next, Next::Wait);
            let read = tokio::select! {
                biased;
                read = link.read() => read?,
                () = shared.due[self.index].1.notified(), if may_ask => continue,
            };
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            }
            self.hear(link);
        }
    }

    /// Takes the replies that are there.
    fn hear(&mut self, link: &mut Link) {
        let now = Instant::now();
        let mut at = 0;
        loop {
            match self.shared.speech.hear(&mut link.conversation, &link.input[at..], &mut link.output) {
                Step::More => break,
                Step::Other { used } => at += used,
                Step::Reply { used, good } => {
                    self.answered(now, good, &link.input[at..at + used]);
                    at += used;
                }
            }
        }
        link.input.drain(..at);
    }

    fn answered(&mut self, now: Instant, good: bool, reply: &[u8]) {
        let Some((op, since)) = self.asked.pop_front() else { return };
        let mut tally = self.shared.tally.borrow_mut();
        if good {
            tally.answered(self.index, op, since, now);
        } else {
            tally.failed(since, now, || format!("an error reply: {:?}", String::from_utf8_lossy(reply)));
        }
    }

    /// Nothing that was asked is answered any more.
    fn lost(&mut self, why: &io::Error) {
        let now = Instant::now();
        let mut tally = self.shared.tally.borrow_mut();
        if self.asked.is_empty() {
            tally.note(why);
        }
        for (_, since) in self.asked.drain(..) {
            tally.failed(since, now, || why.to_string());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.asked.is_empty() {
            self.lost(&io::Error::new(io::ErrorKind::TimedOut, "no reply until well after the end"));
        }
    }
}

impl Link {
    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<usize> {
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(READ_BYTES);
        }
        self.stream.read_buf(&mut self.input).await
    }
}
