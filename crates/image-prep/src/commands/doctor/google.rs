//! The steps that are about Compute Engine. Nothing is changed there.

use image_api::Code;

use super::{Findings, service, told};
use crate::args::DoctorArgs;
use crate::cloud::{Services, host_of};
use crate::error::Error;
use crate::service::Google;

/// All steps, from the profile to whether images may be listed.
pub(super) async fn check(args: &DoctorArgs, findings: &mut Findings<'_>) -> Result<(), Error> {
    let context = findings.context;
    match context.profile()?.name.as_str() {
        "" => findings.ok("profile", "none of image-prep's own")?,
        name => findings.ok("profile", &format!("`{name}`"))?,
    }
    let google = match Google::find(&args.api, args.allow_http, context) {
        Ok(google) => google,
        Err(error @ Error::NoProject) => return findings.failed_with("project", &error, None),
        Err(error) => return findings.failed_with("credentials", &error, None),
    };
    findings.ok("project", google.project())?;
    match google.credentials() {
        Some(told) => findings.ok("credentials", &format!("{}, from {}", told.value, told.by))?,
        None => findings.warn("credentials", "none; some services need none", None)?,
    }
    let (compute, by) = google.endpoint();
    let services = Services { compute: compute.clone(), operation: None, iam: compute.clone() };
    if !service::reached(findings, &services, &by.to_string(), google.is_signing()).await? {
        return Ok(());
    }
    let images = match google.images(context).await {
        Ok(images) => images,
        Err(error) => return findings.failed_with("token", &error, None),
    };
    match images.list_one(google.project(), &context.cancel).await {
        Ok(()) => findings.ok("service", "knows the token")?,
        Err(error) if error.status().is_none() || error.code() == Code::Unauthenticated => {
            return findings.failed_with("service", &error.into(), None);
        }
        Err(error) => {
            // Who may create need not be allowed to list.
            let text = format!("{} does not let Images be listed: {}", host_of(compute), told(&error));
            findings.warn("service", &text, Some("give the account the role roles/compute.storageAdmin"))?;
        }
    }
    findings.skip("create right", "Compute Engine has no call that would tell and make nothing")
}
