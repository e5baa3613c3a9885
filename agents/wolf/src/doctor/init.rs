//! What the init of the wolf's container says.

use wolfpack_dockerd::status::{Child, State};

use super::check::Found;
use super::place::Look;

pub(super) fn status(look: &Look) -> Found {
    let Some(status) = &look.init else {
        return Found::skip("this wolf has no init of its own: its engine is the machine's");
    };
    if let Some(failed) = &status.failed {
        return Found::fail(
            format!("the step {}: {}", failed.step, failed.why),
            failed.fix.clone(),
        );
    }
    let restarts = status.engine.restarts + status.agent.restarts;
    let found = if !status.healthy() {
        let words = |name: &str, child: &Child| match &child.trouble {
            Some(trouble) => format!("{name} {:?} ({trouble})", child.state).to_lowercase(),
            None => format!("{name} {:?}", child.state).to_lowercase(),
        };
        let message = format!(
            "the init is {}: {}, {}",
            format!("{:?}", status.state).to_lowercase(),
            words("engine", &status.engine),
            words("agent", &status.agent)
        );
        if status.state == State::Starting {
            Found::warn(message, "wait for it, then run the doctor again")
        } else {
            Found::fail(message, "read the container's log: docker logs")
        }
    } else if let Some(step) = status.degraded().next() {
        let others = status.degraded().count() - 1;
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        let message = format!("the wolf goes on without {}: {}{more}", step.name, step.note);
        Found::warn(message, "read what is missing in docs/wolf.md, then restart the wolf")
    } else if restarts > 0 {
        let trouble = [&status.engine, &status.agent]
            .into_iter()
            .find_map(|child| child.trouble.clone())
            .unwrap_or_default();
        Found::warn(
            format!("engine or agent were started again {restarts} times: {trouble}"),
            "read the container's log for why they ended",
        )
    } else {
        Found::pass("engine and agent run, and every step was done")
    };
    found
        .fact("engine_restarts", status.engine.restarts)
        .fact("agent_restarts", status.agent.restarts)
        .fact("agent_replaced", status.agent.replaced)
}
