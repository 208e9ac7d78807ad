//! Deliberate errors, to prove that the simulator's checks catch them. Compiled in only with `--cfg lockstep_mutants`;
//! in every other build none of them can be chosen.

/// An error that the core can be made to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A slot is decided by the leader's own vote alone.
    MinorityCommit = 1,
    /// A promise leaves out what was accepted before.
    VoteForgotten,
    /// A call is taken and executed whatever its number.
    SessionCheckSkipped,
    /// "Decided up to s" is applied to values of other ballots (rule 2).
    DecidedAnyBallot,
    /// A new leader fills slots at or below a promiser's decided mark with no-ops (rule 3).
    NoopOverCut,
    /// Members do not differ in their ballots (rule 1).
    EqualBallots,
    /// A vote leaves before its record is durable.
    AcknowledgeBeforeSync,
    /// Damage in the middle of a journal is taken for a torn tail and cut.
    SkipTailCheck,
    /// A snapshot holds no session table.
    SessionsForgotten,
    /// A life without the incarnation votes, and its votes count (rule 12).
    VoteAfterAmnesia,
    /// One silent application is enough for an abort (rule 23).
    AbortByOne,
    /// The log is cut behind the own snapshot alone (rule 10).
    CutUncovered,
    /// Whoever made a request, it is executed (rule 16).
    ForgedTaken,
    /// Where a change made the majority larger, the one before is still enough (rule 11).
    OldQuorum,
    /// A learner votes, and its votes count (rule 11).
    LearnerCounted,
    /// A change of the configuration is ordered while another one is under way, and taken whatever it was ordered against.
    TwoChanges,
    /// A leader takes its own word for it that it leads (rule 32).
    ReadUnconfirmed,
    /// The read index is the leader's decided mark (rule 32).
    ReadDecidedIndex,
    /// A read is answered from executions that an abort may take back (rule 32).
    ReadUnsettled,
    /// Another follower's vote decides a slot before the own one is durable.
    OthersVoteAlone,
}

impl Mutant {
    /// Every mutant, with the name that the simulator's command takes.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::MinorityCommit, "minority-commit"),
        (Self::VoteForgotten, "vote-forgotten"),
        (Self::SessionCheckSkipped, "session-check-skipped"),
        (Self::DecidedAnyBallot, "decided-any-ballot"),
        (Self::NoopOverCut, "noop-over-cut"),
        (Self::EqualBallots, "equal-ballots"),
        (Self::AcknowledgeBeforeSync, "acknowledge-before-sync"),
        (Self::SkipTailCheck, "skip-tail-check"),
        (Self::SessionsForgotten, "sessions-forgotten"),
        (Self::VoteAfterAmnesia, "vote-after-amnesia"),
        (Self::AbortByOne, "abort-by-one"),
        (Self::CutUncovered, "cut-uncovered"),
        (Self::ForgedTaken, "forged-taken"),
        (Self::OldQuorum, "old-quorum"),
        (Self::LearnerCounted, "learner-counted"),
        (Self::TwoChanges, "two-changes"),
        (Self::ReadUnconfirmed, "read-unconfirmed"),
        (Self::ReadDecidedIndex, "read-decided-index"),
        (Self::ReadUnsettled, "read-unsettled"),
        (Self::OthersVoteAlone, "others-vote-alone"),
    ];
}

#[cfg(lockstep_mutants)]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Chooses the error of every replica of this process.
#[cfg(lockstep_mutants)]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.store(mutant.map_or(0, |mutant| mutant as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether the error is compiled in and chosen.
#[cfg(lockstep_mutants)]
pub(super) fn on(mutant: Mutant) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether the error is compiled in and chosen: never.
#[cfg(not(lockstep_mutants))]
pub(super) const fn on(_mutant: Mutant) -> bool {
    false
}
