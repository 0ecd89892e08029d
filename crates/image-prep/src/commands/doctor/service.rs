//! The steps that are about the image service. Nothing is changed there: the one Create that is asked for names a source that does
//! not exist.

use std::time::Duration;

use image_api::compute::ListImagesRequest;
use image_api::compute::create_image_request::Source as MadeFrom;
use image_api::{ApiError, Client, ClientOptions, Code, CreateImageRequest, Operation, Skew, Uuid, reach};
use tokio_util::sync::CancellationToken;

use super::{Findings, told};
use crate::args::DoctorArgs;
use crate::cloud::{Cloud, Services, host_of};
use crate::context::Context;
use crate::credentials::{self, Choice, Source, Told};
use crate::error::Error;
use crate::service::{Service, check_token, client, credentials_of};
use crate::url_policy::is_loopback;

/// A clock that is wrong by less is as good as right: it is what a second or two of travel can make of it.
const SKEW_SEEN: Duration = Duration::from_secs(5);
/// What a JWT may be issued ahead of the server's time.
const SKEW_AHEAD: Duration = Duration::from_secs(60);
/// What a clock may be behind before a JWT, which lives for ten minutes, has expired when it arrives.
const SKEW_BEHIND: Duration = Duration::from_secs(540);

/// No Image has that id: identifiers are random.
const NO_IMAGE: &str = "fd8imageprepdoctor00";

const RIGHT_FIX: &str = "give the account the role compute.editor in the folder";

/// All steps, from the profile to the right to create.
pub(super) async fn check(args: &DoctorArgs, findings: &mut Findings<'_>) -> Result<(), Error> {
    let context = findings.context;
    let own = match context.profile() {
        Ok(own) => own,
        Err(error) => return findings.failed_with("profile", &error, None),
    };
    match own.name.as_str() {
        "" => findings.ok("profile", "none of image-prep's own")?,
        name => findings.ok("profile", &format!("`{name}`"))?,
    }
    let yc = match context.yc_profile(&args.api) {
        Ok(yc) => yc,
        Err(error) => return findings.failed_with("profile", &error, None),
    };
    if let Some(yc) = yc {
        findings.ok("profile", &format!("`{}` of yc", yc.name))?;
    }
    let choice = Choice { args: &args.api, variable: &credentials::variable, own, yc };
    let folder = choice.folder_id(args.folder_id.as_deref());
    match &folder {
        Some(Told { value, by }) => findings.ok("folder", &format!("{value}, from {by}"))?,
        None => findings.fail("folder", "none is named", "say --folder-id, or put it into YC_FOLDER_ID")?,
    }
    let Some(service) = find(args, findings, &choice).await? else {
        return findings.skip("create right", "cannot be asked for without the steps that failed");
    };
    rights(findings, &client(&args.api, &service)?, folder.as_ref().map(|folder| folder.value.as_str())).await
}

/// Where the service is, and a token for it.
async fn find(
    args: &DoctorArgs,
    findings: &mut Findings<'_>,
    choice: &Choice<'_>,
) -> Result<Option<Service>, Error> {
    let context = findings.context;
    let endpoint = match choice.endpoint_url(args.allow_http) {
        Ok(endpoint) => endpoint,
        Err(error) => return findings.failed_with("endpoint", &error, None).map(|()| None),
    };
    let services = match Services::at(&endpoint.value, &context.cancel).await {
        Ok(services) => services,
        Err(error) => {
            let fix = "check the endpoint and the network";
            return findings.failed_with("endpoint", &error, Some(fix)).map(|()| None);
        }
    };
    let source = choice.credentials(&endpoint);
    match &source {
        // What is about the endpoint alone can be looked at all the same.
        Err(error) => findings.failed_with("credentials", error, None)?,
        Ok(source) => told_of(findings, choice, source.as_ref())?,
    }
    let is_signed = matches!(&source, Ok(Some(Told { value: Source::Key(_), .. })));
    if !reached(findings, &services, &endpoint.by.to_string(), is_signed).await? {
        return Ok(None);
    }
    discovered(findings, &services).await?;
    let Ok(source) = source else { return Ok(None) };
    let Some(source) = source else {
        let fix = "YC_TOKEN, --token-file, --service-account-key-file, or a profile of yc";
        let may_do_without = endpoint.value.scheme() == "http" || is_loopback(&endpoint.value);
        match may_do_without {
            true => findings.warn("credentials", "none; some services need none", None)?,
            false => findings.fail("credentials", "none that may be used with this endpoint", fix)?,
        }
        return Ok(may_do_without.then_some(Service { services, credentials: None }));
    };
    token(findings, source, services, context).await
}

/// Where the credentials come from, and whether others can read them there.
fn told_of(
    findings: &mut Findings<'_>,
    choice: &Choice<'_>,
    source: Option<&Told<Source>>,
) -> Result<(), Error> {
    let Some(source) = source else { return Ok(()) };
    findings.ok("credentials", &format!("{}, from {}", source.value, source.by))?;
    match choice.file(&source.by).filter(|path| credentials::is_open_to_others(path)) {
        None => Ok(()),
        Some(path) => {
            let path = path.display();
            let fix = format!("chmod 600 {path}");
            findings.warn("credentials", &format!("`{path}` can be read by others"), Some(&fix))
        }
    }
}

/// Whether the service answers, and what time it has.
pub(super) async fn reached(
    findings: &mut Findings<'_>,
    services: &Services,
    by: &str,
    is_signed: bool,
) -> Result<bool, Error> {
    let compute = services.compute.as_str();
    let skew = match reach(compute, &ClientOptions::default(), &findings.context.cancel).await {
        Ok(skew) => skew,
        Err(error) => {
            let fix = "check the endpoint, the network, and whom this machine trusts";
            findings.failed_with("endpoint", &error.into(), Some(fix))?;
            return Ok(false);
        }
    };
    findings.ok("endpoint", &format!("{} answers, from {by}", host_of(&services.compute)))?;
    let Some(Skew { ahead, behind }) = skew else {
        findings.skip("clock", "the service does not tell its time")?;
        return Ok(true);
    };
    let (off, how, limit) = match ahead > behind {
        true => (ahead, "ahead of", SKEW_AHEAD),
        false => (behind, "behind", SKEW_BEHIND),
    };
    let text = format!("{} s {how} the service's", off.as_secs());
    let fix = "set the clock, for example by NTP";
    match off {
        off if off < SKEW_SEEN => findings.ok("clock", "as the service's")?,
        off if off > limit && is_signed => findings.fail("clock", &text, fix)?,
        _ => findings.warn("clock", &text, Some(fix))?,
    }
    Ok(true)
}

/// Whether a cloud's own list says the same as what is built in.
async fn discovered(findings: &mut Findings<'_>, services: &Services) -> Result<(), Error> {
    let Some(cloud) = Cloud::of(&services.compute) else {
        return findings.skip("discovery", "the endpoint is of no cloud that is built in");
    };
    let directory = crate::cloud::parse(&cloud.directory(), "https", false)?;
    match Services::listed(&directory, &findings.context.cancel).await {
        Ok(listed) if listed.compute == services.compute && listed.iam == services.iam => {
            findings.ok("discovery", &format!("{} says the same", host_of(&directory)))
        }
        Ok(listed) => {
            let text = format!("{} names {} instead", host_of(&directory), host_of(&listed.compute));
            findings.warn("discovery", &text, Some(&format!("say --endpoint {}", host_of(&directory))))
        }
        Err(error) => findings.warn("discovery", &told(&error), None),
    }
}

/// Whether the credentials give a token.
async fn token(
    findings: &mut Findings<'_>,
    source: Told<Source>,
    services: Services,
    context: &Context,
) -> Result<Option<Service>, Error> {
    let fix = match &source.value {
        Source::Bearer(_) | Source::Oauth(_) => "make a new one with `yc iam create-token`",
        Source::Key(_) => "make a new key with `yc iam key create`; the service must know the account",
        Source::Machine => "give the machine a service account, or name other credentials",
    };
    let got = match credentials_of(&source.value, &services) {
        // The one that the calls below use.
        Ok(credentials) if credentials.is_renewed() => {
            let token = credentials.get(&context.cancel).await;
            check_token(&source, token).map(|()| credentials)
        }
        Ok(credentials) => {
            findings.skip("token", "is shown as it is")?;
            return Ok(Some(Service { services, credentials: Some(credentials) }));
        }
        Err(error) => Err(error.into()),
    };
    match got {
        Ok(credentials) => {
            findings.ok("token", &format!("given by {}", host_of(&services.iam)))?;
            Ok(Some(Service { services, credentials: Some(credentials) }))
        }
        Err(error) => findings.failed_with("token", &error, Some(fix)).map(|()| None),
    }
}

/// Whether the service knows the caller, and would let it create.
pub(super) async fn rights(
    findings: &mut Findings<'_>,
    client: &Client,
    folder_id: Option<&str>,
) -> Result<(), Error> {
    let Some(folder_id) = folder_id else {
        return findings.skip("create right", "without a folder there is nothing to ask for");
    };
    let cancel = &findings.context.cancel;
    let request = ListImagesRequest { folder_id: folder_id.to_owned(), page_size: 1, ..Default::default() };
    match client.list_images(&request, cancel).await {
        Ok(_) => findings.ok("service", "knows the token")?,
        Err(error) if error.code() == Code::Unauthenticated => {
            let fix = "make a new token with `yc iam create-token`";
            return findings.fail("service", &told(&error), fix);
        }
        Err(error) if error.status().is_some() => {
            // Who may create need not be allowed to list.
            let text = format!("does not let Images be listed: {error}");
            findings.warn("service", &text, Some("for --if-exists give compute.viewer too"))?;
        }
        Err(error) => return findings.failed_with("service", &error.into(), None),
    }
    let name = format!("image-prep-doctor-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let request = CreateImageRequest {
        folder_id: folder_id.to_owned(),
        name,
        source: Some(MadeFrom::ImageId(NO_IMAGE.to_owned())),
        ..CreateImageRequest::default()
    };
    let asked = client.create_image(&request, Uuid::new_v4(), cancel).await;
    match read(&asked, folder_id) {
        Right::Given(text) => findings.ok("create right", &text)?,
        Right::Missing(text) => findings.fail("create right", &text, RIGHT_FIX)?,
        Right::Unknown(text) => findings.warn("create right", &text, None)?,
    }
    if let Ok(operation) = &asked {
        // It can make nothing, and need not try for long.
        let _ = client.cancel_operation(&operation.id, &CancellationToken::new()).await;
    }
    Ok(())
}

/// What an answer to the Create tells of the right.
#[derive(Debug, PartialEq, Eq)]
enum Right {
    Given(String),
    Missing(String),
    Unknown(String),
}

fn read(asked: &Result<Operation, ApiError>, folder_id: &str) -> Right {
    let error = match asked {
        Ok(operation) => {
            return Right::Given(format!("accepted as operation {}, which makes nothing", operation.id));
        }
        Err(error) => error,
    };
    let text = told(error);
    let is_about = |id: &str| error.status().is_some_and(|status| status.message.contains(id));
    match error.code() {
        Code::PermissionDenied if is_about(NO_IMAGE) => {
            Right::Unknown(format!("the answer speaks of the source: {text}"))
        }
        Code::PermissionDenied => Right::Missing(text),
        Code::NotFound if is_about(folder_id) && !is_about(NO_IMAGE) => Right::Missing(text),
        Code::NotFound | Code::FailedPrecondition => {
            Right::Given("only the source is refused, which does not exist".to_owned())
        }
        _ => Right::Unknown(format!("the answer does not tell: {text}")),
    }
}
