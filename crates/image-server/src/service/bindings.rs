//! The access bindings of an image. See [`super::rights`] for what they do.
//!
//! They are listed in the order of role, type and subject; a page token is the number of those before it, so bindings that
//! come and go between two pages may move others over the edge.

use std::sync::Arc;

use image_api::{
    Operation, Validate as _, Violations,
    access::{
        ListAccessBindingsRequest, ListAccessBindingsResponse, SetAccessBindingsRequest,
        UpdateAccessBindingsRequest,
    },
};
use prost::Name;

use super::{Call, Refusal, Service, paging, rights::Right};
use crate::catalog::{Asked, BindingsEdit};

impl Service {
    pub(super) async fn list_bindings(
        self: Arc<Self>,
        call: Call,
        request: ListAccessBindingsRequest,
    ) -> Result<ListAccessBindingsResponse, Refusal> {
        request.validate()?;
        let skip: i64 = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .ok()
                .filter(|skip| *skip >= 0)
                .ok_or_else(|| Violations::one("page_token", "not a token of this server"))?,
        };
        self.image_for(&call.caller, &request.resource_id, Right::Read).await?;
        let limit = paging::limit(request.page_size);
        let mut access_bindings = self.catalog.bindings(&request.resource_id, skip, limit).await?;
        let more = paging::cut(&mut access_bindings, request.page_size);
        let next = skip.saturating_add(limit - 1);
        let next_page_token = if more { next.to_string() } else { String::new() };
        Ok(ListAccessBindingsResponse { access_bindings, next_page_token })
    }

    pub(super) async fn set_bindings(
        self: Arc<Self>,
        call: Call,
        request: SetAccessBindingsRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let edit = BindingsEdit::Set(request.access_bindings.clone());
        self.change_bindings(&call, &request.resource_id, edit, &request).await
    }

    pub(super) async fn update_bindings(
        self: Arc<Self>,
        call: Call,
        request: UpdateAccessBindingsRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let edit = BindingsEdit::Update(request.access_binding_deltas.clone());
        self.change_bindings(&call, &request.resource_id, edit, &request).await
    }

    async fn change_bindings<M: Name>(
        &self,
        call: &Call,
        image_id: &str,
        edit: BindingsEdit,
        request: &M,
    ) -> Result<Operation, Refusal> {
        self.image_for(&call.caller, image_id, Right::Administer).await?;
        let key = call.key_for(request);
        let asked = Asked { by: &call.caller.name(), key: key.as_ref() };
        Ok(self.catalog.change_bindings(image_id, edit, asked).await?)
    }
}
