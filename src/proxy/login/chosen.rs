//! What a client has chosen at login is tried on a server, unless one has been asked about the same before: a value that
//! no server takes is refused here, not with the first query.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::newcomer::Newcomer;
use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::proxy::close::CloseReason;
use crate::proxy::give_back::give_back;
use crate::proxy::pools::{Pool, User};
use crate::session::parameters::{self, Parameters};
use crate::session::trials::Outcome;

/// How many servers may go while they are asked: after a restart all that are idle have.
const ATTEMPTS: usize = 5;

/// A parameter, and the value chosen.
type Choice = (Box<[u8]>, Box<[u8]>);

impl Newcomer {
    /// The parameters of a client who has chosen `own` where servers report `reported`.
    pub(super) async fn try_chosen(
        &mut self,
        pool: &Arc<Pool>,
        user: &User,
        reported: &Parameters,
        mut own: Parameters,
    ) -> Result<Arc<Parameters>, Failure> {
        let chosen: Vec<Choice> =
            own.differing_from(reported).map(|(name, value)| (name.into(), value.into())).collect();
        let mut unknown = Vec::new();
        for (name, value) in chosen {
            if name.eq_ignore_ascii_case(b"application_name") {
                // Any text will do, as the server cleans it. Each client may have its own.
                let clean = parameters::clean_ascii(&value, reported);
                own.set(&name, &clean);
                continue;
            }
            let outcome = pool.trials.lock().get(&name, &value, clock::now());
            match outcome {
                Some(Outcome::Taken) => {}
                Some(Outcome::Refused(refusal)) => return Err(refusal.into()),
                None => unknown.push((name, value)),
            }
        }
        if !unknown.is_empty() {
            Box::pin(self.ask_a_server(pool, user, reported, &unknown)).await?;
        }
        Ok(Arc::new(own))
    }

    async fn ask_a_server(
        &mut self,
        pool: &Arc<Pool>,
        user: &User,
        reported: &Parameters,
        unknown: &[Choice],
    ) -> Result<(), Failure> {
        let limit = pool.settings.load().server_connect_timeout;
        let limit = if limit.is_zero() { Duration::MAX } else { limit };
        let mut left = unknown.iter();
        for _ in 0..ATTEMPTS {
            let mut server = self.wait_for_server(pool, &user.name).await?;
            let failure = loop {
                let Some((name, value)) = left.as_slice().first() else {
                    give_back(&self.shared, pool, server, self.worker, false);
                    return Ok(());
                };
                let trial = tokio::time::timeout(limit, server.try_parameter(reported, name, value)).await;
                let outcome = match trial.unwrap_or_else(|_| Err("no answer to a SET".into())) {
                    Ok(outcome) => outcome,
                    Err(failure) => break failure,
                };
                pool.trials.lock().put(name, value, &outcome, clock::now());
                left.next();
                if let Outcome::Refused(refusal) = outcome {
                    give_back(&self.shared, pool, server, self.worker, false);
                    return Err(refusal.into());
                }
            };
            server.close(CloseReason::Lost(failure));
        }
        Err(Refusal::new(sqlstate::CONNECTION_FAILURE, "server conn crashed?").into())
    }
}
