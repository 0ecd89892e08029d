"""`image-prep create --cloud gcp` against a service made of the official Python client's own messages, and against image-server.

The service speaks REST as the client's messages have it, read and written by google.protobuf.json_format, which refuses what they do not
know. Its tokens are for JWTs that google-auth verifies, with which the client signs. Every field that the command line can set has to
arrive, and what is answered has to be printed.

What to run and to talk to stands in the environment, see ../sdk.rs. Prints a line for each step that went as it should; an
assertion that fails ends it with 1.
"""

import json
import os
import subprocess
import tempfile
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit

from google.api_core.client_options import ClientOptions
from google.auth import jwt
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1 as compute
from google.oauth2 import service_account
from google.protobuf import json_format

PROJECT = "b1gfolder"
TOKEN = "ya29.made-by-the-stub"
OBJECT = "https://storage.googleapis.com/bucket/folder/disk%20x.tar.gz"
EMAIL = "me@b1gfolder.iam.gserviceaccount.com"

# Options of the command line, and the fields that they stand for.
CASES = {
    "nothing": ([], {}),
    "everything": (
        ["--description", "née “x” <&>", "--family", "w2", "--label", "a=1", "--label", "b=", "--label", "schlüssel=ä"]
        + ["--min-disk-size", "8GiB", "--license", "https://l/1", "--license", "projects/p/global/licenses/l"]
        + ["--guest-os-feature", "GVNIC", "--guest-os-feature", "UEFI_COMPATIBLE", "--os", "windows"]
        + ["--architecture", "ARM64", "--storage-location", "eu"],
        {
            "description": "née “x” <&>",
            "family": "w2",
            "labels": {"a": "1", "b": "", "schlüssel": "ä"},
            "disk_size_gb": 8,
            "licenses": ["https://l/1", "projects/p/global/licenses/l"],
            "guest_os_features": [
                compute.GuestOsFeature(type_=word) for word in ("GVNIC", "UEFI_COMPATIBLE", "WINDOWS")
            ],
            "architecture": "ARM64",
            "storage_locations": ["eu"],
        },
    ),
    "windows": (["--os", "windows"], {"guest_os_features": [compute.GuestOsFeature(type_="WINDOWS")]}),
    "none": (["--guest-os-feature", "none", "--architecture", "X86_64"], {"architecture": "X86_64"}),
}


def new_image(name, source, fields):
    raw = compute.RawDisk(source=source, container_type="TAR")
    return compute.Image(name=name, raw_disk=raw, source_type="RAW", **fields)


def to_json(message):
    return json_format.MessageToJson(type(message).pb(message)).encode()


def from_json(kind, text):
    """The message; fields that it does not have are an error."""
    message = kind()
    json_format.Parse(text, kind.pb(message))
    return message


class Stub:
    """The service; keeps what it is asked for."""

    def __init__(self, public_key):
        self.public_key = public_key
        self.inserted, self.waits, self.tokens, self.failure = [], 0, 0, None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def link(self, path):
        return f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/{path}"

    def token(self, form):
        """Signed with RS256, of this key, for this endpoint, with the claims and header of the client's own JWT."""
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer", form
        claims = jwt.decode(form["assertion"], certs=self.public_key, audience=f"{self.base}/token")
        header = jwt.decode_header(form["assertion"])
        assert (header["alg"], header["kid"], header["typ"]) == ("RS256", "kid", "JWT"), header
        assert claims["iss"] == EMAIL and claims["scope"] == "https://www.googleapis.com/auth/cloud-platform", claims
        assert 0 < claims["exp"] - claims["iat"] <= 3600, claims
        self.tokens += 1
        return {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}

    def image(self, name):
        """What was asked for last, made."""
        request = self.inserted[-1]
        image = compute.Image(request.image_resource)
        image.id, image.status, image.kind = 4711, "READY", "compute#image"
        image.self_link = self.link(f"images/{name}")
        image.archive_size_bytes, image.disk_size_gb = 1 << 40, max(image.disk_size_gb, 2)
        image.creation_timestamp = "2026-01-02T03:04:05.678-08:00"
        image.raw_disk, image.label_fingerprint = compute.RawDisk(container_type="TAR"), "x="
        return image

    def operation(self, progress):
        request = self.inserted[-1]
        name = request.image_resource.name
        operation = compute.Operation(
            kind="compute#operation",
            id=42,
            name="operation-1700000000000-60a5b8c2d3e4f-abcdef12-3456789a",
            operation_type="insert",
            target_link=self.link(f"images/{name}"),
            target_id=4711,
            user=EMAIL,
            progress=progress,
            insert_time="2026-01-02T03:04:05.678-08:00",
            start_time="2026-01-02T03:04:05.700-08:00",
            client_operation_id=request.request_id,
        )
        if progress == 100:
            operation.status, operation.end_time = compute.Operation.Status.DONE, "2026-01-02T03:05:05.000-08:00"
            if self.failure:
                fault = compute.Errors(code=self.failure, message="The tar archive is not a valid image.")
                operation.error = compute.Error(errors=[fault])
                operation.http_error_status_code, operation.http_error_message = 400, "BAD REQUEST"
        else:
            operation.status = compute.Operation.Status.RUNNING
        return operation

    def call(self, verb, path, query, body):
        images = f"/compute/v1/projects/{PROJECT}/global/images"
        operations = f"/compute/v1/projects/{PROJECT}/global/operations/"
        if (verb, path) == ("POST", images):
            assert query.keys() == {"requestId"}, query
            image = from_json(compute.Image, body)
            request = compute.InsertImageRequest(project=PROJECT, request_id=query["requestId"], image_resource=image)
            self.inserted.append(request)
            return self.operation(0)
        if (verb, path) == ("GET", images):
            return compute.ImageList(kind="compute#imageList", id="x", self_link=self.link("images"))
        if verb == "GET" and path.startswith(images + "/"):
            name = path.rsplit("/", 1)[1]
            if self.inserted and self.inserted[-1].image_resource.name == name and not self.failure:
                return self.image(name)
            raise KeyError(f"The resource 'projects/{PROJECT}/global/images/{name}' was not found")
        if path.startswith(operations) and self.inserted:
            assert path.split("/")[7] == self.operation(0).name, path
            if verb == "POST" and path.endswith("/wait"):
                assert not body and not query, (body, query)
                self.waits += 1
                # As Google's, it may answer before the operation is done.
                return self.operation(30 if self.waits % 2 else 100)
            if verb == "GET":
                return self.operation(60)
        raise KeyError(f"no {verb} {path}")


def handler(stub):
    class Rest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status, reason, message):
            fault = {"message": message, "domain": "global", "reason": reason}
            error = {"code": status, "message": message, "errors": [fault]}
            self.answer(status, json.dumps({"error": error}).encode())

        def serve(self):
            # Google's front end answers a POST without a length with 411.
            assert self.command != "POST" or self.headers["Content-Length"] is not None, self.headers
            target, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                if target.path == "/token":
                    return self.answer(200, json.dumps(stub.token(dict(parse_qsl(body.decode())))).encode())
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    return self.refuse(401, "required", "Login Required.")
                query = {name: value for name, [value] in parse_qs(target.query).items()}
                return self.answer(200, to_json(stub.call(self.command, target.path, query, body)))
            except KeyError as error:
                self.refuse(404, "notFound", error.args[0])
            except Exception as error:  # What is wrong with a request is said to who made it, and to us.
                self.refuse(400, "invalid", repr(error))

        do_GET = do_POST = do_PATCH = do_DELETE = serve

    return Rest


class Sender:
    """image-prep, with nothing in its environment but a home of its own and what it is told."""

    def __init__(self, program, home, environment):
        self.program, self.home, self.environment = program, home, environment

    def run(self, *words):
        environment = {"HOME": self.home, "GCE_METADATA_HOST": "127.0.0.1:1", **self.environment}
        command = [self.program, *words, "--json", "--cloud", "gcp", "--project", PROJECT]
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)

    def create(self, name, endpoint, options):
        run = self.run("create", "--quiet", "--name", name, "--endpoint", endpoint, *options)
        assert run.returncode == 0, (name, options, run.stderr.decode())
        return json.loads(run.stdout)


def parsed(kind, printed):
    """What was printed of a message, without the name of its type."""
    return from_json(kind, json.dumps({name: value for name, value in printed.items() if name != "@type"}))


def sent(sender, stub):
    reached = set()
    for case, (options, fields) in CASES.items():
        count = len(stub.inserted)
        operation = sender.create(f"sent-{case}", stub.base, ["--uri", OBJECT, *options])
        assert len(stub.inserted) == count + 1, stub.inserted
        request = stub.inserted[-1]
        expected = new_image(f"sent-{case}", OBJECT, fields)
        assert request.image_resource == expected, f"{case}: expected {expected}, found {request.image_resource}"
        assert str(uuid.UUID(request.request_id)) == request.request_id, request.request_id
        reached.update(descriptor.name for descriptor, _ in compute.Image.pb(request.image_resource).ListFields())
        # What it is not, it does not print: of an Image the source, which Google does not show either.
        printed, image = parsed(compute.Image, operation["response"]), stub.image(f"sent-{case}")
        image.raw_disk = None
        assert printed == image, f"{case}: expected {image}, found {printed}"
        assert operation["done"] and operation["createdAt"] == "2026-01-02T11:04:05.678Z", operation
        about = parsed(compute.Operation, operation["metadata"])
        assert about == stub.operation(100), about
    print(f"google stub: each of {len(reached)} fields arrives, and each answer is printed", flush=True)
    identifiers = [request.request_id for request in stub.inserted]
    again = sender.create("sent-everything", stub.base, ["--uri", OBJECT, *CASES["everything"][0]])
    assert stub.inserted[-1].request_id == identifiers[1] and len(set(identifiers)) == len(CASES), identifiers
    assert again["response"]["id"] == "4711", again
    print("google stub: the requestId is that of the request", flush=True)
    assert stub.waits >= len(CASES) and stub.tokens == len(CASES) + 1, (stub.waits, stub.tokens)
    print(f"google stub: {stub.tokens} tokens got with JWTs that google-auth verifies", flush=True)


def failed(sender, stub):
    stub.failure = "IMAGE_SOURCE_INVALID"
    run = sender.run("create", "--quiet", "--name", "failed", "--endpoint", stub.base, "--uri", OBJECT)
    operation, error = json.loads(run.stdout), json.loads(run.stderr)
    assert run.returncode == 4 and operation["error"]["code"] == 3, (run.returncode, operation)
    text = "IMAGE_SOURCE_INVALID: The tar archive is not a valid image."
    assert operation["error"]["message"] == text and text in json.dumps(error), (operation, error)
    run = sender.run("operation", "get", "operation-1", "--endpoint", f"{stub.base}/elsewhere")
    assert run.returncode == 1 and "NOT_FOUND" in run.stderr.decode(), run
    print("google stub: an operation that failed is 4, a refusal 1", flush=True)


def made(sender, endpoint, disk, bucket):
    options = ClientOptions(api_endpoint=endpoint)
    images = compute.ImagesClient(credentials=AnonymousCredentials(), client_options=options)
    options = ["--family", "web", "--label", "a=1", "--guest-os-feature", "GVNIC", "--architecture", "ARM64"]
    operation = sender.create("made", endpoint, [disk, "--bucket", f"gs://{bucket}", *options])
    image = images.get(project=PROJECT, image="made")
    assert parsed(compute.Image, operation["response"]) == image, (operation, image)
    assert (image.status, image.family, dict(image.labels)) == ("READY", "web", {"a": "1"}), image
    assert [feature.type_ for feature in image.guest_os_features] == ["GVNIC"] and image.disk_size_gb == 1, image
    again = sender.create("made", endpoint, [disk, "--bucket", f"gs://{bucket}", *options])
    assert again["response"]["id"] == operation["response"]["id"] and again["id"] == operation["id"], again
    other = sender.run("create", disk, "--name", "made", "--endpoint", endpoint, "--bucket", bucket)
    assert other.returncode == 1 and "ALREADY_EXISTS" in other.stderr.decode(), other
    print("image-server: an Image from a disk, as Google's client sees it; the same again; another is refused", flush=True)


def main():
    environment = os.environ
    with open(environment["ACCOUNT_KEY"], encoding="ascii") as file:
        public_key = json.load(file)["public_key"]
    with open(environment["ACCOUNT_PRIVATE_KEY"], encoding="ascii") as file:
        private_key = file.read()
    with tempfile.TemporaryDirectory() as home:
        stub = Stub(public_key)
        key_file = os.path.join(home, "key.json")
        key = {"type": "service_account", "project_id": "other", "private_key_id": "kid", "private_key": private_key}
        key |= {"client_email": EMAIL, "token_uri": f"{stub.base}/token"}
        with open(os.open(key_file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            json.dump(key, file)
        # It is a key to Google's own library too.
        assert service_account.Credentials.from_service_account_file(key_file).service_account_email == EMAIL
        named = Sender(environment["IMAGE_PREP"], home, {"GOOGLE_APPLICATION_CREDENTIALS": key_file})
        sent(named, stub)
        failed(named, stub)
        store = {
            "STORAGE_EMULATOR_HOST": environment["STORE_ENDPOINT"],
            "AWS_REGION": environment["STORE_REGION"],
            "AWS_ACCESS_KEY_ID": environment["STORE_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": environment["STORE_SECRET_KEY"],
        }
        anonymous = Sender(environment["IMAGE_PREP"], home, store)
        made(anonymous, f"http://{environment['ENDPOINT']}", environment["DISK"], environment["STORE_BUCKET"])


main()
