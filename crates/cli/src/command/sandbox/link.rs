//! `wolfpack sandbox link`.

use wolfpack_proto::sandbox::v1 as pb;

use crate::args::sandbox::LinkArgs;
use crate::command::resolve;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const RESPONSE: &str = "wolfpack.sandbox.v1.CreateLinkResponse";

/// Never tried again: whoever asks twice may have made two.
pub(super) async fn run(api: &Api, arguments: &LinkArgs) -> Result<(), Failure> {
    let request = pb::CreateLinkRequest {
        sandbox: resolve::sandbox(api, &arguments.sandbox).await?,
        port: arguments.port.into(),
        life: prost_types::Duration::try_from(arguments.life).ok(),
    };
    let link = api.ports().create_link(request).await?.into_inner();
    if arguments.output.is_json() {
        return output::print_json(&output::json(RESPONSE, &link)?);
    }
    if link.url.is_empty() {
        return Err(Failure::usage(
            "the server has no domain for sandboxes, so the link has no URL; the operator sets \
             ingress.domains of the gateway and ingress_url of the sandbox-manager; programs \
             reach the port by path with an API key: /v1/sandboxes/ID/ports/PORT/",
        ));
    }
    output::line(&link.url)
}
