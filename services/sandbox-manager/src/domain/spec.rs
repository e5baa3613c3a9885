//! What a user may ask for, and what the scheduler is asked for it.

use wolfpack_proto::sandbox::v1::SandboxSpec;
use wolfpack_proto::scheduler::v1::Shape;
use wolfpack_proto::types::v1 as pb;
use wolfpack_types::{DockerMode, Fault, Reason, SandboxId};

use super::mount;

/// What is filled in where a user says nothing.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The image of a sandbox without a desktop.
    pub image: String,
    /// The image of one with a desktop.
    pub desktop_image: String,
    /// The image of one with Docker and without a desktop.
    pub docker_image: String,
    /// The image of one with both.
    pub desktop_docker_image: String,
}

impl Defaults {
    fn image(&self, spec: &SandboxSpec) -> &str {
        match (docker_of(spec), spec.desktop) {
            (DockerMode::None, false) => &self.image,
            (DockerMode::None, true) => &self.desktop_image,
            (DockerMode::Nested | DockerMode::Shared, false) => &self.docker_image,
            (DockerMode::Nested | DockerMode::Shared, true) => &self.desktop_docker_image,
        }
    }
}

/// What a spec asks for of Docker.
#[must_use]
pub fn docker_of(spec: &SandboxSpec) -> DockerMode {
    match spec.docker() {
        pb::DockerMode::Unspecified | pb::DockerMode::None => DockerMode::None,
        pb::DockerMode::Nested => DockerMode::Nested,
        pb::DockerMode::Shared => DockerMode::Shared,
    }
}

/// Fills in the defaults of a spec, after checking what the field rules of the
/// proto cannot say.
///
/// # Errors
/// `SHAPE_INVALID` for a shape that no wolf could ever hold, `REQUEST_INVALID`
/// for an image or mount that cannot be.
pub fn accept(mut spec: SandboxSpec, defaults: &Defaults) -> Result<SandboxSpec, Fault> {
    if spec.image.is_empty() {
        spec.image = defaults.image(&spec).to_owned();
    }
    if !is_reference(&spec.image) {
        return Err(Fault::new(
            Reason::RequestInvalid,
            "the image is not a name such as debian:12 or ghcr.io/me/app:1",
        )
        .violates("sandbox.spec.image", "is not the name of an image"));
    }
    mount::check(&spec.mounts)?;
    if let Some(gpu) = &spec.gpu {
        if gpu.share_milli > 0 && gpu.count != 1 {
            return Err(Fault::new(
                Reason::ShapeInvalid,
                "a share of a gpu is a share of one: set count to 1, or share_milli to 0",
            )
            .violates("sandbox.spec.gpu.share_milli", "needs count 1"));
        }
        // No device wanted is the same as no request.
        if gpu.count == 0 {
            spec.gpu = None;
        }
    }
    if spec.encoder.as_ref().is_some_and(|encoder| encoder.sessions == 0) {
        spec.encoder = None;
    }
    Ok(spec)
}

/// All of a spec that matters to placement.
#[must_use]
pub fn shape_of(spec: &SandboxSpec) -> Shape {
    Shape {
        resources: spec.resources,
        gpu: spec.gpu.clone(),
        desktop: spec.desktop,
        wolf_selector: spec.wolf_selector.clone(),
        strategy: spec.strategy,
        docker: spec.docker,
        encoder: spec.encoder,
        mount_sources: spec.mounts.iter().map(|mount| mount.source.clone()).collect(),
        image: spec.image.clone(),
    }
}

/// Whether a text may be the name of an image: no part of it leads up, as it
/// becomes part of a path of the engine's API.
fn is_reference(image: &str) -> bool {
    image.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The request id of a sandbox's placement number `attempt`. The same before
/// and after a crash, so that a repeated request finds its own reservation.
#[must_use]
pub fn place_request_id(sandbox: &SandboxId, attempt: u32) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("wolfpack placement request v1");
    hasher.update(sandbox.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(&attempt.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::sandbox::v1::Mount;
    use wolfpack_proto::types::v1::GpuRequest;

    fn defaults() -> Defaults {
        Defaults {
            image: "base".into(),
            desktop_image: "desktop".into(),
            docker_image: "docker".into(),
            desktop_docker_image: "desktop-docker".into(),
        }
    }

    #[test]
    fn the_image_follows_the_desktop_and_a_given_one_stays() {
        let plain = accept(SandboxSpec::default(), &defaults()).unwrap();
        assert_eq!(plain.image, "base");
        let desktop = SandboxSpec { desktop: true, ..SandboxSpec::default() };
        assert_eq!(accept(desktop, &defaults()).unwrap().image, "desktop");
        for mode in [pb::DockerMode::Nested, pb::DockerMode::Shared] {
            for (desktop, image) in [(false, "docker"), (true, "desktop-docker")] {
                let spec = SandboxSpec { desktop, docker: mode.into(), ..SandboxSpec::default() };
                assert_eq!(accept(spec, &defaults()).unwrap().image, image);
            }
        }
        let own = SandboxSpec { image: "mine:1".into(), desktop: true, ..SandboxSpec::default() };
        assert_eq!(accept(own, &defaults()).unwrap().image, "mine:1");
    }

    #[test]
    fn what_matters_to_placement_is_in_the_shape() {
        let spec = SandboxSpec {
            image: "x:1".into(),
            docker: pb::DockerMode::Nested.into(),
            mounts: vec![Mount { source: "/a".into(), target: "/b".into(), read_only: true }],
            encoder: Some(pb::EncoderRequest { sessions: 2, ..pb::EncoderRequest::default() }),
            ..SandboxSpec::default()
        };
        let shape = shape_of(&accept(spec.clone(), &defaults()).unwrap());
        assert_eq!(shape.docker(), pb::DockerMode::Nested);
        assert_eq!(
            (shape.image.as_str(), shape.mount_sources.as_slice()),
            ("x:1", &["/a".into()][..])
        );
        assert_eq!(shape.encoder.unwrap().sessions, 2);
        let none = SandboxSpec {
            encoder: Some(pb::EncoderRequest::default()),
            mounts: Vec::new(),
            ..spec.clone()
        };
        assert_eq!(shape_of(&accept(none, &defaults()).unwrap()).encoder, None);
        for image in ["../containers/x", "a//b", "a/", "a/./b"] {
            let odd = SandboxSpec { image: image.into(), ..spec.clone() };
            assert_eq!(accept(odd, &defaults()).unwrap_err().reason, Reason::RequestInvalid);
        }
    }

    #[test]
    fn a_share_of_several_gpus_is_refused_and_none_is_no_request() {
        let spec = |count, share_milli| SandboxSpec {
            gpu: Some(GpuRequest { count, share_milli, ..GpuRequest::default() }),
            ..SandboxSpec::default()
        };
        assert_eq!(accept(spec(2, 500), &defaults()).unwrap_err().reason, Reason::ShapeInvalid);
        assert!(accept(spec(1, 500), &defaults()).is_ok());
        assert!(shape_of(&accept(spec(0, 0), &defaults()).unwrap()).gpu.is_none());
    }

    #[test]
    fn each_attempt_has_its_own_request_id_and_keeps_it() {
        let id = SandboxId::new();
        assert_eq!(place_request_id(&id, 1), place_request_id(&id, 1));
        assert_ne!(place_request_id(&id, 1), place_request_id(&id, 2));
        assert_ne!(place_request_id(&id, 1), place_request_id(&SandboxId::new(), 1));
        assert!(uuid::Uuid::parse_str(&place_request_id(&id, 7)).is_ok());
    }
}
