//! Getting an image: only where it is missing, with its progress told.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::engine::{Engine, EngineError};

/// How long a pull may take (protocol page iris, §4.5).
const LIMIT: Duration = Duration::from_secs(600);

/// Makes sure that `image` is there. One that is there is not pulled again, also if its tag has
/// moved (protocol page iris, §4.5).
pub(super) async fn ensure(
    engine: &Engine,
    image: &str,
    progress: &watch::Sender<String>,
) -> Result<(), EngineError> {
    match engine.docker.inspect_image(image).await {
        Ok(_) => return Ok(()),
        Err(error) => {
            let error = EngineError::from(error);
            if !error.is_not_found() {
                return Err(error);
            }
        }
    }
    progress.send_replace(format!("pulling {image}"));
    match tokio::time::timeout(LIMIT, pull(engine, image, progress)).await {
        Ok(pulled) => pulled,
        Err(_) => Err(EngineError::Broken(format!(
            "not pulled after {} minutes",
            LIMIT.as_secs() / 60
        ))),
    }
}

async fn pull(
    engine: &Engine,
    image: &str,
    progress: &watch::Sender<String>,
) -> Result<(), EngineError> {
    let options = CreateImageOptions {
        from_image: Some(with_tag(image)),
        ..CreateImageOptions::default()
    };
    let pulling = engine.docker.create_image(Some(options), None, None);
    let mut pulling = std::pin::pin!(pulling);
    let mut layers = Layers::default();
    while let Some(info) = pulling.next().await {
        if let Some(percent) = layers.add(&info?) {
            progress.send_replace(format!("pulling {image} {percent}%"));
        }
    }
    Ok(())
}

/// Without a tag an engine would pull every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

/// How much of each layer has come.
#[derive(Default)]
struct Layers(HashMap<String, (i64, i64)>);

impl Layers {
    /// Takes news of one layer; the percentage of all bytes that are known of.
    fn add(&mut self, info: &CreateImageInfo) -> Option<i64> {
        let (id, detail) = (info.id.as_ref()?, info.progress_detail.as_ref());
        match (info.status.as_deref(), detail) {
            (Some("Downloading"), Some(detail)) => {
                let (current, total) = (detail.current?, detail.total?);
                self.0.insert(id.clone(), (current.min(total), total));
            }
            (Some("Download complete" | "Pull complete"), _) => {
                let (current, total) = self.0.get_mut(id)?;
                *current = *total;
            }
            _ => return None,
        }
        let current: i64 = self.0.values().map(|(current, _)| current).sum();
        let total: i64 = self.0.values().map(|(_, total)| total).sum();
        (total > 0).then(|| current.saturating_mul(100) / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, pulled) in [
            ("redis", "redis:latest"),
            ("redis:7", "redis:7"),
            ("localhost:5000/redis", "localhost:5000/redis:latest"),
            ("redis@sha256:00", "redis@sha256:00"),
        ] {
            assert_eq!(with_tag(image), pulled);
        }
    }

    #[test]
    fn progress_is_that_of_all_layers() {
        let mut layers = Layers::default();
        let mut news = |id: &str, status: &str, bytes: Option<(i64, i64)>| {
            layers.add(&CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: bytes.map(|(current, total)| ProgressDetail {
                    current: Some(current),
                    total: Some(total),
                }),
                ..CreateImageInfo::default()
            })
        };
        assert_eq!(news("a", "Pulling fs layer", None), None);
        assert_eq!(news("a", "Downloading", Some((10, 100))), Some(10));
        assert_eq!(news("b", "Downloading", Some((0, 100))), Some(5));
        assert_eq!(news("a", "Download complete", None), Some(50));
        assert_eq!(news("b", "Pull complete", None), Some(100));
    }
}
