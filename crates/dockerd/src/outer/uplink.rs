//! The MTU of the way out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket, sockopt::IpMtu,
};

use super::route_table::DeviceRoute;
use super::{is_default, number};

/// Addresses far away, in both halves of the address space: VPNs route each
/// half by itself. Nothing is sent to them.
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(193, 0, 14, 129)];

/// The MTU of the device that the default route with the least metric uses.
pub(super) fn of_device(routes: &[DeviceRoute], sys_class_net: &Path) -> Option<u32> {
    let uplink = routes
        .iter()
        .filter(|route| is_default(&route.net))
        .min_by_key(|route| (std::cmp::Reverse(route.net.prefix_len()), route.metric))?;
    number(&sys_class_net.join(&uplink.device).join("mtu"))
}

/// What the kernel says of the way to addresses far away: all rules, tables,
/// and MTUs of routes are in it. No packet is sent.
pub(super) fn of_path() -> Option<u32> {
    FAR.into_iter().filter_map(path_mtu).min()
}

fn path_mtu(to: Ipv4Addr) -> Option<u32> {
    let socket: OwnedFd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let to = SockaddrIn::from(SocketAddrV4::new(to, 53));
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &to).ok()?;
    u32::try_from(getsockopt(&socket, IpMtu).ok()?).ok().filter(|mtu| *mtu > 0)
}
