//! `OperationService`.

use std::sync::Arc;

use image_api::{
    Operation, Validate as _,
    operation::{CancelOperationRequest, GetOperationRequest},
};

use super::{Call, Refusal, Service, rights::Right};

impl Service {
    pub(super) async fn get_operation(
        self: Arc<Self>,
        call: Call,
        request: GetOperationRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let operation = self.catalog.any_operation(&request.operation_id).await?;
        self.check_operation(&call.caller, &operation, Right::Read).await?;
        Ok(operation.message)
    }

    pub(super) async fn cancel_operation(
        self: Arc<Self>,
        call: Call,
        request: CancelOperationRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let operation = self.catalog.any_operation(&request.operation_id).await?;
        self.check_operation(&call.caller, &operation, Right::Write).await?;
        // Cancelling what has ended is no error: the caller sees how it ended.
        if operation.message.done {
            return Ok(operation.message);
        }
        Ok(self.worker.cancel(&request.operation_id).await?.into_message())
    }
}
