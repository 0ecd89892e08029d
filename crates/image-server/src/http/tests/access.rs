//! Service accounts, their tokens, their rights, and access bindings.

use std::time::SystemTime;

use image_api::{
    access::{
        AccessBinding, AccessBindingAction, AccessBindingDelta, AccessBindingsOperationResult,
        ListAccessBindingsRequest, ListAccessBindingsResponse, SetAccessBindingsRequest, Subject,
        UpdateAccessBindingsRequest,
    },
    compute::UpdateImageRequest,
    endpoint::{ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsRequest, ListApiEndpointsResponse},
    iam::{CreateIamTokenRequest, create_iam_token_request::Identity as Proof},
};
use serde_json::json;

use super::*;
use crate::service::{Accounts, testing};

over_both!(
    a_jwt_is_good_for_a_token,
    proofs_that_are_refused,
    rights_by_folder,
    bindings_are_stored_and_enforced,
    a_key_is_one_callers_own,
    the_directory,
    content_is_for_those_who_may_use_it,
);

const AUDIENCE: &str = "https://iam.example/iam/v1/tokens";

/// A server with the static token `admin` and the service account of `tests/iam`.
pub(super) async fn start(transport: Transport, grants: &[&str]) -> Harness {
    let mut accounts = Accounts::new(vec![AUDIENCE.to_owned()]);
    accounts
        .register(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/iam/key.json")))
        .unwrap();
    let identity = Identity { tokens: vec!["admin".parse().unwrap()], accounts };
    let rights = Rights(grants.iter().map(|grant| grant.parse().unwrap()).collect());
    Harness::with(transport, tempfile::tempdir().unwrap(), identity, rights).await
}

fn jwt(audience: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    testing::sign_ps256(
        &json!({"typ": "JWT", "alg": "PS256", "kid": "ajekey"}),
        &json!({"iss": "ajeaccount", "aud": audience, "iat": now, "exp": now + 600}),
    )
}

fn proof(jwt: String) -> CreateIamTokenRequest {
    CreateIamTokenRequest { identity: Some(Proof::Jwt(jwt)) }
}

/// A token of the service account.
pub(super) async fn token(transport: Transport, server: &Harness) -> String {
    let stranger = client(transport, server.address, None);
    stranger.create_iam_token(&proof(jwt(AUDIENCE)), &server.cancel).await.unwrap().iam_token
}

/// A client of the service account.
async fn account(transport: Transport, server: &Harness) -> Client {
    client(transport, server.address, Some(&token(transport, server).await))
}

async fn ready(server: &Harness, name: &str) -> String {
    let operation = server.create(&request(name, "disk")).await.unwrap();
    server.wait(&operation.id).await;
    operation.metadata_as::<CreateImageMetadata>().unwrap().image_id
}

async fn a_jwt_is_good_for_a_token(transport: Transport) {
    let server = start(transport, &["ajeaccount=editor@folder"]).await;
    let stranger = client(transport, server.address, None);
    let answer = stranger.create_iam_token(&proof(jwt(AUDIENCE)), &server.cancel).await.unwrap();
    let expires = SystemTime::try_from(answer.expires_at.unwrap()).unwrap();
    let life = expires.duration_since(SystemTime::now()).unwrap();
    assert!(life <= limits::TOKEN_LIFE && life > limits::TOKEN_LIFE / 2, "{life:?}");
    let caller = client(transport, server.address, Some(&answer.iam_token));
    let operation =
        caller.create_image(&request("web", "disk"), Uuid::new_v4(), &server.cancel).await.unwrap();
    assert_eq!(operation.created_by, "ajeaccount");
    // The catalog knows the token by its digest only.
    let path = server.dir.path().join("catalog.sqlite");
    let database = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT digest FROM iam_tokens").fetch_all(&database).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert!(stored.iter().all(|digest| digest.len() == 64 && !answer.iam_token.contains(digest.as_str())));
    // A token that has expired is none.
    sqlx::query("UPDATE iam_tokens SET expires_at = 0").execute(&database).await.unwrap();
    let error = refusal(caller.get_operation(&operation.id, &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::Unauthenticated, 401));
    database.close().await;
    server.stop().await;
}

async fn proofs_that_are_refused(transport: Transport) {
    let server = start(transport, &[]).await;
    let stranger = client(transport, server.address, None);
    let ask = async |request: &CreateIamTokenRequest| {
        refusal(stranger.create_iam_token(request, &server.cancel).await)
    };
    let other = jwt("https://other.example");
    let error = ask(&proof(other.clone())).await;
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(error.message.contains("https://other.example") && error.message.contains(AUDIENCE), "{error}");
    assert!(!error.message.contains(&other), "{error}");
    assert_eq!(ask(&proof("a.b.c".to_owned())).await.code, Code::Unauthenticated);
    assert_eq!(ask(&proof("x".repeat(8001))).await.field_violations()[0].field, "jwt");
    assert_eq!(ask(&CreateIamTokenRequest::default()).await.field_violations()[0].field, "identity");
    let oauth = CreateIamTokenRequest { identity: Some(Proof::YandexPassportOauthToken("y0".to_owned())) };
    assert_eq!(ask(&oauth).await.code, Code::Unauthenticated);
    // Whoever has no token gets no further, also where the request would be refused.
    let error = refusal(stranger.get_image(&"x".repeat(51), &server.cancel).await);
    assert_eq!(error.code, Code::Unauthenticated);
    server.stop().await;
}

async fn rights_by_folder(transport: Transport) {
    let server = start(transport, &["ajeaccount=viewer@folder"]).await;
    let image_id = ready(&server, "web").await;
    let hidden = CreateImageRequest { folder_id: "hidden".to_owned(), ..request("web", "disk") };
    let hidden_operation = server.create(&hidden).await.unwrap();
    server.wait(&hidden_operation.id).await;
    let hidden_id = hidden_operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let caller = account(transport, &server).await;
    assert_eq!(caller.get_image(&image_id, &server.cancel).await.unwrap().id, image_id);
    // What one may not see is not there, in the very words.
    for (id, code) in [(&hidden_id, Code::NotFound), (&"fd8nothing".to_owned(), Code::NotFound)] {
        let error = refusal(caller.get_image(id, &server.cancel).await);
        assert_eq!((error.code, error.message), (code, format!("image {id} not found")));
    }
    let error = refusal(caller.get_operation(&hidden_operation.id, &server.cancel).await);
    assert_eq!(error.message, format!("operation {} not found", hidden_operation.id));
    for (folder, fine) in [("folder", true), ("hidden", false)] {
        let list = ListImagesRequest { folder_id: folder.to_owned(), ..ListImagesRequest::default() };
        assert_eq!(caller.list_images(&list, &server.cancel).await.is_ok(), fine, "{folder}");
    }
    // What one may see and not change is denied.
    let create = caller.create_image(&request("new", "disk"), Uuid::new_v4(), &server.cancel).await;
    assert_eq!(refusal(create).code, Code::PermissionDenied);
    let update = UpdateImageRequest { image_id: image_id.clone(), ..UpdateImageRequest::default() };
    let update = caller.update_image(&update, Uuid::new_v4(), &server.cancel).await;
    assert_eq!(refusal(update).code, Code::PermissionDenied);
    let delete = caller.delete_image(&image_id, Uuid::new_v4(), &server.cancel).await;
    assert_eq!(refusal(delete).code, Code::PermissionDenied);
    let delete = caller.delete_image(&hidden_id, Uuid::new_v4(), &server.cancel).await;
    assert_eq!(refusal(delete).code, Code::NotFound);
    assert!(server.client.get_image(&hidden_id, &server.cancel).await.is_ok());
    let slow = server.create(&request("slow", "slow")).await.unwrap();
    assert!(caller.get_operation(&slow.id, &server.cancel).await.is_ok());
    let cancel = caller.cancel_operation(&slow.id, &server.cancel).await;
    assert_eq!(refusal(cancel).code, Code::PermissionDenied);
    server.stop().await;
}

fn binding(role: &str, r#type: &str, id: &str) -> AccessBinding {
    let subject = Some(Subject { id: id.to_owned(), r#type: r#type.to_owned() });
    AccessBinding { role_id: role.to_owned(), subject }
}

fn delta(action: AccessBindingAction, access_binding: AccessBinding) -> AccessBindingDelta {
    AccessBindingDelta { action: action.into(), access_binding: Some(access_binding) }
}

fn effective(operation: &Operation) -> Vec<AccessBindingDelta> {
    let OperationOutcome::Succeeded(Some(any)) = operation.outcome() else { panic!("{operation:?}") };
    unpack::<AccessBindingsOperationResult>(&any).unwrap().effective_deltas
}

async fn set(caller: &Client, image_id: &str, bindings: &[AccessBinding]) -> Result<Operation, ApiError> {
    let request =
        SetAccessBindingsRequest { resource_id: image_id.to_owned(), access_bindings: bindings.to_vec() };
    let path = "/yandex.cloud.compute.v1.ImageService/SetAccessBindings";
    caller.call("set access bindings", path, &request, Some(Uuid::new_v4()), &CancellationToken::new()).await
}

async fn update(
    caller: &Client,
    image_id: &str,
    deltas: &[AccessBindingDelta],
) -> Result<Operation, ApiError> {
    let request = UpdateAccessBindingsRequest {
        resource_id: image_id.to_owned(),
        access_binding_deltas: deltas.to_vec(),
    };
    let path = "/yandex.cloud.compute.v1.ImageService/UpdateAccessBindings";
    caller.call("update access bindings", path, &request, None, &CancellationToken::new()).await
}

async fn list(caller: &Client, image_id: &str, page_size: i64) -> Vec<AccessBinding> {
    let mut request =
        ListAccessBindingsRequest { resource_id: image_id.to_owned(), page_size, page_token: String::new() };
    let path = "/yandex.cloud.compute.v1.ImageService/ListAccessBindings";
    let mut all = Vec::new();
    loop {
        let page: ListAccessBindingsResponse = caller
            .call("list access bindings", path, &request, None, &CancellationToken::new())
            .await
            .unwrap();
        all.extend(page.access_bindings);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

async fn bindings_are_stored_and_enforced(transport: Transport) {
    let server = start(transport, &[]).await;
    let image_id = ready(&server, "web").await;
    let caller = account(transport, &server).await;
    assert_eq!(refusal(caller.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    let everybody = binding("compute.images.user", "system", "allAuthenticatedUsers");
    let editor = binding("editor", "serviceAccount", "ajeaccount");
    let person = binding("viewer", "userAccount", "ajeperson");
    let operation = set(&server.client, &image_id, &[everybody.clone(), person.clone()]).await.unwrap();
    assert!(operation.done);
    assert_eq!(effective(&operation).len(), 2);
    assert!(caller.get_image(&image_id, &server.cancel).await.is_ok());
    let rename = UpdateImageRequest {
        image_id: image_id.clone(),
        name: "db".to_owned(),
        ..UpdateImageRequest::default()
    };
    let denied = caller.update_image(&rename, Uuid::new_v4(), &server.cancel).await;
    assert_eq!(refusal(denied).code, Code::PermissionDenied);
    // Adding what is there, and removing what is not, changes nothing and is not told.
    let deltas = [
        delta(AccessBindingAction::Add, editor.clone()),
        delta(AccessBindingAction::Add, everybody.clone()),
        delta(AccessBindingAction::Remove, binding("admin", "userAccount", "nobody")),
        delta(AccessBindingAction::Remove, person.clone()),
    ];
    let operation = update(&server.client, &image_id, &deltas).await.unwrap();
    assert_eq!(effective(&operation), [deltas[0].clone(), deltas[3].clone()]);
    caller.update_image(&rename, Uuid::new_v4(), &server.cancel).await.unwrap();
    for page_size in [0, 1, 2] {
        assert_eq!(list(&caller, &image_id, page_size).await, [everybody.clone(), editor.clone()]);
    }
    // An editor does not say who may do what.
    assert_eq!(refusal(set(&caller, &image_id, &[]).await).code, Code::PermissionDenied);
    assert_eq!(effective(&set(&server.client, &image_id, &[editor]).await.unwrap()).len(), 1);
    assert_eq!(effective(&set(&server.client, &image_id, &[]).await.unwrap()).len(), 1);
    assert_eq!(refusal(caller.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    let bad = [delta(AccessBindingAction::Unspecified, binding("", "userAccount", "x"))];
    let error = refusal(update(&server.client, &image_id, &bad).await);
    let fields: Vec<_> = error.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(
        fields,
        ["access_binding_deltas[0].action", "access_binding_deltas[0].access_binding.role_id"]
    );
    // What is gone leaves no rights behind.
    set(&server.client, &image_id, &[everybody]).await.unwrap();
    let delete = server.client.delete_image(&image_id, Uuid::new_v4(), &server.cancel).await.unwrap();
    server.wait(&delete.id).await;
    assert!(server.app.catalog.bindings(&image_id, 0, 10).await.unwrap().is_empty());
    server.stop().await;
}

async fn a_key_is_one_callers_own(transport: Transport) {
    let server = start(transport, &["ajeaccount=editor"]).await;
    let caller = account(transport, &server).await;
    let key = Uuid::new_v4();
    let ours = server.client.create_image(&request("", "disk"), key, &server.cancel).await.unwrap();
    let theirs = caller.create_image(&request("", "disk"), key, &server.cancel).await.unwrap();
    assert_ne!(ours.id, theirs.id);
    server.stop().await;
}

async fn the_directory(transport: Transport) {
    let server = start(transport, &[]).await;
    let stranger = client(transport, server.address, None);
    let path = "/yandex.cloud.endpoint.ApiEndpointService/List";
    let list = ListApiEndpointsRequest::default();
    let all: ListApiEndpointsResponse =
        stranger.call("list endpoints", path, &list, None, &server.cancel).await.unwrap();
    let ids: Vec<_> = all.endpoints.iter().map(|endpoint| endpoint.id.as_str()).collect();
    assert_eq!(ids, ["compute", "endpoint", "iam", "operation", "storage"]);
    assert_eq!(all.endpoints[0].address, server.address.to_string());
    let path = "/yandex.cloud.endpoint.ApiEndpointService/Get";
    let get = |id: &str| GetApiEndpointRequest { api_endpoint_id: id.to_owned() };
    let one: ApiEndpoint =
        stranger.call("get endpoint", path, &get("storage"), None, &server.cancel).await.unwrap();
    assert_eq!(one.address, "store.example:443");
    let error = refusal(
        stranger.call::<_, ApiEndpoint>("get endpoint", path, &get("dns"), None, &server.cancel).await,
    );
    assert_eq!(error.code, Code::NotFound);
    server.stop().await;
}

async fn content_is_for_those_who_may_use_it(transport: Transport) {
    for (grant, status) in [("ajeaccount=viewer@folder", 403), ("ajeaccount=user@folder", 200)] {
        let server = start(transport, &[grant]).await;
        let id = ready(&server, "web").await;
        let stranger = client(transport, server.address, None);
        let token = stranger.create_iam_token(&proof(jwt(AUDIENCE)), &server.cancel).await.unwrap().iam_token;
        let content = reqwest_of(&server).get(url(&server, &format!("/images/{id}/disk.raw")));
        let answer = content.bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{grant}");
        drop(answer);
        server.stop().await;
    }
}
