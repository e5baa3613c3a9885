//! Keeping the last output of a sandbox that ends.

use std::time::Duration;

use wolfpack_proto::agent::v1::StreamLogsRequest;
use wolfpack_types::{SandboxId, WolfId};

use crate::reconcile::Reconciler;

/// How long an end waits for the last output.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much of it is kept.
const KEPT_BYTES: usize = 64 * 1024;

impl Reconciler {
    /// The last lines of a sandbox's output; what could be had in a short time.
    pub(super) async fn last_logs(&self, wolf: &WolfId, sandbox: &SandboxId) -> String {
        let mut kept = Vec::new();
        let reading = self.read_logs(wolf, sandbox, &mut kept);
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%sandbox, %error, "its last output is not to be had"),
            Err(_) => tracing::debug!(%sandbox, "its last output takes too long"),
        }
        String::from_utf8_lossy(&kept).into_owned()
    }

    async fn read_logs(
        &self,
        wolf: &WolfId,
        sandbox: &SandboxId,
        kept: &mut Vec<u8>,
    ) -> Result<(), tonic::Status> {
        let request = StreamLogsRequest {
            sandbox: sandbox.name(),
            follow: false,
            tail_lines: self.config.log_lines,
        };
        let mut stream = self.peers.runtime_stream(wolf).stream_logs(request).await?.into_inner();
        while let Some(piece) = stream.message().await? {
            kept.extend_from_slice(&piece.data);
            if kept.len() > KEPT_BYTES {
                kept.drain(..kept.len() - KEPT_BYTES);
            }
        }
        Ok(())
    }
}
