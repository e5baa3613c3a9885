//! `wolfpack explain`.

use wolfpack_proto::scheduler::v1 as pb;

use super::retry::retry;
use super::wolf::id;
use crate::args::sandbox::ExplainArgs;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(api: &Api, arguments: &ExplainArgs) -> Result<(), Failure> {
    let image = arguments.image.as_deref().unwrap_or_default();
    let request = pb::ExplainRequest { shape: Some(arguments.shape.shape(image)) };
    let answer =
        retry(async || Ok(api.scheduler().explain(request.clone()).await?.into_inner())).await?;
    if arguments.output.is_json() {
        return output::print_json(&output::json(
            "wolfpack.scheduler.v1.ExplainResponse",
            &answer,
        )?);
    }
    if answer.verdicts.is_empty() {
        return output::line("there is no wolf; `wolfpack join-token create` lets one join");
    }
    output::print_table(
        ["WOLF", "NAME", "FITS", "SCORE", "BLOCKER", "WHY"],
        answer.verdicts.iter().map(row),
    )?;
    let fit = answer.verdicts.iter().filter(|verdict| verdict.fits).count();
    let blocked: Vec<_> =
        answer.blocked_by.iter().map(|(blocker, count)| format!("{blocker} {count}")).collect();
    let blocked = if blocked.is_empty() {
        String::new()
    } else {
        format!("; refused by {}", blocked.join(", "))
    };
    output::line(&format!("\nfits on {fit} of {}{blocked}", answer.verdicts.len()))
}

fn row(verdict: &pb::WolfVerdict) -> [String; 6] {
    let score = if verdict.fits { format!("{:.3}", verdict.score) } else { String::new() };
    [
        id(&verdict.wolf),
        verdict.display_name.clone(),
        if verdict.fits { "yes" } else { "no" }.to_owned(),
        score,
        verdict.blocker.clone(),
        verdict.message.clone(),
    ]
}
