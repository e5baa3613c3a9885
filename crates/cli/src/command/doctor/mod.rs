//! `wolfpack doctor`.

mod local;
mod probe;
mod report;

use std::process::ExitCode;

use wolfpack_proto::sandbox::v1 as pb;

use super::resolve;
use crate::args::doctor::DoctorArgs;
use crate::connect::Api;
use crate::failure::Failure;
use report::Report;

pub(super) use local::run as local;

pub(super) async fn run(api: &Api, arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    let json = arguments.is_json();
    match (&arguments.wolf, &arguments.probe) {
        (Some(wolf), _) => remote(api, wolf, json).await,
        (None, Some(sandbox)) => probe::run(api, sandbox, json).await,
        (None, None) => local(arguments).await,
    }
}

/// Through the tunnel of a wolf; each line as it is there.
async fn remote(api: &Api, given: &str, json: bool) -> Result<ExitCode, Failure> {
    let wolf = resolve::wolf(api, given).await?.name;
    let request = pb::CheckWolfRequest { wolf };
    let mut answers = api.doctor().check_wolf(request).await?.into_inner();
    let mut report = Report::new(json);
    while let Some(answer) = answers.message().await? {
        if let Some(check) = answer.check {
            report.add(&check)?;
        }
    }
    report.end()
}
