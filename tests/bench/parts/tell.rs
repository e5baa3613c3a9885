//! How many tasks a part that runs on one thread has.

use std::time::Duration;

use wolfpack_runtime::Context;

/// Writes `tasks N` to standard output every half second: the tasks that are
/// alive on the runtime this is called on.
pub(super) fn tasks(context: &Context) {
    context.supervisor.spawn("tell_tasks", async {
        loop {
            println!("tasks {}", tokio::runtime::Handle::current().metrics().num_alive_tasks());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}
