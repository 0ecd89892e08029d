"""Google's own Python client for Compute Engine against image-server: it must not be able to tell the difference.

What to talk to stands in the environment, see ../sdk.rs. Prints a line for each step that went as it should; an
assertion that fails ends it with 1.
"""

import os
import time
import uuid

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1 as compute
from google.oauth2.credentials import Credentials

PROJECT = "b1gfolder"


def refused(kind, call, **arguments):
    """The error of a call that must fail, which is of the client's own kind for it."""
    try:
        answer = call(**arguments)
    except exceptions.GoogleAPICallError as error:
        assert type(error) is kind, (type(error), error)
        assert error.errors and error.errors[0]["domain"] == "global", error.errors
        return error
    raise AssertionError(f"expected {kind.__name__}, found {answer}")


class Stranger(Credentials):
    """A token that no renewal makes good; the client asks for one at each 401."""

    def refresh(self, request):
        pass


class Walk:
    def __init__(self, endpoint, credentials):
        options = ClientOptions(api_endpoint=endpoint)
        self.images = compute.ImagesClient(credentials=credentials, client_options=options)
        self.operations = compute.GlobalOperationsClient(credentials=credentials, client_options=options)
        # The client's futures poll at Google's address, whatever the endpoint is: they have to be told.
        self.images.transport._extended_operations_services["global_operations"] = self.operations

    def done(self, what):
        print(f"google: {what}", flush=True)

    def insert(self, image, request_id=None):
        request = compute.InsertImageRequest(project=PROJECT, image_resource=image, request_id=request_id)
        # Not the future of the client, which polls: both ways of waiting are walked here.
        return self.images.insert_unary(request=request)

    def by_wait(self, operation):
        while operation.status != compute.Operation.Status.DONE:
            operation = self.operations.wait(project=PROJECT, operation=operation.name)
            assert 0 <= operation.progress <= 100, operation
        return operation

    def by_get(self, operation):
        deadline = time.time() + 120
        while operation.status != compute.Operation.Status.DONE:
            assert time.time() < deadline, operation
            time.sleep(0.1)
            operation = self.operations.get(project=PROJECT, operation=operation.name)
        return operation

    def run(self, archive, signed):
        new = compute.Image(
            name="web",
            family="linux",
            description="made by google-cloud-compute",
            labels={"a": "1"},
            raw_disk=compute.RawDisk(source=archive, container_type="TAR"),
            source_type="RAW",
            guest_os_features=[compute.GuestOsFeature(type_="UEFI_COMPATIBLE")],
            architecture="X86_64",
            licenses=["projects/p/global/licenses/l"],
            disk_size_gb=2,
        )
        key = str(uuid.uuid4())
        operation = self.insert(new, key)
        assert self.insert(new, key).id == operation.id
        assert operation.client_operation_id == key and operation.operation_type == "insert", operation
        operation = self.by_wait(operation)
        assert not operation.error.errors and operation.progress == 100, operation
        self.done("insert by name in the store, the same requestId again, wait")

        operation = self.by_get(self.insert(compute.Image(name="db", raw_disk=compute.RawDisk(source=signed))))
        assert not operation.error.errors, operation
        copy = compute.Image(name="copy", source_image="projects/b1gfolder/global/images/web")
        # The client's own future, which raises what went wrong.
        self.images.insert(project=PROJECT, image_resource=copy).result(timeout=120)
        self.done("insert by a signed URL and of an image; get, and the client's own future")

        image = self.images.get(project=PROJECT, image="web")
        assert image.status == "READY" and image.labels["a"] == "1" and image.disk_size_gb == 2, image
        assert image.guest_os_features[0].type_ == "UEFI_COMPATIBLE" and image.architecture == "X86_64", image
        assert list(image.licenses) == list(new.licenses) and image.description == new.description, image
        assert image.archive_size_bytes > 0 and image.self_link.endswith("/images/web"), image
        copied = self.images.get(project=PROJECT, image="copy")
        assert copied.source_image == image.self_link and copied.source_image_id == str(image.id), copied
        assert copied.architecture == "X86_64", copied
        assert self.images.get_from_family(project=PROJECT, family="linux") == image
        self.done("get, get from family")

        every = compute.ListImagesRequest(project=PROJECT, max_results=1)
        assert [found.name for found in self.images.list(request=every)] == ["copy", "db", "web"]
        some = compute.ListImagesRequest(project=PROJECT, filter="(family = linux) (labels.a:*)")
        assert list(self.images.list(request=some)) == [image]
        newest = compute.ListImagesRequest(project=PROJECT, order_by="creationTimestamp desc")
        assert [found.name for found in self.images.list(request=newest)] == ["copy", "db", "web"]
        self.done("list by pages, by filter, by time")

        labels = compute.GlobalSetLabelsRequest(labels={"b": "2"}, label_fingerprint=image.label_fingerprint)
        change = dict(project=PROJECT, resource="web", global_set_labels_request_resource=labels)
        self.images.set_labels(**change).result(timeout=120)
        refused(exceptions.PreconditionFailed, self.images.set_labels, **change)
        patch = compute.Image(family="windows")
        self.images.patch(project=PROJECT, image="web", image_resource=patch).result(timeout=120)
        changed = self.images.get_from_family(project=PROJECT, family="windows")
        assert dict(changed.labels) == {"b": "2"} and changed.description == new.description, changed
        self.done("labels by their fingerprint, patch")

        bad = compute.Image(name="Web", raw_disk=compute.RawDisk(source=signed), architecture="RISCV")
        error = refused(exceptions.BadRequest, self.images.insert, project=PROJECT, image_resource=bad)
        assert [fault["reason"] for fault in error.errors] == ["invalid", "invalid"], error.errors
        assert "resource.name" in error.message and "resource.architecture" in error.message, error
        key = compute.CustomerEncryptionKey(raw_key="x")
        sealed = compute.Image(name="x", raw_disk=compute.RawDisk(source=signed), image_encryption_key=key)
        error = refused(exceptions.BadRequest, self.images.insert, project=PROJECT, image_resource=sealed)
        assert "imageEncryptionKey" in error.message, error
        error = refused(exceptions.Conflict, self.images.insert, project=PROJECT, image_resource=new)
        assert error.errors[0]["reason"] == "alreadyExists", error.errors
        for call, arguments in [
            (self.images.get, {"image": "nothing"}),
            (self.images.get_from_family, {"family": "nothing"}),
            (self.images.delete, {"image": "nothing"}),
            (self.operations.get, {"operation": "nothing"}),
        ]:
            refused(exceptions.NotFound, call, project=PROJECT, **arguments)
        lost = compute.Image(name="lost", raw_disk=compute.RawDisk(source=archive + ".nothing"))
        future = self.images.insert(project=PROJECT, image_resource=lost)
        try:
            future.result(timeout=120)
            raise AssertionError("made of nothing, and yet an image")
        except exceptions.BadRequest as error:
            assert error.errors[0].code == "FAILED_PRECONDITION", error.errors
        refused(exceptions.NotFound, self.images.get, project=PROJECT, image="lost")
        self.done("400, 404, 409, 412 as the client's own exceptions, also of a failed operation")

        key = str(uuid.uuid4())
        delete = compute.DeleteImageRequest(project=PROJECT, image="web", request_id=key)
        operation = self.by_wait(self.images.delete_unary(request=delete))
        assert operation.operation_type == "delete" and not operation.error.errors, operation
        refused(exceptions.NotFound, self.images.get, project=PROJECT, image="web")
        assert self.images.delete_unary(request=delete).id == operation.id
        for name in ["copy", "db"]:
            self.images.delete(project=PROJECT, image=name).result(timeout=120)
        assert list(self.images.list(project=PROJECT)) == []
        self.done("delete, the same requestId again")


def main():
    environment = os.environ
    token = environment.get("TOKEN")
    credentials = Credentials(token=token) if token else AnonymousCredentials()
    Walk(f"http://{environment['ENDPOINT']}", credentials).run(environment["ARCHIVE"], environment["GOOD_URI"])
    if token:
        stranger = Walk(f"http://{environment['ENDPOINT']}", Stranger(token="wrong"))
        refused(exceptions.Unauthorized, stranger.images.get, project=PROJECT, image="web")
        stranger.done("a wrong token is 401")


main()
