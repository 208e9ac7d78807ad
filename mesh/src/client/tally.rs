//! Voting on replies.

/// How many equal replies of the members with an application make an answer (rule 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyVote {
    /// Any one: the fastest. An execution may be shown that an ordered abort takes back.
    First,
    /// A majority.
    Majority,
    /// All of them.
    All,
}

impl ReplyVote {
    /// Equal replies needed of `electorate` members.
    #[must_use]
    pub const fn needed(self, electorate: usize) -> usize {
        match self {
            Self::First => 1,
            Self::Majority => crate::quorum::majority(electorate),
            Self::All => electorate,
        }
    }
}
