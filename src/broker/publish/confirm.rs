//! The proof that the broker has what an outcome published, and what may be done with it.
//!
//! Contract 4.2: a request is acked only after the broker confirmed what its outcome publishes. So
//! settling a delivery costs [`PublisherConfirm`] tokens, and only a broker's confirm makes one.

/// The broker has taken responsibility for one message. It cannot be made elsewhere, nor copied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a confirm is the only thing a delivery can be settled with"]
pub struct PublisherConfirm {
    routed: bool,
    whole: bool,
}

impl PublisherConfirm {
    pub(in crate::broker) const fn by_broker(routed: bool, whole: bool) -> Self {
        Self { routed, whole }
    }

    /// Whether it has the properties that it was to have. If not, the broker refused those.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether at least one queue took it. An event that no queue takes is no error.
    #[must_use]
    pub const fn routed(&self) -> bool {
        self.routed
    }
}

/// What came of one publish.
#[derive(Debug, PartialEq, Eq)]
pub enum PublishResult {
    Confirmed(PublisherConfirm),
    /// A dead letter or a copy that no queue took: the queue or the binding is gone.
    Returned,
    /// The broker refused it: by a nack, where a queue is full or has no leader; or by closing the
    /// channel, and in every form that it may be published in.
    Refused,
    /// The connection or channel ended before the confirm; the broker may have it or not.
    Lost,
}

/// Why a delivery may be acked.
#[derive(Debug)]
pub enum AckPermit {
    /// Its `user.renamed` is out.
    Outcome { event: PublisherConfirm },
    /// Its `user.rename-failed` is out, and the request is in the dead letters.
    Failure {
        event: PublisherConfirm,
        letter: PublisherConfirm,
    },
    /// A copy of it is in a wait queue or at the tail of the due queue.
    Copied(PublisherConfirm),
}
