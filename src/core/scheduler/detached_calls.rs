//! Calls whose delivery became void while they ran: their answers are not lost.

use super::attempts::renamed;
use super::job::Phase;
use super::{JobId, Scheduler, StepContext};
use crate::core::policy::verdict::Verdict;

impl Scheduler {
    /// Whose answer this is: the job itself, the heir of an orphan, or nobody.
    pub(super) fn resolve_owner(
        &mut self,
        id: JobId,
        verdict: &Verdict,
        cx: &mut StepContext<'_>,
    ) -> Option<JobId> {
        let Some(cut) = self.jobs.get(&id)?.orphan else {
            return Some(id);
        };
        let orphan = self.remove(id)?;
        if let Some(identity) = orphan.identity {
            self.orphans.remove(&identity);
        }
        let Some(heir) = orphan.heir else {
            // That it took effect is told when the message comes again. A failure is not: another
            // worker may have tried it meanwhile.
            let outcome = match verdict {
                Verdict::Renamed {
                    how,
                    confirmed_by,
                    user_id,
                    username,
                } => {
                    let told = (*user_id, username.clone());
                    Some(renamed(&orphan, *how, *confirmed_by, told, cx))
                }
                Verdict::Failed(_)
                | Verdict::Ask(_)
                | Verdict::Retry(_)
                | Verdict::BadCredentials { .. } => None,
            };
            if let (Some(identity), Some(outcome)) = (orphan.identity, outcome) {
                self.recent.remember(identity, &outcome);
            }
            if let Some(ticket) = orphan.ticket {
                self.line.delivery_lost(ticket, orphan.source, cut, cx.now);
            }
            return None;
        };
        let job = self.jobs.get_mut(&heir)?;
        job.carried.attempts = orphan.carried.attempts;
        job.carried.first_attempt_at = orphan.carried.first_attempt_at;
        job.carried.refused_since = orphan.carried.refused_since;
        job.received_at = orphan.received_at;
        Some(heir)
    }

    /// A message comes again whose call is still under way: it takes the call over.
    pub(super) fn reattach(&mut self, orphan: JobId, heir: JobId) {
        let Some(job) = self.jobs.get_mut(&orphan) else {
            return;
        };
        job.heir = Some(heir);
        let ticket = job.ticket.take();
        // The heir stands where the orphan stood.
        if let (Some(ticket), Some(job)) = (ticket, self.jobs.get_mut(&heir)) {
            let own = job.ticket.replace(ticket);
            self.by_ticket.insert(ticket, heir);
            if let Some(own) = own {
                self.by_ticket.remove(&own);
                self.line.release(own);
            }
        }
        self.set_phase(heir, Phase::Heir);
    }
}
