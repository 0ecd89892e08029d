//! The rules of access bindings, tokens and discovery.
//!
//! Source: `yandex/cloud/access/access.proto`, `yandex/cloud/iam/v1/iam_token_service.proto` of the public API definitions.

use super::{Check, Validate, Violations};
use crate::{
    access::{
        AccessBinding, AccessBindingAction, ListAccessBindingsRequest, SetAccessBindingsRequest,
        UpdateAccessBindingsRequest,
    },
    endpoint::GetApiEndpointRequest,
    iam::{CreateIamTokenRequest, create_iam_token_request::Identity},
};

const RESOURCE_ID_MAX: usize = 64;
const ROLE_ID_MAX: usize = 64;
const SUBJECT_MAX: usize = 100;
const BINDINGS_MAX: usize = 1000;
const JWT_MAX: usize = 8000;

impl Validate for ListAccessBindingsRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.resource_id(&self.resource_id);
        check.page(self.page_size, &self.page_token);
        check.finish()
    }
}

impl Validate for SetAccessBindingsRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.resource_id(&self.resource_id);
        check.count("access_bindings", self.access_bindings.len(), 0, BINDINGS_MAX);
        for (at, binding) in self.access_bindings.iter().enumerate() {
            check.binding(&format!("access_bindings[{at}]"), Some(binding));
        }
        check.finish()
    }
}

impl Validate for UpdateAccessBindingsRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.resource_id(&self.resource_id);
        check.count("access_binding_deltas", self.access_binding_deltas.len(), 1, BINDINGS_MAX);
        for (at, delta) in self.access_binding_deltas.iter().enumerate() {
            let field = format!("access_binding_deltas[{at}]");
            if !matches!(delta.action(), AccessBindingAction::Add | AccessBindingAction::Remove) {
                check.fail(&format!("{field}.action"), "expected ADD or REMOVE");
            }
            check.binding(&format!("{field}.access_binding"), delta.access_binding.as_ref());
        }
        check.finish()
    }
}

impl Validate for GetApiEndpointRequest {
    fn validate(&self) -> Result<(), Violations> {
        Check::only_id("api_endpoint_id", &self.api_endpoint_id)
    }
}

impl Validate for CreateIamTokenRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        match &self.identity {
            None => check.fail("identity", "exactly one of yandex_passport_oauth_token, jwt must be set"),
            Some(Identity::YandexPassportOauthToken(token)) => {
                check.required("yandex_passport_oauth_token", token);
            }
            Some(Identity::Jwt(jwt)) => {
                check.required("jwt", jwt);
                check.length("jwt", jwt, JWT_MAX);
            }
        }
        check.finish()
    }
}

impl Check {
    fn resource_id(&mut self, id: &str) {
        self.required("resource_id", id);
        self.length("resource_id", id, RESOURCE_ID_MAX);
    }

    fn count(&mut self, field: &str, found: usize, min: usize, max: usize) {
        if !(min..=max).contains(&found) {
            self.fail(field, format!("found {found}, expected {min} to {max}"));
        }
    }

    fn binding(&mut self, field: &str, binding: Option<&AccessBinding>) {
        let Some(AccessBinding { role_id, subject }) = binding else {
            return self.fail(field, "required, found nothing");
        };
        let parts = [
            ("role_id", role_id.as_str(), ROLE_ID_MAX),
            ("subject.id", subject.as_ref().map_or("", |subject| &subject.id), SUBJECT_MAX),
            ("subject.type", subject.as_ref().map_or("", |subject| &subject.r#type), SUBJECT_MAX),
        ];
        for (part, value, max) in parts {
            let field = format!("{field}.{part}");
            self.required(&field, value);
            self.length(&field, value, max);
        }
    }
}
