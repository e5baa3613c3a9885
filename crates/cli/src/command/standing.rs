//! What is known of an endpoint that the broker knows no agent of.

use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_types::{Endpoint, Fault, Reason};

use super::resolve;
use crate::connect::Api;
use crate::failure::Failure;

/// What the manager says of a sandbox, and the registry of a wolf.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It is gone for good, or not this key's to see; what to end with.
    Gone(Fault),
    /// It is there, or will be again; which one, and its state, in words.
    There(String),
}

/// Asks for it: reads alone, and a few at most.
///
/// # Errors
/// When nobody answers, or this key may not ask.
pub(crate) async fn of(api: &Api, endpoint: &Endpoint) -> Result<Standing, Failure> {
    let name = endpoint.to_string();
    let asked = match endpoint {
        Endpoint::Sandbox(_) => resolve::get(api, &name).await.map(|found| of_sandbox(&found)),
        Endpoint::Wolf(_) => resolve::wolf(api, &name).await.map(|found| of_wolf(&found)),
    };
    match asked {
        Err(Failure::Fault(fault))
            if matches!(fault.reason, Reason::SandboxNotFound | Reason::WolfNotFound) =>
        {
            let words = format!("{name} is not there (any more), or not this key's to see");
            Ok(Standing::Gone(Fault::new(fault.reason, words).about(name)))
        }
        asked => asked,
    }
}

fn of_sandbox(sandbox: &pb::Sandbox) -> Standing {
    let name = &sandbox.name;
    let status = sandbox.status.clone().unwrap_or_default();
    let state = status.state();
    let gone =
        |reason, words: String| Standing::Gone(Fault::new(reason, words).about(name.clone()));
    match state {
        pb::SandboxState::Deleting | pb::SandboxState::Deleted => {
            gone(Reason::SandboxNotFound, format!("{name} was deleted"))
        }
        pb::SandboxState::Failed => gone(
            Reason::SandboxNotRunning,
            format!(
                "{name} has failed and will not run again ({}: {})",
                status.reason, status.message
            ),
        ),
        _ => there(name, state.as_str_name(), "SANDBOX_STATE_"),
    }
}

fn of_wolf(wolf: &registry::Wolf) -> Standing {
    there(&wolf.name, wolf.state().as_str_name(), "WOLF_STATE_")
}

fn there(name: &str, state: &str, prefix: &str) -> Standing {
    match state.trim_start_matches(prefix) {
        "UNSPECIFIED" => Standing::There(format!("{name} exists")),
        state => Standing::There(format!("{name} is {state}")),
    }
}

/// The fault of a call that found no agent of `endpoint`, with what is known of
/// the endpoint: that it is there, or why it is not. Any other fault, and one of
/// which nobody knows more, stays as it is.
pub(crate) async fn explain(api: &Api, endpoint: &Endpoint, failure: Failure) -> Failure {
    if !failure.is(Reason::EndpointNotFound) {
        return failure;
    }
    match of(api, endpoint).await {
        Ok(Standing::Gone(fault)) => fault.into(),
        Ok(Standing::There(words)) => {
            let words = format!("{words}, but no agent of it is attached; try again once one is");
            Fault::new(Reason::EndpointNotFound, words).about(endpoint.to_string()).into()
        }
        Err(_) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_runs_again_is_gone() {
        for number in 0..=9 {
            let state = pb::SandboxState::try_from(number).unwrap();
            let status = pb::SandboxStatus {
                state: number,
                reason: "SANDBOX_EXITED".into(),
                ..Default::default()
            };
            let sandbox = pb::Sandbox {
                name: "sandboxes/a".into(),
                status: Some(status),
                ..Default::default()
            };
            // As the one table of states has it: nothing but a delete follows.
            let gone = match wolfpack_types::SandboxState::ALL
                .into_iter()
                .find(|known| state.as_str_name().ends_with(&known.as_str().to_uppercase()))
            {
                Some(known) => {
                    !known.may_become(wolfpack_types::SandboxState::Running)
                        && !known.may_become(wolfpack_types::SandboxState::Failed)
                        && known != wolfpack_types::SandboxState::Running
                }
                None => false,
            };
            match of_sandbox(&sandbox) {
                Standing::Gone(fault) => {
                    assert!(gone, "{state:?}: {fault}");
                    assert!(fault.message.contains("sandboxes/a"), "{fault}");
                }
                Standing::There(words) => {
                    assert!(!gone, "{state:?}: {words}");
                    let word = state.as_str_name().trim_start_matches("SANDBOX_STATE_");
                    assert!(number == 0 || words.ends_with(word), "{words}");
                }
            }
        }
    }
}
