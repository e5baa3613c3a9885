//! NVIDIA's toolkit: what hands GPUs to containers.

use wolfpack_dockerd::place::nvidia::{self, Nvidia, NvidiaPaths};

use super::check::Found;
use super::engine::known;
use super::place::Look;
use super::vulnerabilities::{TOOLKIT, of, packaged};

pub(super) async fn toolkit(look: &Look) -> Found {
    let place = &look.place;
    let usual = NvidiaPaths::default();
    let below = |path: &std::path::Path| place.at(&path.to_string_lossy());
    let paths = NvidiaPaths {
        control_device: below(&usual.control_device),
        runtime: below(&usual.runtime),
        toolkit: below(&usual.toolkit),
        cdi_dirs: usual.cdi_dirs.iter().map(|folder| below(folder)).collect(),
    };
    let seen = nvidia::look(&paths).await;
    // The kernel module may be there though its device was not handed in.
    if !seen.device && place.at("proc/driver/nvidia/version").exists() {
        return Found::warn(
            "the NVIDIA driver is loaded, and no device of it is here",
            "start the wolf with its GPUs: --gpus all, or --device nvidia.com/gpu=all",
        );
    }
    let version = seen.version.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
    let holes = of(TOOLKIT, version);
    let found = match nvidia::plan(&seen) {
        Nvidia::None => return Found::skip("no NVIDIA device is here"),
        Nvidia::Refused { .. } if !holes.is_empty() && packaged(version) => {
            known([(TOOLKIT, version)].into_iter())
        }
        Nvidia::Refused { why, fix } => {
            let names: Vec<&str> = holes.iter().map(|hole| hole.id).collect();
            let names =
                if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            Found::fail(format!("{why}{names}"), fix)
        }
        Nvidia::Ready { runtime, cdi, .. } => {
            let way = if cdi { "CDI" } else { "the nvidia runtime" };
            Found::pass(format!("GPUs are handed out by {way}; {version}"))
                .fact("cdi", cdi)
                .fact("runtime", runtime.is_some())
        }
    };
    if version.is_empty() { found } else { found.fact("version", version) }
}
