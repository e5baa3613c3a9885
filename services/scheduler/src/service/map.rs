//! Between the messages and the domain.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use prost::Message as _;
use prost_types::Timestamp;
use wolfpack_proto::scheduler::v1::{
    ExplainResponse, PlaceRequest, Reservation, ReservationState as WireState, Shape,
    Strategy as WireStrategy, WolfVerdict,
};
use wolfpack_proto::types::v1::{EncoderNeed, EncoderRequest, GpuRequest, Resources};
use wolfpack_types::capacity::{Demand, EncoderDemand, GpuDemand, WHOLE_MILLI};
use wolfpack_types::{Fault, ProjectId, Reason, ReservationState, SandboxId, WolfId};

use crate::config::Defaults;
use crate::domain::Record;
use crate::fleet::{codec, docker_mode, vendor};
use crate::placement::{Order, Ranking, Strategy, Tenant, image_name};
use crate::writer::Placement;

/// The placement a request asks for.
pub(super) fn placement(request: &PlaceRequest, defaults: &Defaults) -> Result<Placement, Fault> {
    let project = ProjectId::from_name(&request.project)?;
    let shape = request.shape.clone().unwrap_or_default();
    let mut order = order(&shape, Tenant::Project(project.clone()), defaults)?;
    order.excluded = request
        .excluded_wolves
        .iter()
        .map(|name| WolfId::from_name(name))
        .collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Placement {
        order,
        project,
        sandbox: SandboxId::from_name(&request.sandbox)?,
        request_id: request.request_id.to_ascii_lowercase(),
        body_hash: body_hash(request),
    })
}

/// The same body in another spelling of the request id is the same body.
fn body_hash(request: &PlaceRequest) -> [u8; 32] {
    let body = PlaceRequest { request_id: String::new(), ..request.clone() };
    *blake3::hash(&body.encode_to_vec()).as_bytes()
}

/// The order of a shape, with every default filled in.
pub(super) fn order(shape: &Shape, tenant: Tenant, defaults: &Defaults) -> Result<Order, Fault> {
    let wanted = shape.resources.unwrap_or_default();
    let or =
        |wanted: Option<u32>, default: u32| wanted.filter(|value| *value > 0).unwrap_or(default);
    let or64 =
        |wanted: Option<u64>, default: u64| wanted.filter(|value| *value > 0).unwrap_or(default);
    Ok(Order {
        tenant,
        demand: Demand {
            cpu_milli: u64::from(or(wanted.cpu_milli, defaults.cpu_milli)),
            memory_bytes: or64(wanted.memory_bytes, defaults.memory_bytes),
            disk_bytes: or64(wanted.disk_bytes, defaults.disk_bytes),
            pids: or(wanted.pids, defaults.pids),
            desktop: shape.desktop,
            gpu: shape.gpu.as_ref().map(gpu).transpose()?.flatten(),
            encoder: shape.encoder.as_ref().and_then(encoder),
        },
        selector: shape.wolf_selector.clone(),
        strategy: match shape.strategy() {
            WireStrategy::Unspecified | WireStrategy::Pack => Strategy::Pack,
            WireStrategy::Spread => Strategy::Spread,
        },
        excluded: BTreeSet::new(),
        docker: docker_mode(shape.docker).ok_or_else(|| {
            Fault::new(Reason::ShapeInvalid, "shape.docker: there is no such mode; leave it out")
                .violates("shape.docker", "is no mode")
        })?,
        mounts: shape.mount_sources.clone(),
        image: image_name(&shape.image),
    })
}

/// No sessions, and encoding on the CPU, are no demand.
fn encoder(request: &EncoderRequest) -> Option<EncoderDemand> {
    let required = match request.need() {
        EncoderNeed::Unspecified | EncoderNeed::Required => true,
        EncoderNeed::Preferred => false,
        EncoderNeed::Software => return None,
    };
    let sessions = request.sessions;
    let demand = EncoderDemand { sessions, codec: codec(request.codec), required };
    (sessions > 0).then_some(demand)
}

fn gpu(request: &GpuRequest) -> Result<Option<GpuDemand>, Fault> {
    let invalid = |field: &str, text: &str| {
        Err(Fault::new(Reason::ShapeInvalid, format!("{field}: {text}")).violates(field, text))
    };
    if request.share_milli > 0 && request.count != 1 {
        return invalid(
            "shape.gpu.share_milli",
            "a share is of one device; set count to 1, or share_milli to 0 for whole devices",
        );
    }
    if request.count == 0 {
        let constrained =
            !request.models.is_empty() || request.min_memory_bytes > 0 || request.vendor != 0;
        return if constrained {
            invalid(
                "shape.gpu.count",
                "is 0 but the gpu is described; set it to 1 or leave gpu out",
            )
        } else {
            Ok(None)
        };
    }
    Ok(Some(GpuDemand {
        count: request.count,
        share_milli: if request.share_milli == 0 { WHOLE_MILLI } else { request.share_milli },
        vendor: vendor(request.vendor),
        models: request.models.clone(),
        min_memory_bytes: request.min_memory_bytes,
    }))
}

/// How a release says that a reservation ended.
pub(super) fn outcome(wire: WireState) -> ReservationState {
    match wire {
        WireState::Refused => ReservationState::Refused,
        WireState::Lost => ReservationState::Lost,
        // The rules of the request let no other value through.
        WireState::Unspecified
        | WireState::Released
        | WireState::Reserved
        | WireState::Bound
        | WireState::Expired => ReservationState::Released,
    }
}

fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

/// The message of a record.
pub(super) fn reservation(record: &Record) -> Reservation {
    let state = match record.state {
        ReservationState::Reserved => WireState::Reserved,
        ReservationState::Bound => WireState::Bound,
        ReservationState::Released => WireState::Released,
        ReservationState::Expired => WireState::Expired,
        ReservationState::Refused => WireState::Refused,
        ReservationState::Lost => WireState::Lost,
    };
    Reservation {
        name: record.id.name(),
        state: state.into(),
        sandbox: record.sandbox.name(),
        project: record.project.name(),
        wolf: record.wolf.name(),
        resources: Some(Resources {
            cpu_milli: Some(u32::try_from(record.demand.cpu_milli).unwrap_or(u32::MAX)),
            memory_bytes: Some(record.demand.memory_bytes),
            disk_bytes: Some(record.demand.disk_bytes),
            pids: Some(record.demand.pids),
        }),
        gpu_ids: record.grant.devices.clone(),
        gpu_share_milli: record.grant.share_milli,
        desktop: record.demand.desktop,
        expire_time: record.expire_time.map(timestamp),
        epoch: record.epoch,
        create_time: Some(timestamp(record.create_time)),
        encoder_sessions: record.grant.encoder.as_ref().map_or(0, |encoder| encoder.sessions),
        encoder_gpu_id: record
            .grant
            .encoder
            .as_ref()
            .map(|encoder| encoder.device.clone())
            .unwrap_or_default(),
    }
}

/// The verdicts of a ranking: those that fit by score, the others by name.
pub(super) fn explanation(ranking: &Ranking<'_>) -> ExplainResponse {
    let fits = ranking.fits.iter().map(|fit| WolfVerdict {
        wolf: fit.host.id.name(),
        display_name: fit.host.display_name.clone(),
        fits: true,
        score: fit.score,
        ..WolfVerdict::default()
    });
    let mut refused: Vec<WolfVerdict> = ranking
        .refused
        .iter()
        .map(|(host, refusal)| WolfVerdict {
            wolf: host.id.name(),
            display_name: host.display_name.clone(),
            blocker: refusal.blocker().to_owned(),
            message: refusal.to_string(),
            ..WolfVerdict::default()
        })
        .collect();
    refused.sort_by(|one, other| one.wolf.cmp(&other.wolf));
    let blocked_by: BTreeMap<String, u32> = ranking
        .blocked_by()
        .into_iter()
        .map(|(blocker, count)| (blocker.to_owned(), count))
        .collect();
    ExplainResponse { verdicts: fits.chain(refused).collect(), blocked_by }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(gpu: GpuRequest) -> Shape {
        Shape { gpu: Some(gpu), ..Shape::default() }
    }

    #[test]
    fn absent_and_zero_resources_take_the_defaults() {
        let zero = Resources { cpu_milli: Some(0), memory_bytes: Some(5), ..Resources::default() };
        let shape = Shape { resources: Some(zero), ..Shape::default() };
        let demand = order(&shape, Tenant::Fleet, &Defaults::default()).unwrap().demand;
        assert_eq!(
            demand,
            Demand {
                cpu_milli: 1000,
                memory_bytes: 5,
                disk_bytes: 0,
                pids: 1024,
                desktop: false,
                gpu: None,
                encoder: None
            }
        );
    }

    #[test]
    fn shapes_that_mean_nothing_are_refused() {
        let defaults = Defaults::default();
        let read = |gpu| order(&shape(gpu), Tenant::Fleet, &defaults);
        let share_of_two = GpuRequest { count: 2, share_milli: 500, ..GpuRequest::default() };
        assert_eq!(read(share_of_two).unwrap_err().reason, Reason::ShapeInvalid);
        let none_of_a_model = GpuRequest { models: vec!["A".into()], ..GpuRequest::default() };
        assert_eq!(read(none_of_a_model).unwrap_err().reason, Reason::ShapeInvalid);
        assert_eq!(read(GpuRequest::default()).unwrap().demand.gpu, None);
        let two = read(GpuRequest { count: 2, ..GpuRequest::default() }).unwrap();
        assert_eq!(two.demand.gpu, Some(GpuDemand::whole(2)));
    }

    #[test]
    fn encoders_are_required_unless_it_is_said_otherwise() {
        let read = |sessions, need: EncoderNeed| {
            let encoder = EncoderRequest { sessions, need: need.into(), ..Default::default() };
            let shape = Shape { encoder: Some(encoder), ..Shape::default() };
            order(&shape, Tenant::Fleet, &Defaults::default()).unwrap().demand.encoder
        };
        assert_eq!(read(2, EncoderNeed::Unspecified), Some(EncoderDemand::required(2)));
        assert_eq!(read(2, EncoderNeed::Preferred), Some(EncoderDemand::preferred(2)));
        assert_eq!(read(2, EncoderNeed::Software), None);
        assert_eq!(read(0, EncoderNeed::Required), None);
        let shape = Shape { docker: 77, ..Shape::default() };
        let refused = order(&shape, Tenant::Fleet, &Defaults::default()).unwrap_err();
        assert_eq!(refused.reason, Reason::ShapeInvalid);
    }

    #[test]
    fn the_body_is_all_but_the_request_id() {
        let one =
            PlaceRequest { request_id: "a".into(), sandbox: "s".into(), ..Default::default() };
        let other = PlaceRequest { request_id: "b".into(), ..one.clone() };
        assert_eq!(body_hash(&one), body_hash(&other));
        assert_ne!(
            body_hash(&one),
            body_hash(&PlaceRequest { sandbox: "t".into(), ..one.clone() })
        );
    }
}
