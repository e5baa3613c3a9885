//! The video encoder, by really encoding.

use std::path::{Path, PathBuf};

use super::check::Found;
use super::place::{Look, Place};
use super::program::run;

/// A third of a second of a made picture.
const SOURCE: [&str; 6] = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30", "-frames:v", "10"];
/// PCI vendor of NVIDIA, as sysfs writes it.
const NVIDIA: &str = "0x10de";
/// What vainfo lists for an encoder.
const ENTRY: &str = "VAEntrypointEncSlice";

/// How one node did.
enum Tried {
    Works(String),
    Fails(String),
    NoProgram,
}

pub(super) async fn tried(look: &Look) -> Found {
    let place = &look.place;
    let nodes = render_nodes(place);
    let nvidia = place.at("dev/nvidia0").exists();
    if nodes.is_empty() && !nvidia {
        return Found::skip(
            "no render node and no NVIDIA device is here: desktops are encoded by the processor",
        );
    }
    let mut works = Vec::new();
    let mut fails = Vec::new();
    let mut untried = 0;
    let mut ways = Vec::new();
    if nvidia {
        ways.push(("nvidia".to_owned(), nvenc(place).await));
    }
    for node in &nodes {
        // NVIDIA's nodes have no VA-API; nvenc was tried above.
        if vendor(place, node).as_deref() != Some(NVIDIA) {
            ways.push((node.clone(), vaapi(place, node).await));
        }
    }
    if ways.is_empty() {
        return Found::skip("the render nodes are NVIDIA's, and its devices are not here");
    }
    for (name, tried) in ways {
        match tried {
            Tried::Works(how) => works.push(format!("{name} by {how}")),
            Tried::Fails(why) => fails.push(format!("{name}: {why}")),
            Tried::NoProgram => untried += 1,
        }
    }
    let found = if !fails.is_empty() {
        Found::fail(
            format!("an encoder does not work: {}", fails.join("; ")),
            "install the driver's encode libraries (mesa-va-drivers, intel-media-va-driver, \
             NVIDIA's with the video capability), and see that nobody uses up its sessions",
        )
    } else if works.is_empty() {
        return Found::skip("neither ffmpeg nor vainfo is here to try the encoder with");
    } else {
        Found::pass(format!("encoders work: {}", works.join(", ")))
    };
    found.fact("works", works.join(", ")).fact("fails", fails.len()).fact("untried", untried)
}

async fn nvenc(place: &Place) -> Tried {
    match place.program("ffmpeg") {
        Some(ffmpeg) => encode(&ffmpeg, &[], &["-c:v", "h264_nvenc"]).await,
        None => Tried::NoProgram,
    }
}

async fn vaapi(place: &Place, node: &str) -> Tried {
    let device = place.at("dev/dri").join(node);
    let device = device.to_string_lossy();
    if let Some(ffmpeg) = place.program("ffmpeg") {
        let filter = ["-vf", "format=nv12,hwupload", "-c:v", "h264_vaapi"];
        return encode(&ffmpeg, &["-vaapi_device", &device], &filter).await;
    }
    let Some(vainfo) = place.program("vainfo") else { return Tried::NoProgram };
    match run(&vainfo, &["--display", "drm", "--device", &device]).await {
        Ok(listed) if listed.contains(ENTRY) => Tried::Works("what vainfo lists".to_owned()),
        Ok(_) => Tried::Fails("vainfo lists no encoder".to_owned()),
        Err(why) => Tried::Fails(why),
    }
}

async fn encode(ffmpeg: &Path, before: &[&str], codec: &[&str]) -> Tried {
    let quiet = ["-hide_banner", "-nostdin", "-v", "error"];
    let arguments: Vec<&str> =
        [&quiet[..], before, &SOURCE[..], codec, &["-f", "null", "-"]].concat();
    let name = codec.last().copied().unwrap_or_default();
    match run(ffmpeg, &arguments).await {
        Ok(_) => Tried::Works(name.to_owned()),
        Err(why) => Tried::Fails(why),
    }
}

/// `renderD128` and the like, in order.
fn render_nodes(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.at("dev/dri")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut nodes: Vec<String> = names.filter(|name| name.starts_with("renderD")).collect();
    nodes.sort();
    nodes
}

fn vendor(place: &Place, node: &str) -> Option<String> {
    let file = PathBuf::from("sys/class/drm").join(node).join("device/vendor");
    place.text(&file.to_string_lossy())
}
