//! What a malicious SMaRtClient can be told to do.

use std::fmt;
use std::str::FromStr;

/// Draws are in so many parts of one.
const PER_MILLE: f64 = 1000.0;

macro_rules! behaviours {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $group:ident,)*) => {
        /// One way to misbehave.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Behaviour {
            $($(#[$doc])* $variant,)*
        }

        impl Behaviour {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in counts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is about.
            #[must_use]
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)* }
            }
        }
    };
}

/// Behaviours that are tried against the same cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Requests that clients sent become others.
    Requests,
    /// What clients are told is not what the servers said.
    Replies,
    /// Requests that no client sent.
    Forgery,
    /// Requests come late, in another order, or not at all.
    Delivery,
    /// Bytes that are no messages, and messages larger than allowed.
    Garbage,
    /// More than anybody can take.
    Floods,
    /// Links that a SMaRtClient may not have.
    Roles,
}

impl Group {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Requests, Self::Replies, Self::Forgery, Self::Delivery, Self::Garbage, Self::Floods, Self::Roles];

    /// Its behaviours.
    pub fn members(self) -> impl Iterator<Item = Behaviour> {
        Behaviour::ALL.iter().copied().filter(move |behaviour| behaviour.group() == self)
    }
}

behaviours! {
    /// A call's last byte is another one.
    AlterBody = "alter-body" in Requests,
    /// A call gets the number after its own.
    AlterNumber = "alter-number" in Requests,
    /// A call is moved to another client's session, as its next.
    AlterSession = "alter-session" in Requests,
    /// What shows who made a call is taken from it.
    StripProof = "strip-proof" in Requests,
    /// The opening of a session becomes that of a session that belongs to no key.
    StripOwner = "strip-owner" in Requests,

    /// A reply's last byte is another one.
    AlterReply = "alter-reply" in Replies,
    /// The reply to an earlier request, of another session, is given in the place of the right one.
    OtherReply = "other-reply" in Replies,
    /// Two clients get each other's replies.
    SwapReplies = "swap-replies" in Replies,
    /// A call is answered at once with a reply that nobody gave; no server hears of it.
    InventReply = "invent-reply" in Replies,
    /// The same, signed with a key of its own in the name of every server, whose certificates it made itself.
    InventServers = "invent-servers" in Replies,
    /// Of the servers' signed words only one is passed on, as often as there were words.
    RepeatVoucher = "repeat-voucher" in Replies,
    /// The opening of a session is answered at once with a session that there is not.
    InventSession = "invent-session" in Replies,
    /// A call that was sent and executed is said not to have been sent.
    SayNothingSent = "say-nothing-sent" in Replies,
    /// A call that was executed is said to be unknown, or its session to be gone.
    SayUnknown = "say-unknown" in Replies,
    /// A call that was executed is said to have been refused by order.
    SayRefused = "say-refused" in Replies,

    /// A session is opened under a name of its own, and a call sent in it.
    ForgeSession = "forge-session" in Forgery,
    /// The same, well signed with a key of its own, whose certificate it made itself, in the name of an ingress.
    ForgeOwner = "forge-owner" in Forgery,
    /// A call is sent in another client's session, as its next.
    ForgeCall = "forge-call" in Forgery,
    /// The refusal that only a leader may order, in another client's session.
    ForgeRefused = "forge-refused" in Forgery,
    /// Another client's next number is cancelled.
    ForgeCancel = "forge-cancel" in Forgery,
    /// Another client's session is closed.
    ForgeClose = "forge-close" in Forgery,
    /// Requests that were seen earlier are sent again.
    Replay = "replay" in Forgery,

    /// A request is taken and nothing follows.
    Drop = "drop" in Delivery,
    /// A request's stream is reset.
    HangUp = "hang-up" in Delivery,
    /// A request is passed on late.
    Delay = "delay" in Delivery,
    /// A request is passed on after the next one that comes.
    Reorder = "reorder" in Delivery,

    /// Servers get bytes that are no request.
    GarbageServers = "garbage-servers" in Garbage,
    /// The ingress gets bytes that are no answer.
    GarbageIngress = "garbage-ingress" in Garbage,
    /// Servers get a message that is larger than allowed.
    OversizeServers = "oversize-servers" in Garbage,
    /// The ingress gets an answer that is larger than allowed.
    OversizeIngress = "oversize-ingress" in Garbage,

    /// Servers get requests of sessions that there are not, and old ones, many a second.
    FloodServers = "flood-servers" in Floods,
    /// Many sessions are opened.
    FloodSessions = "flood-sessions" in Floods,
    /// All streams of a link to each server are opened, and none is ended.
    FloodStreams = "flood-streams" in Floods,
    /// Many links are opened to each server.
    FloodLinks = "flood-links" in Floods,
    /// The ingress gets messages that it did not ask for, many a second.
    FloodIngress = "flood-ingress" in Floods,

    /// The consensus protocol is spoken to servers with a SMaRtClient's certificate.
    PeerAlpn = "peer-alpn" in Roles,
    /// The operators' protocol is.
    AdminAlpn = "admin-alpn" in Roles,
    /// The protocol of ingresses is, which servers do not speak.
    ClientAlpn = "client-alpn" in Roles,
    /// A certificate that it made itself says that it is a server.
    ClaimRole = "claim-role" in Roles,
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A behaviour and how often it is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub behaviour: Behaviour,
    /// In so many of a thousand cases.
    pub per_mille: u32,
}

impl Wish {
    /// Whenever there is an occasion.
    #[must_use]
    pub const fn always(behaviour: Behaviour) -> Self {
        Self { behaviour, per_mille: 1000 }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.behaviour, f64::from(self.per_mille) / PER_MILLE)
    }
}

impl FromStr for Wish {
    type Err = String;

    /// `NAME` or `NAME=PROBABILITY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, chance) = text.split_once('=').unwrap_or((text, "1"));
        let behaviour = Behaviour::ALL.iter().copied().find(|behaviour| behaviour.name() == name).ok_or_else(|| {
            let names: Vec<_> = Behaviour::ALL.iter().map(|behaviour| behaviour.name()).collect();
            format!("\"{name}\" is none of {}", names.join(", "))
        })?;
        let chance = chance.parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance));
        let chance = chance.ok_or_else(|| format!("\"{text}\": a probability is a number from 0 to 1"))?;
        Ok(Self { behaviour, per_mille: (chance * PER_MILLE).round() as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_read_back() {
        let names: BTreeSet<_> = Behaviour::ALL.iter().map(|behaviour| behaviour.name()).collect();
        assert_eq!(names.len(), Behaviour::ALL.len());
        assert_eq!(Group::ALL.into_iter().flat_map(Group::members).count(), Behaviour::ALL.len());
        for &behaviour in Behaviour::ALL {
            assert_eq!(behaviour.name().parse(), Ok(Wish::always(behaviour)));
            let rarely = Wish { behaviour, per_mille: 250 };
            assert_eq!(rarely.to_string().parse(), Ok(rarely));
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for text in ["", "be-nice", "drop=", "drop=2", "drop=-1", "drop=NaN", "=1"] {
            assert!(text.parse::<Wish>().is_err(), "{text:?}");
        }
    }
}
