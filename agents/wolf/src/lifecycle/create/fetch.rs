//! The image of a create: found, or fetched.

use std::time::Instant;

use tokio::sync::mpsc;
use wolfpack_types::{Fault, Reason};

use super::Creation;
use crate::engine::{EngineError, ImageConfig, PullProgress, image};

/// What a sandbox runs that says no image.
const BASE_IMAGE: &str = "wolfpack/sandbox-base:latest";
const DESKTOP_IMAGE: &str = "wolfpack/sandbox-desktop:latest";
/// Steps of a pull that may wait to be told.
const PULL_STEPS: usize = 16;

impl Creation {
    pub(super) fn reference(&self) -> String {
        match self.request.image.as_str() {
            "" if self.request.desktop => DESKTOP_IMAGE.to_owned(),
            "" => BASE_IMAGE.to_owned(),
            asked => image::with_tag(asked),
        }
    }

    pub(super) async fn image(&self, reference: &str) -> Result<ImageConfig, Fault> {
        let engine = &self.lifecycle.inner.engine;
        let look = |found: Result<_, EngineError>| {
            found.map_err(|error| error.into_fault("look for the image"))
        };
        if let Some(found) = look(engine.image(reference).await)? {
            return Ok(found);
        }
        if image::is_local(reference) {
            return Err(not_found(
                reference,
                "make it on the wolf with scripts/setup, or send it with `wolfpack image push`",
            ));
        }
        self.pull(reference).await?;
        match look(engine.image(reference).await)? {
            Some(found) => {
                if let Some(images) = self.lifecycle.inner.images.get() {
                    images.fetched(&found.id);
                }
                Ok(found)
            }
            None => Err(not_found(
                reference,
                "it was fetched and is gone again: the wolf's disk may be full",
            )),
        }
    }

    async fn pull(&self, reference: &str) -> Result<(), Fault> {
        let (sender, mut steps) = mpsc::channel(PULL_STEPS);
        let tell = |step: PullProgress| {
            self.report.send_modify(|progress| progress.pulling = Some(step));
        };
        tell(PullProgress { message: format!("fetching {reference}"), ..PullProgress::default() });
        let engine = self.lifecycle.inner.engine.clone();
        let begun = Instant::now();
        let pulling = engine.pull(reference, sender);
        let images = self.lifecycle.inner.images.get();
        let full = async {
            match images {
                Some(images) => images.full().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(pulling, full);
        let result = loop {
            tokio::select! {
                result = &mut pulling => break result,
                Some(step) = steps.recv() => tell(step),
                () = self.cancel.cancelled() => { self.go_on()?; }
                () = &mut full => {
                    let words = "the wolf's disk would fall below its reserve".to_owned();
                    break Err(EngineError::Stream(words));
                }
            }
        };
        self.lifecycle.inner.metrics.pulled(begun.elapsed(), result.is_ok());
        match result {
            Ok(()) => Ok(()),
            Err(EngineError::NotFound(words)) => Err(not_found(reference, &words)),
            Err(EngineError::Stream(words)) => Err(pull_failed(reference, &words)),
            Err(EngineError::Refused { message, .. }) => Err(pull_failed(reference, &message)),
            Err(error @ EngineError::Deadline { .. }) => {
                Err(pull_failed(reference, "the registry was silent for too long").caused_by(error))
            }
            Err(error) => Err(error.into_fault("fetch the image")),
        }
    }
}

fn not_found(reference: &str, words: &str) -> Fault {
    Fault::new(
        Reason::ImageNotFound,
        format!(
            "the image {reference} is not there: {words}; one of your own comes by \
             wolfpack image push"
        ),
    )
    .with("image", reference)
}

fn pull_failed(reference: &str, words: &str) -> Fault {
    Fault::new(
        Reason::ImagePullFailed,
        format!(
            "the image {reference} could not be fetched: {words}; one of your own comes by \
             wolfpack image push"
        ),
    )
    .with("image", reference)
}
