//! Who may look after a wolf.

use tonic::Status;
use wolfpack_proto::registry::v1::GetWolfRequest;
use wolfpack_rpc::{Caller, from_status, to_status};
use wolfpack_types::{Fault, Principal, Reason, Role, WolfId};

use super::Api;
use crate::reach::is_lost;

impl Api {
    /// The wolf of this name, when the caller manages it: admins of its own
    /// project; of one that serves every project, platform admins. Another
    /// project's wolf is not there, as for whoever dials one.
    pub(super) async fn managed_wolf(&self, caller: &Caller, name: &str) -> Result<WolfId, Status> {
        caller.require(Role::Viewer)?;
        let Principal::User { project, role, platform_admin, .. } = &caller.principal else {
            return Err(to_status(Fault::new(Reason::CallerForbidden, "only users may do this")));
        };
        let not_found = || {
            to_status(
                Fault::new(Reason::WolfNotFound, format!("there is no {name}; list your wolves"))
                    .about(name),
            )
        };
        let id = WolfId::from_name(name).map_err(|_| not_found())?;
        let found = self.parts.peers.wolves().get_wolf(GetWolfRequest { name: id.name() }).await;
        let wolf = match found {
            Ok(answer) => answer.into_inner().wolf.ok_or_else(not_found)?,
            Err(status) if from_status(&status).reason == Reason::WolfNotFound => {
                return Err(not_found());
            }
            Err(status) => return Err(status),
        };
        if wolf.project.is_empty() {
            if *platform_admin {
                return Ok(id);
            }
            return Err(to_status(Fault::new(
                Reason::CallerForbidden,
                "the wolf serves every project: only platform admins look after it",
            )));
        }
        if wolf.project != project.name() {
            return Err(not_found());
        }
        if *role < Role::Admin {
            return Err(to_status(Fault::new(
                Reason::RoleTooLow,
                "only admins of the project look after its wolves",
            )));
        }
        Ok(id)
    }
}

/// What a call to a wolf's agent failed with, as the caller sees it.
pub(super) fn wolf_fault(wolf: &WolfId, status: &Status) -> Status {
    let fault = from_status(status);
    if !is_lost(&fault) {
        return to_status(fault);
    }
    let lost = Fault::new(
        Reason::WolfAway,
        format!("{} does not answer through its tunnel; try again when it is back", wolf.name()),
    );
    to_status(lost.about(wolf.name()).with("wolf", fault.reason.as_str()).caused_by(fault))
}
