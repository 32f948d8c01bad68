//! What a reason means and what can be done about it, for the person who reviews.

use super::dead_letter::DeadLetter;

/// Reasons of letters that no worker wrote: RabbitMQ moved them, or something else put them there.
pub const OTHER_REASONS: [&str; 5] = [
    "broker_delivery_limit",
    "broker_expired",
    "broker_maxlen",
    "broker_rejected",
    "unknown",
];

/// Some sentences on the letter's reason.
#[must_use]
pub fn explain(letter: &DeadLetter) -> &'static str {
    explain_reason(&letter.reason())
}

fn explain_reason(reason: &str) -> &'static str {
    match reason {
        "invalid_request" => {
            "The message is no request the worker could read; the API was never called. Put the \
             body right (--edit, --set) and replay it, or discard it and have its sender send a \
             valid one."
        }
        "user_not_found" => {
            "The account has no user of that name. It may have been renamed or removed before, or \
             the name is misspelt. Put the username right and replay it, or discard it."
        }
        "username_taken" => {
            "Another user of the account has the new name already. Replay it with another one \
             (--set new_username=…), or free the name first."
        }
        "forbidden" => {
            "The API knows our credentials but does not let them do this. See to it that the \
             client has the scope write:accounts:/auth/users in this account, then replay it."
        }
        "rejected" => {
            "The API refused the request for good; the status says more. Put the request right and \
             replay it, or discard it."
        }
        "user_mismatch" => {
            "The user who has that name is not the one the request names by user_id. The detail \
             says whether the rename took effect. Find out who was meant before you replay it."
        }
        "outcome_unknown" => {
            "The rename may have taken effect: the API never made clear whether it did. Look at the \
             user in Dintero. If it has the new name, discard the letter; if not, replay it: the \
             worker asks once more before it reports a failure."
        }
        "deadline_exceeded" => {
            "Its time (not_after) was over before it could be done. If it is still wanted, replay \
             it with another time (--set not_after=…) or none (--set not_after=)."
        }
        "retries_exhausted" => {
            "The API could not do it, again and again, until the worker gave up. Once the API is \
             well, replay it: it starts anew."
        }
        "poison" => {
            "It was delivered again and again without an end: it may be what stops the worker. \
             Look at the worker's log before you replay it."
        }
        "broker_delivery_limit" => {
            "RabbitMQ delivered it as often as the queue allows, and no worker ended it: workers \
             were killed or lost their connection each time. Nobody was told that it failed. \
             Replay it once the workers are well."
        }
        "broker_rejected" | "broker_expired" | "broker_maxlen" => {
            "RabbitMQ itself moved it here from another queue; no worker looked at it last, and \
             nobody was told that it failed. The history says from where and why."
        }
        "unknown" => {
            "It does not say why it is here: something else than the worker put it here, such as a \
             shovel or a person. If it is a valid request, it can be replayed."
        }
        _ => "This version does not know the reason; a newer worker may have written it.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::outcome::Reason;

    #[test]
    fn every_reason_is_explained() {
        let unknown = explain_reason("?");
        for reason in Reason::ALL
            .map(Reason::as_str)
            .into_iter()
            .chain(OTHER_REASONS)
        {
            assert_ne!(explain_reason(reason), unknown, "{reason}");
        }
    }
}
