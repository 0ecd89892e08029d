"""The official Python SDK of the cloud against image-server: it must not be able to tell the difference.

What to talk to stands in the environment, see ../sdk.rs. Prints a line for each step that went as it should; an
assertion that fails ends it with 1.
"""

import json
import os
import time
import uuid

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from yandex.cloud.access.access_pb2 import (
    ADD,
    AccessBinding,
    AccessBindingDelta,
    ListAccessBindingsRequest,
    Subject,
    UpdateAccessBindingsMetadata,
    UpdateAccessBindingsRequest,
)
from yandex.cloud.compute.v1 import image_service_pb2 as images
from yandex.cloud.compute.v1.image_pb2 import Image
from yandex.cloud.compute.v1.image_service_pb2_grpc import ImageServiceStub
from yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub

import yandexcloud
from yandexcloud.operations import OperationError

FOLDER = "b1gfolder"


def refusal(call, request):
    """The error of a call that must fail, with its details."""
    try:
        answer = call(request)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        status = status_pb2.Status()
        status.ParseFromString(trailers["grpc-status-details-bin"])
        assert status.code == error.code().value[0], status
        return error, status
    raise AssertionError(f"expected an error, found {answer}")


def violations(status):
    fields = []
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
    return fields


class Walk:
    def __init__(self, name, sdk, **clients):
        self.name, self.sdk, self.clients = name, sdk, clients
        self.images = self.client(ImageServiceStub)
        self.operations = self.client(OperationServiceStub)

    def client(self, stub):
        return self.sdk.client(stub, **self.clients)

    def done(self, what):
        print(f"{self.name}: {what}", flush=True)

    def wait(self, operation, response, meta):
        """By the SDK's own waiter over TLS; in plaintext it cannot be told the endpoint."""
        if not self.clients:
            return self.sdk.wait_operation_and_get_result(operation, response, meta, timeout=60).response
        deadline = time.time() + 60
        while not operation.done:
            assert time.time() < deadline
            time.sleep(0.1)
            operation = self.operations.Get(GetOperationRequest(operation_id=operation.id))
        assert not operation.HasField("error"), operation
        unpacked, metadata = response(), meta()
        assert operation.response.Unpack(unpacked) and operation.metadata.Unpack(metadata)
        return unpacked

    def request(self, name, uri, **fields):
        return images.CreateImageRequest(folder_id=FOLDER, name=name, uri=uri, **fields)

    def run(self, good, slow):
        request = self.request("web", good, family="linux", labels={"a": "1"})
        key = (("idempotency-key", str(uuid.uuid4())),)
        operation = self.images.Create(request, metadata=key)
        assert self.images.Create(request, metadata=key).id == operation.id
        image = self.wait(operation, Image, images.CreateImageMetadata)
        assert image.status == Image.READY and image.name == "web" and image.labels["a"] == "1", image
        self.done("create, the same key again, wait")

        assert self.images.Get(images.GetImageRequest(image_id=image.id)) == image
        listed = self.images.List(images.ListImagesRequest(folder_id=FOLDER, filter='name = "web"'))
        assert [found.id for found in listed.images] == [image.id]
        latest = images.GetImageLatestByFamilyRequest(folder_id=FOLDER, family="linux")
        assert self.images.GetLatestByFamily(latest) == image
        self.done("get, list, get by family")

        change = images.UpdateImageRequest(
            image_id=image.id, update_mask=FieldMask(paths=["name", "labels"]), name="db", labels={"b": "2"}
        )
        changed = self.wait(self.images.Update(change), Image, images.UpdateImageMetadata)
        assert changed.name == "db" and dict(changed.labels) == {"b": "2"} and changed.family == "linux", changed
        self.done("update")

        error, status = refusal(self.images.Create, self.request("Web", good, description="d" * 257))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert violations(status) == ["name", "description"], status
        error, status = refusal(self.images.Create, self.request("db", good))
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS
        error, _ = refusal(self.images.Get, images.GetImageRequest(image_id="fd8nothing"))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        self.done("errors with every field violation")

        operation = self.images.Create(self.request("slow", slow))
        self.operations.Cancel(CancelOperationRequest(operation_id=operation.id))
        try:
            self.wait(operation, Image, images.CreateImageMetadata)
            raise AssertionError("cancelled, and yet an image")
        except OperationError as error:
            assert "cancelled" in error.message, error
        except AssertionError as error:
            assert "CANCELLED" in str(error) or "code: 1" in str(error), error
        self.done("cancel")

        binding = AccessBinding(
            role_id="compute.images.user", subject=Subject(id="allAuthenticatedUsers", type="system")
        )
        bind = UpdateAccessBindingsRequest(
            resource_id=image.id, access_binding_deltas=[AccessBindingDelta(action=ADD, access_binding=binding)]
        )
        operation = self.images.UpdateAccessBindings(bind)
        assert operation.done and operation.metadata.Is(UpdateAccessBindingsMetadata.DESCRIPTOR), operation
        bindings = self.images.ListAccessBindings(ListAccessBindingsRequest(resource_id=image.id))
        assert list(bindings.access_bindings) == [binding]
        self.done("access bindings")

        history = images.ListImageOperationsRequest(image_id=image.id)
        said = [operation.description for operation in self.images.ListOperations(history).operations]
        assert said == ["Update image access bindings", "Update image", "Create image"], said
        self.done("operations of an image")

        self.wait(self.images.Delete(images.DeleteImageRequest(image_id=image.id)), Empty, images.DeleteImageMetadata)
        error, _ = refusal(self.images.Get, images.GetImageRequest(image_id=image.id))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        self.done("delete")


def main():
    environment = os.environ
    good, slow = environment["GOOD_URI"], environment["SLOW_URI"]
    endpoint = environment["ENDPOINT"]
    if "ROOT" not in environment:
        sdk = yandexcloud.SDK(iam_token="unused")
        Walk("plaintext", sdk, endpoint=endpoint, insecure=True).run(good, slow)
        return
    with open(environment["ROOT"], "rb") as file:
        root = file.read()
    with open(environment["ACCOUNT_KEY"], "rb") as file:
        key = json.load(file)
    with open(environment["ACCOUNT_PRIVATE_KEY"], encoding="ascii") as file:
        key["private_key"] = file.read()
    sdk = yandexcloud.SDK(endpoint=endpoint, service_account_key=key, root_certificates=root)
    Walk("TLS, discovery, service account", sdk).run(good, slow)
    sdk = yandexcloud.SDK(endpoint=endpoint, iam_token="wrong", root_certificates=root)
    error, _ = refusal(sdk.client(ImageServiceStub).Get, images.GetImageRequest(image_id="fd8"))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    print("TLS: a wrong token is UNAUTHENTICATED", flush=True)


main()
