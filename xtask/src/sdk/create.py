"""`image-prep create` against a service made of the official Python SDK's own classes, and against image-server.

The service is the SDK's servicers behind one address: gRPC by grpcio, REST by the paths that the SDK's descriptors name, with
google.protobuf.json_format. Who wants a token signs for it as the SDK's own `ServiceAccountAuth` does, and PyJWT, with which the SDK
signs, verifies it. Every field that the command line can set has to arrive, over both, and what is answered has to be printed.

What to run and to talk to stands in the environment, see ../sdk.rs. Prints a line for each step that went as it should; an
assertion that fails ends it with 1.
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import grpc
import jwt
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from yandex.cloud.compute.v1 import image_service_pb2 as images
from yandex.cloud.compute.v1 import image_service_pb2_grpc as images_grpc
from yandex.cloud.compute.v1.hardware_generation_pb2 import (
    PCI_TOPOLOGY_V1,
    PCI_TOPOLOGY_V2,
    Generation2HardwareFeatures,
    HardwareGeneration,
    LegacyHardwareFeatures,
)
from yandex.cloud.compute.v1.image_pb2 import Image, Nvidia, Os
from yandex.cloud.iam.v1 import iam_token_service_pb2 as tokens
from yandex.cloud.iam.v1 import iam_token_service_pb2_grpc as tokens_grpc
from yandex.cloud.operation import operation_service_pb2 as operations
from yandex.cloud.operation import operation_service_pb2_grpc as operations_grpc
from yandex.cloud.operation.operation_pb2 import Operation

from yandexcloud import _auth_fabric

FOLDER = "b1gfolder"
TOKEN = "t1.made-by-the-stub"
DISK = b"\0" * (1 << 20)


def legacy(topology):
    return HardwareGeneration(legacy_features=LegacyHardwareFeatures(pci_topology=topology))


# Options of the command line, and the fields that they stand for.
CASES = {
    "nothing": ([], {}),
    "everything": (
        ["--description", "née “x” <&>", "--family", "web-2", "--label", "a=1", "--label", "b=", "--min-disk-size", "8GiB"]
        + ["--product-id", "f2e1", "--product-id", "f2e2", "--os", "windows", "--nvidia-driver", "550.54", "--pooled"]
        + ["--hardware-generation", "legacy-v2"],
        {
            "description": "née “x” <&>",
            "family": "web-2",
            "labels": {"a": "1", "b": ""},
            "min_disk_size": 8 << 30,
            "product_ids": ["f2e1", "f2e2"],
            "os": Os(type=Os.WINDOWS, nvidia=Nvidia(driver="550.54")),
            "pooled": True,
            "hardware_generation": legacy(PCI_TOPOLOGY_V2),
        },
    ),
    "driver": (["--nvidia-driver", "535"], {"os": Os(type=Os.LINUX, nvidia=Nvidia(driver="535"))}),
    "linux": (
        ["--os", "linux", "--hardware-generation", "gen2"],
        {
            "os": Os(type=Os.LINUX),
            "hardware_generation": HardwareGeneration(generation2_features=Generation2HardwareFeatures()),
        },
    ),
    "legacy": (["--hardware-generation", "legacy-v1"], {"hardware_generation": legacy(PCI_TOPOLOGY_V1)}),
}
# All of the request but where it comes from: of the sources the command line has the URL.
SET = {"folder_id", "name", "uri"}.union(*(fields for _, fields in CASES.values()))
OTHER_SOURCES = {"image_id", "disk_id", "snapshot_id"}


class Account:
    """The key of a service account, in the form of the SDK."""

    def __init__(self, environment):
        with open(environment["ACCOUNT_KEY"], "rb") as file:
            self.public = json.load(file)
        with open(environment["ACCOUNT_PRIVATE_KEY"], encoding="ascii") as file:
            self.key = dict(self.public, private_key=file.read())

    def verify(self, signed, base):
        """Signed with PS256, of this key, for this exchange, with the claims and header of the SDK's own JWT."""
        audience = f"{base}/iam/v1/tokens"
        required = ["iss", "aud", "iat", "exp"]
        claims = jwt.decode(
            signed,
            self.public["public_key"],
            algorithms=["PS256"],
            audience=audience,
            issuer=self.key["service_account_id"],
            options={"require": required},
        )
        theirs = _auth_fabric.get_auth_token_requester(service_account_key=self.key).get_token_request().jwt
        expected = jwt.decode(theirs, options={"verify_signature": False})
        assert jwt.get_unverified_header(signed) == jwt.get_unverified_header(theirs)
        assert claims.keys() == expected.keys() == set(required), claims
        assert [type(claims[name]) for name in required] == [type(expected[name]) for name in required], claims
        # The address of the exchange, which the SDK makes from that of the cloud.
        assert expected["aud"].split("/", 3)[3] == audience.split("/", 3)[3], expected
        assert 0 < claims["exp"] - claims["iat"] <= 3600 and abs(claims["iat"] - time.time()) < 60, claims


class Stub(
    images_grpc.ImageServiceServicer, operations_grpc.OperationServiceServicer, tokens_grpc.IamTokenServiceServicer
):
    """The service; keeps what it is asked for."""

    def __init__(self, account):
        self.account, self.base = account, None
        self.created, self.exchanges = [], 0

    def allow(self, context):
        metadata = dict(context.invocation_metadata())
        if metadata.get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token of this service")
        return metadata

    # IamTokenService and ImageService both have a Create: what is asked tells which.
    def Create(self, request, context):
        if isinstance(request, tokens.CreateIamTokenRequest):
            self.account.verify(request.jwt, self.base)
            self.exchanges += 1
            answer = tokens.CreateIamTokenResponse(iam_token=TOKEN)
            answer.expires_at.FromSeconds(int(time.time()) + 3600)
            return answer
        metadata = self.allow(context)
        self.created.append((request, metadata["idempotency-key"]))
        return self.operation(done=False)

    def List(self, request, context):
        self.allow(context)
        assert request.folder_id == FOLDER, request
        return images.ListImagesResponse()

    def Get(self, request, context):
        self.allow(context)
        assert request == operations.GetOperationRequest(operation_id="fdvoperation"), request
        return self.operation(done=True)

    def image(self):
        """What was asked for last, made."""
        request, _ = self.created[-1]
        both = SET - {"uri"}
        image = Image(id="fd8image", status=Image.READY, storage_size=1 << 40)
        image.created_at.FromSeconds(1_700_000_000)
        image.MergeFrom(Image(**{name: value for name, value in set_fields(request) if name in both}))
        return image

    def Cancel(self, request, context):
        return self.Get(operations.GetOperationRequest(operation_id=request.operation_id), context)

    def operation(self, done):
        operation = Operation(id="fdvoperation", description="Create image", done=done)
        operation.metadata.Pack(images.CreateImageMetadata(image_id="fd8image"))
        if done:
            operation.response.Pack(self.image())
        return operation


def set_fields(message):
    return [(descriptor.name, value) for descriptor, value in message.ListFields()]


class Aborted(Exception):
    def __init__(self, code, details):
        super().__init__(details)
        self.code, self.details = code, details


class RestContext:
    """What a servicer has of its caller."""

    def __init__(self, headers):
        self.headers = headers

    def invocation_metadata(self):
        return [(name.lower(), value) for name, value in self.headers.items()]

    def abort(self, code, details):
        raise Aborted(code, details)


def routes():
    """Verb, path, request class and name of every method, as the descriptors have them."""
    found = []
    for module in (images, operations, tokens):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                verb = rule.WhichOneof("pattern")
                if verb is None:
                    continue
                pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(getattr(rule, verb)))
                found.append((verb.upper(), re.compile(pattern), GetMessageClass(method.input_type), method.name))
    return found


def rest_handler(stub):
    table = routes()

    class Rest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body, *headers):
            self.send_response(status)
            for name, value in (("Content-Length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def disk(self):
            begin, end = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            part = DISK[int(begin) : int(end) + 1]
            span = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(DISK)}"
            self.answer(206, part, ("Content-Range", span), ("ETag", '"disk"'))

        def call(self):
            target, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if target.path == "/disk":
                return self.disk()
            try:
                for verb, path, kind, name in table:
                    match = path.fullmatch(target.path)
                    if verb == self.command and match:
                        request = kind()
                        json_format.Parse(body or b"{}", request)
                        json_format.ParseDict(dict(parse_qsl(target.query)) | match.groupdict(), request)
                        answer = getattr(stub, name)(request, RestContext(self.headers))
                        return self.answer(200, json_format.MessageToJson(answer).encode())
                raise Aborted(grpc.StatusCode.NOT_FOUND, f"no {self.command} {target.path}")
            except Aborted as error:
                status = Status(code=error.code.value[0], message=error.details)
            except Exception as error:  # What is wrong with a request is said to who made it, and to us.
                status = Status(code=3, message=repr(error))
            self.answer(400, json_format.MessageToJson(status).encode())

        do_GET = do_POST = do_PATCH = do_DELETE = call

    return Rest


def one_address(grpc_port, rest_port):
    """Both services at one address, as the cloud has them: who begins with the preface of HTTP/2 wants gRPC."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while chunk := source.recv(1 << 16):
                sink.sendall(chunk)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def split(client):
        first = client.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
        server = socket.create_connection(("127.0.0.1", grpc_port if first == b"PRI " else rest_port))
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        pump(server, client)

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=split, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def start(account):
    stub = Stub(account)
    server = grpc.server(ThreadPoolExecutor(8))
    images_grpc.add_ImageServiceServicer_to_server(stub, server)
    operations_grpc.add_OperationServiceServicer_to_server(stub, server)
    tokens_grpc.add_IamTokenServiceServicer_to_server(stub, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), rest_handler(stub))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    stub.base, stub.server = one_address(grpc_port, rest.server_address[1]), server
    return stub


class Sender:
    """image-prep, with nothing in its environment but a home of its own."""

    def __init__(self, program, home):
        self.program, self.home = program, home

    def run(self, *words):
        command = [self.program, *words, "--json", "--folder-id", FOLDER]
        environment = {"HOME": self.home, "YC_METADATA_ADDR": "127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true"}
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)

    def create(self, name, endpoint, uri, options):
        run = self.run("create", "--quiet", "--name", name, "--endpoint", endpoint, "--uri", uri, *options)
        assert run.returncode == 0, (name, options, run.stderr.decode())
        return json_format.Parse(run.stdout, Operation())


def sent(sender, account, key_file):
    stub = start(account)
    uri = f"{stub.base}/disk?signature=a%2Fb&x=1"
    for transport in ("rest", "grpc"):
        for case, (options, fields) in CASES.items():
            count = len(stub.created)
            options = [*options, "--transport", transport, "--service-account-key-file", key_file]
            operation = sender.create(f"sent-{case}", stub.base, uri, options)
            assert len(stub.created) == count + 1, stub.created
            request, _ = stub.created[-1]
            expected = images.CreateImageRequest(folder_id=FOLDER, name=f"sent-{case}", uri=uri, **fields)
            assert request == expected, f"{case}, {transport}: expected {expected}, found {request}"
            printed = Image()
            assert operation.response.Unpack(printed) and printed == stub.image(), f"{case}, {transport}: {printed}"
            # As bytes, maps have no order.
            answer = stub.operation(done=True)
            operation.response.Clear()
            answer.response.Clear()
            assert operation == answer, f"{case}, {transport}: {operation}"
    assert {field.name for field in images.CreateImageRequest.DESCRIPTOR.fields} == SET | OTHER_SOURCES
    print(f"stub: each of {len(SET)} fields arrives over REST and over gRPC, and each answer is printed", flush=True)
    keys = [key for _, key in stub.created]
    assert keys[: len(CASES)] == keys[len(CASES) :] and len(set(keys)) == len(CASES), keys
    print("stub: the idempotency key is that of the request, over both", flush=True)
    assert stub.exchanges == len(stub.created)
    print(f"stub: {stub.exchanges} tokens got with JWTs like the SDK's own, verified", flush=True)
    said = sender.run("doctor", "--endpoint", stub.base, "--service-account-key-file", key_file).stdout.decode()
    steps = {step["step"]: step["result"] for step in map(json.loads, said.splitlines())}
    assert steps["token"] == steps["service"] == "ok" and stub.exchanges == len(stub.created), (said, stub.exchanges)
    print("stub: doctor gets one token", flush=True)
    stub.server.stop(None)


def made(sender, endpoint, uri):
    with grpc.insecure_channel(endpoint) as channel:
        service = images_grpc.ImageServiceStub(channel)
        for transport in ("rest", "grpc"):
            for case, (options, fields) in CASES.items():
                name = f"{transport}-{case}"
                options = [*options, "--transport", transport]
                operation = sender.create(name, f"http://{endpoint}", uri, options)
                printed = Image()
                assert operation.done and operation.response.Unpack(printed), operation
                image = service.Get(images.GetImageRequest(image_id=printed.id))
                assert image == printed, (image, printed)
                assert (image.folder_id, image.name, image.status) == (FOLDER, name, Image.READY), image
                # The system of which nothing is said is Linux.
                expected = Image(os=Os(type=Os.LINUX))
                expected.MergeFrom(Image(**fields))
                for field in sorted(SET - {"folder_id", "name", "uri", "min_disk_size"}):
                    assert getattr(image, field) == getattr(expected, field), f"{name}: {field}: {image}"
                assert image.min_disk_size == fields.get("min_disk_size", image.min_disk_size) > 0, image
    print(f"image-server: {2 * len(CASES)} Images have the fields that they were asked for with", flush=True)


def main():
    environment = os.environ
    account = Account(environment)
    with tempfile.TemporaryDirectory() as home:
        key_file = os.path.join(home, "key.json")
        with open(os.open(key_file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            json.dump(account.key, file)
        sender = Sender(environment["IMAGE_PREP"], home)
        sent(sender, account, key_file)
        made(sender, environment["ENDPOINT"], environment["GOOD_URI"])


main()
