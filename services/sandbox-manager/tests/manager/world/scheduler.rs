//! Reservations: the first wolf that is online, has room and is not excluded.

use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};
use wolfpack_proto::registry::v1::WolfState;
use wolfpack_proto::scheduler::v1::scheduler_service_server::SchedulerService;
use wolfpack_proto::scheduler::v1::*;
use wolfpack_types::{Reason, ReservationId, WolfId};

use super::{Effect, Held, State, World, fault, not_served};

pub(crate) fn is_live(held: &Held, ttl: Duration) -> bool {
    match held.reservation.state() {
        ReservationState::Reserved => held.made.elapsed() < ttl,
        ReservationState::Bound => true,
        _ => false,
    }
}

fn used(state: &State, wolf: &str, ttl: Duration) -> usize {
    state.reservations.iter().filter(|it| it.reservation.wolf == wolf && is_live(it, ttl)).count()
}

fn choose(state: &State, request: &PlaceRequest, ttl: Duration) -> Option<WolfId> {
    state
        .wolves
        .iter()
        .filter(|(id, wolf)| {
            wolf.state() == WolfState::Online && !request.excluded_wolves.contains(&id.name())
        })
        .find(|(id, wolf)| used(state, &wolf.name, ttl) < state.room[*id])
        .map(|(id, _)| id.clone())
}

#[tonic::async_trait]
impl SchedulerService for World {
    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let request = request.into_inner();
        let ttl = self.inner.reservation_ttl;
        let reservation = self.with(|state| {
            *state.counts.entry("place").or_default() += 1;
            let known =
                state.reservations.iter().find(|it| it.request.request_id == request.request_id);
            if let Some(known) = known {
                if known.request != request {
                    return Err(fault(Reason::RequestIdReused, "another body"));
                }
                let mut answer = known.reservation.clone();
                if !is_live(known, ttl) && answer.state() == ReservationState::Reserved {
                    answer.set_state(ReservationState::Expired);
                }
                return Ok(answer);
            }
            let wolf = choose(state, &request, ttl)
                .ok_or_else(|| fault(Reason::NoWolfFits, "all wolves are full"))?;
            let mut reservation = Reservation {
                name: ReservationId::new().name(),
                sandbox: request.sandbox.clone(),
                project: request.project.clone(),
                wolf: wolf.name(),
                epoch: 1,
                ..Reservation::default()
            };
            reservation.set_state(ReservationState::Reserved);
            reservation.expire_time = Some((std::time::SystemTime::now() + ttl).into());
            state.reservations.push(Held {
                reservation: reservation.clone(),
                request,
                made: Instant::now(),
            });
            Ok(reservation)
        })?;
        self.after(Effect::Place).await;
        Ok(Response::new(PlaceResponse { reservation: Some(reservation) }))
    }

    async fn confirm_reservation(
        &self,
        request: Request<ConfirmReservationRequest>,
    ) -> Result<Response<ConfirmReservationResponse>, Status> {
        let name = request.into_inner().name;
        let ttl = self.inner.reservation_ttl;
        let reservation = self.with(|state| {
            if state.binds_nothing {
                return Err(fault(Reason::DependencyUnavailable, "no database"));
            }
            let held = state
                .reservations
                .iter_mut()
                .find(|it| it.reservation.name == name)
                .ok_or_else(|| fault(Reason::ReservationNotFound, "no such reservation"))?;
            if !is_live(held, ttl) {
                return Err(fault(Reason::ReservationNotLive, "it has ended"));
            }
            held.reservation.set_state(ReservationState::Bound);
            held.reservation.expire_time = None;
            Ok(held.reservation.clone())
        })?;
        self.after(Effect::Confirm).await;
        Ok(Response::new(ConfirmReservationResponse { reservation: Some(reservation) }))
    }

    async fn release_reservation(
        &self,
        request: Request<ReleaseReservationRequest>,
    ) -> Result<Response<ReleaseReservationResponse>, Status> {
        let request = request.into_inner();
        let ttl = self.inner.reservation_ttl;
        let outcome = match request.outcome() {
            ReservationState::Unspecified => ReservationState::Released,
            other => other,
        };
        let reservation = self.with(|state| {
            let containers: Vec<String> =
                state.containers.values().map(|it| it.reservation.clone()).collect();
            let held = state
                .reservations
                .iter_mut()
                .find(|it| it.reservation.name == request.name)
                .ok_or_else(|| fault(Reason::ReservationNotFound, "no such reservation"))?;
            if is_live(held, ttl) {
                // Goods are free only when nothing runs on them any more.
                let bound = held.reservation.state() == ReservationState::Bound;
                if bound && containers.contains(&request.name) {
                    let what = format!("{} was released before its container", request.name);
                    state.violations.push(what);
                }
                held.reservation.set_state(outcome);
            }
            Ok::<_, Status>(held.reservation.clone())
        })?;
        self.after(Effect::Release).await;
        Ok(Response::new(ReleaseReservationResponse { reservation: Some(reservation) }))
    }

    async fn explain(
        &self,
        _: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        Err(not_served())
    }
}
