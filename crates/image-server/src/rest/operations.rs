//! `/operations/{id}`, and `:cancel`, which the API's definition calls by GET and its guide by POST.

use axum::extract::State;
use image_api::{
    Code, Operation, Validate as _,
    operation::{CancelOperationRequest, GetOperationRequest},
    rpc::Status,
};

use super::{
    App, AppState,
    answer::{Id, Json, Refusal},
};

pub(super) async fn get(State(app): AppState, Id(id): Id) -> Result<Json<Operation>, Refusal> {
    match id.split_once(':') {
        None => show(&app, id).await,
        Some((id, verb)) => act(&app, id, verb).await,
    }
}

pub(super) async fn post(State(app): AppState, Id(id): Id) -> Result<Json<Operation>, Refusal> {
    match id.split_once(':') {
        None => Err(super::unknown_method().await),
        Some((id, verb)) => act(&app, id, verb).await,
    }
}

async fn show(app: &App, operation_id: String) -> Result<Json<Operation>, Refusal> {
    let request = GetOperationRequest { operation_id };
    request.validate()?;
    Ok(Json(app.catalog.operation(&request.operation_id).await?.into_message()))
}

async fn act(app: &App, id: &str, verb: &str) -> Result<Json<Operation>, Refusal> {
    if verb != "cancel" {
        return Err(Status::new(Code::NotFound, "the only verb of an operation is cancel").into());
    }
    let request = CancelOperationRequest { operation_id: id.to_owned() };
    request.validate()?;
    Ok(Json(app.worker.cancel(&request.operation_id).await?.into_message()))
}
