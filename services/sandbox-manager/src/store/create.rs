//! Making rows.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use wolfpack_store::idempotency::{self, Claim};
use wolfpack_types::{ProjectId, SandboxId, SandboxState};

use super::entity::{label, sandbox};
use super::error::name_taken;
use super::{Result, Sandbox, Sandboxes, Transaction, read};

/// What became of a create.
pub(crate) struct Created {
    /// The sandbox: the fresh one, or the one that the first call made.
    pub(crate) sandbox: Sandbox,
    /// Whether this call made it.
    pub(crate) fresh: bool,
}

#[derive(Clone)]
struct Create {
    sandbox: Sandbox,
    request_id: String,
    body_hash: [u8; 32],
}

impl Sandboxes {
    /// Inserts a sandbox, or finds the one that the same request made before.
    ///
    /// # Errors
    /// `REQUEST_ID_REUSED` with another body, `DISPLAY_NAME_TAKEN`.
    pub(crate) async fn create(
        &self,
        sandbox: &Sandbox,
        request_id: &str,
        body_hash: [u8; 32],
    ) -> Result<Created> {
        let create =
            Create { sandbox: sandbox.clone(), request_id: request_id.to_owned(), body_hash };
        self.tx(create, |tx, create| Box::pin(insert(tx, create))).await
    }
}

async fn insert(tx: Transaction<'_>, create: Create) -> Result<Created> {
    let Create { mut sandbox, request_id, body_hash } = create;
    let method = format!("{}/CreateSandbox", sandbox.project.name());
    let mut scope = method.clone();
    let name = sandbox.id.name();
    while let Claim::Replay(first) =
        idempotency::claim(tx.tx, &scope, &request_id, body_hash, &name).await?
    {
        let row = match SandboxId::from_name(&first) {
            Ok(id) => read(sandbox::Entity::find_by_id(id.as_str()).one(tx.tx).await?)?,
            Err(_) => None,
        };
        if let Some(sandbox) = row {
            return Ok(Created { sandbox, fresh: false });
        }
        // Its row was removed a while after its end, and with it the request
        // is over: it is claimed anew, as one that followed that sandbox.
        scope = format!("{method}/after/{first}");
    }
    if name_is_taken(&tx, &sandbox.project, &sandbox.asked.display_name).await? {
        return Err(name_taken().into());
    }
    sandbox.revision = tx.next_revision().await?;
    sandbox::Entity::insert(sandbox.to_row()).exec_without_returning(tx.tx).await?;
    let labels: Vec<_> = sandbox
        .asked
        .labels
        .iter()
        .map(|(key, value)| label::ActiveModel {
            sandbox_id: Set(sandbox.id.to_string()),
            label_key: Set(key.clone()),
            project: Set(sandbox.project.to_string()),
            label_value: Set(value.clone()),
        })
        .collect();
    if !labels.is_empty() {
        label::Entity::insert_many(labels).exec_without_returning(tx.tx).await?;
    }
    Ok(Created { sandbox, fresh: true })
}

async fn name_is_taken(tx: &Transaction<'_>, project: &ProjectId, name: &str) -> Result<bool> {
    if name.is_empty() {
        return Ok(false);
    }
    let over = [SandboxState::Deleting, SandboxState::Deleted].map(SandboxState::as_str);
    let other: Option<String> = sandbox::Entity::find()
        .select_only()
        .column(sandbox::Column::Id)
        .filter(sandbox::Column::Project.eq(project.as_str()))
        .filter(sandbox::Column::DisplayName.eq(name))
        .filter(sandbox::Column::State.is_not_in(over))
        .into_tuple()
        .one(tx.tx)
        .await?;
    Ok(other.is_some())
}
