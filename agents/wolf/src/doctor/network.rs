//! The engine's networks and what is around them.

use ipnet::Ipv4Net;
use wolfpack_dockerd::plan::NetworkPlan;

use super::check::Found;
use super::place::Look;

pub(super) fn pools(look: &Look) -> Found {
    let outer = match &look.outer {
        Ok(outer) => outer,
        Err(why) => return Found::skip(format!("the routes cannot be read: {why}")),
    };
    let plan = look.init.as_ref().and_then(|init| init.plan.as_ref());
    let mut own: Vec<Ipv4Net> = plan.map(NetworkPlan::networks).unwrap_or_default();
    own.extend(&outer.bridges);
    let own = Ipv4Net::aggregate(&own);
    if own.is_empty() {
        return Found::skip("the engine has no networks yet, and none are planned");
    }
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    let clash = own
        .iter()
        .find_map(|own| outer.routes.iter().find(|net| overlaps(own, net)).map(|net| (own, net)));
    let words = |nets: &[Ipv4Net]| {
        nets.iter().take(12).map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let found = match clash {
        Some((own, other)) => Found::fail(
            format!("the engine's {own} overlaps {other}, which is routed elsewhere"),
            "restart the wolf, so that it plans anew, or give it another range \
             (WOLFPACK_INIT__POOL; default-address-pools of a machine's engine)",
        ),
        None => Found::pass(format!("{} overlap nothing that is routed", words(&own))),
    };
    found.fact("own", words(&own)).fact("routes", words(&outer.routes))
}

pub(super) fn mtu(look: &Look) -> Found {
    let Some(uplink) = look.outer.as_ref().ok().and_then(|outer| outer.uplink_mtu) else {
        return Found::skip("there is no default route to see an MTU of");
    };
    let Some(plan) = look.init.as_ref().and_then(|init| init.plan.as_ref()) else {
        return Found::skip("the engine's networks were not planned by this wolf")
            .fact("uplink", uplink);
    };
    let found = if plan.mtu > uplink {
        Found::fail(
            format!("sandboxes send packets of {} bytes, the way out takes {uplink}", plan.mtu),
            "restart the wolf, so that it plans anew, or set WOLFPACK_INIT__MTU",
        )
    } else {
        Found::pass(format!("sandboxes' packets ({} bytes) fit the way out ({uplink})", plan.mtu))
    };
    found.fact("uplink", uplink).fact("inner", plan.mtu)
}
