//! Images of the operating system come in and are rolled out.

use super::problem::Refusal;
use super::rest::{body, new_id, path};
use crate::artifacts::Incoming;
use crate::fleet::Shared;
use crate::store::{ImageFault, WantedRollout};
use crate::view;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use log::info;
use sedge_bundle::{HEAD_BYTES_MAX, Head, Manifest, Unproven, unpack};
use sedge_fleet_core::Filter;
use sedge_protocol::Digest;
use sedge_protocol::api::{Image, ImageRollout, NewImageRollout};
use sedge_protocol::limits::BUNDLE_BYTES_MAX;
use sedge_provisioning::clock::now_ms;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_stream::StreamExt as _;

type App = State<Arc<Shared>>;

pub(super) async fn images(State(shared): App) -> Result<Json<Vec<Image>>, Refusal> {
    Ok(Json(shared.store.images().await?))
}

/// Takes a bundle: right digest, every chunk what the manifest says. Who has signed it is for nodes to judge: the fleet holds no keys.
pub(super) async fn publish(State(shared): App, digest: Result<Path<Digest>, PathRejection>, upload: Body) -> Result<Json<Image>, Refusal> {
    let digest = path(digest)?;
    let permit = shared.uploads.acquire().await;
    let mut incoming = shared.artifacts.receive().await.map_err(|cause| Refusal::internal(&cause))?;
    let size = receive(&mut incoming, upload, digest).await?;
    let file = incoming.path().to_owned();
    let checked = spawn_blocking(move || check(&file, size)).await.map_err(|cause| Refusal::internal(&cause))?;
    let (head, Unproven(manifest), signers) = checked.map_err(|fault| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, fault))?;
    incoming.keep(&shared.artifacts, digest).await.map_err(|cause| Refusal::internal(&cause))?;
    drop(permit);
    let Manifest { board, version, .. } = manifest;
    let image = Image { board, version, artifact: digest, size, head, signers, created_ms: now_ms() };
    let kept = match shared.store.publish_image(&image).await {
        Err(fault @ ImageFault::Taken { .. }) => {
            // Nobody will ever ask for it.
            shared.artifacts.remove(digest).await.map_err(|cause| Refusal::internal(&cause))?;
            return Err(fault.into());
        }
        done => done?,
    };
    info!(board = kept.board.as_str(), version:% = kept.version; "image published");
    Ok(Json(kept))
}

async fn receive(incoming: &mut Incoming, upload: Body, digest: Digest) -> Result<u64, Refusal> {
    let mut pieces = upload.into_data_stream();
    let mut size = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|cause| Refusal::input(format!("the upload was cut: {cause}")))?;
        size += piece.len() as u64;
        if size > BUNDLE_BYTES_MAX {
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a bundle has at most {BUNDLE_BYTES_MAX} bytes")));
        }
        incoming.push(&piece).await.map_err(|cause| Refusal::internal(&cause))?;
    }
    let (size, found) = incoming.end().await.map_err(|cause| Refusal::internal(&cause))?;
    if found != digest {
        return Err(Refusal::input(format!("the bytes that came have the digest {found}, not {digest}")).hint("send them again"));
    }
    Ok(size)
}

/// Reads the whole bundle; answers the length of its head, its manifest and who has signed it. Blocks.
fn check(path: &std::path::Path, size: u64) -> Result<(u64, Unproven, Vec<Digest>), String> {
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    let mut begin = Vec::new();
    (&file).take(HEAD_BYTES_MAX as u64).read_to_end(&mut begin).map_err(|cause| cause.to_string())?;
    let head = Head::parse(&begin).map_err(|fault| fault.to_string())?;
    let Unproven(manifest) = head.unproven().map_err(|fault| fault.to_string())?;
    if manifest.file_bytes() != size {
        return Err(format!("the bundle has {size} bytes, its manifest says {}", manifest.file_bytes()));
    }
    for (number, chunk) in manifest.chunks.iter().enumerate() {
        let mut packed = vec![0; chunk.packed as usize];
        file.read_exact_at(&mut packed, chunk.offset).map_err(|cause| cause.to_string())?;
        unpack(&packed, chunk.bytes as usize, &chunk.digest).map_err(|fault| format!("chunk {number}: {fault}"))?;
    }
    Ok((head.bytes() as u64, Unproven(manifest), head.signers().collect()))
}

pub(super) async fn rollouts(State(shared): App) -> Result<Json<Vec<ImageRollout>>, Refusal> {
    Ok(Json(view::image_rollouts(&shared).await?))
}

pub(super) async fn create_rollout(
    State(shared): App,
    new: Result<Json<NewImageRollout>, JsonRejection>,
) -> Result<Json<ImageRollout>, Refusal> {
    let new = body(new)?;
    let filter: Filter = new.filter.parse().map_err(Refusal::input)?;
    let NewImageRollout { version, board, restart, offline, .. } = &new;
    let id = new_id();
    let wanted = WantedRollout { id: &id, version, board: board.as_deref(), filter: &filter, restart: *restart, offline: *offline };
    let (row, changed) = shared.store.create_image_rollout(&wanted, now_ms()).await?;
    let board = row.rollout.board.as_str();
    info!(rollout = row.id.as_str(), board, version:%, nodes = changed.len(); "rollout of an image made");
    shared.hub.push(changed).await;
    Ok(Json(view::image_rollout(&shared, row).await?))
}

pub(super) async fn stop_rollout(State(shared): App, id: Result<Path<String>, PathRejection>) -> Result<Json<ImageRollout>, Refusal> {
    let id = path(id)?;
    let (row, changed) = shared.store.stop_image_rollout(&id, now_ms()).await?;
    info!(rollout = row.id.as_str(), version:% = row.rollout.version, nodes = changed.len(); "rollout of an image stopped");
    shared.hub.push(changed).await;
    Ok(Json(view::image_rollout(&shared, row).await?))
}

impl From<ImageFault> for Refusal {
    fn from(fault: ImageFault) -> Self {
        match fault {
            ImageFault::Taken { .. } | ImageFault::Boards { .. } => Self::new(StatusCode::CONFLICT, fault.to_string()),
            ImageFault::NoRollout(_) => Self::new(StatusCode::NOT_FOUND, fault.to_string()).hint("`sedge image rollouts` lists them"),
            ImageFault::Unknown(_) | ImageFault::Board { .. } => {
                Self::new(StatusCode::NOT_FOUND, fault.to_string()).hint("`sedge image ls` lists them, `sedge image publish` makes one")
            }
            ImageFault::Rollout(fault) => fault.into(),
            ImageFault::Store(cause) => cause.into(),
        }
    }
}
