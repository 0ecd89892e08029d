// The cloud's Node SDK against image-server, over TLS: it must not be able to tell the difference.
//
// What to talk to stands in the environment, see ../sdk.rs. Prints a line for each step that went as it should; an assertion that
// fails ends it with 1. The SDK has the addresses of the cloud's services built in, and takes others for each client. Not for the
// one that exchanges a JWT by itself: so the JWT is made here, with the SDK's own library, and exchanged by a client of the SDK.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Session, errors, waitForOperation } = require("@yandex-cloud/nodejs-sdk");
const { image: { Image, Image_Status }, imageService: requests } = require("@yandex-cloud/nodejs-sdk/compute-v1");
const { iamTokenService: tokens } = require("@yandex-cloud/nodejs-sdk/iam-v1");
const { operationService } = require("@yandex-cloud/nodejs-sdk/operation");
const { ClientError, Metadata } = require("nice-grpc");
const jwt = require("jsonwebtoken");

const FOLDER = "b1gfolder";
const { ENDPOINT: endpoint, GOOD_URI: good, SLOW_URI: slow } = process.env;
const ssl = { rootCerts: readFileSync(process.env.ROOT) };
// The codes of gRPC.
const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
const ALREADY_EXISTS = 6;
const UNAUTHENTICATED = 16;

const done = (what) => console.log(`Node SDK, TLS: ${what}`);

/** A token for the service account of the fixtures. */
async function token() {
  const key = JSON.parse(readFileSync(process.env.ACCOUNT_KEY, "utf8"));
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: key.service_account_id, aud: "https://iam.api.cloud.yandex.net/iam/v1/tokens", iat: now, exp: now + 3600,
  };
  const privateKey = readFileSync(process.env.ACCOUNT_PRIVATE_KEY);
  const proof = jwt.sign(claims, privateKey, { algorithm: "PS256", keyid: key.id });
  const stranger = new Session({ iamToken: "none", ssl });
  const iam = stranger.client(tokens.IamTokenServiceClient, endpoint);
  return (await iam.create(tokens.CreateIamTokenRequest.fromPartial({ jwt: proof }))).iamToken;
}

/** The code of a call that must fail, and the fields that its details name. */
async function refusal(call, request) {
  let trailer;
  const succeeded = (answer) => assert.fail(`expected an error, found ${JSON.stringify(answer)}`);
  const onTrailer = (found) => { trailer = found; };
  const error = await call(request, { onTrailer }).then(succeeded, (error) => error);
  // The types of the SDK: its own where the answer has headers before its trailers, which a bare error has not.
  assert.ok(error instanceof errors.ApiError || error instanceof ClientError, String(error));
  const status = Buffer.from(trailer.get("grpc-status-details-bin"));
  return { code: codeOf(status), fields: violations(status) };
}

/** The code in the bytes of a `google.rpc.Status`: its first field. */
function codeOf(status) {
  assert.equal(status[0], 8);
  return status[1];
}

/** The fields of a `BadRequest` in the bytes of a `google.rpc.Status`, of which the SDK has no types. */
function violations(status) {
  const found = [];
  for (const any of fields(status, 3)) {
    const [url] = fields(any, 1);
    if (url.toString() !== "type.googleapis.com/google.rpc.BadRequest") continue;
    const [value] = fields(any, 2);
    for (const violation of fields(value, 1)) found.push(fields(violation, 1)[0].toString());
  }
  return found;
}

/** Every length-delimited field of this number in a message of which we know that it has varints and those only. */
function fields(message, wanted) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  const found = [];
  while (at < message.length) {
    const key = varint();
    if (key % 8 === 0) {
      varint();
      continue;
    }
    assert.equal(key % 8, 2, "a wire type that these messages do not have");
    const length = varint();
    if (key >> 3 === wanted) found.push(message.subarray(at, at + length));
    at += length;
  }
  return found;
}

const session = new Session({ iamToken: await token(), ssl, pollInterval: 200 });
done("a token for a JWT");
const images = session.client(requests.ImageServiceClient, endpoint);
const operations = session.client(operationService.OperationServiceClient, endpoint);
const wait = (operation) => waitForOperation(operation, session, 60_000, endpoint);

const create = (fields) => requests.CreateImageRequest.fromPartial({ folderId: FOLDER, uri: good, ...fields });
const key = { metadata: Metadata({ "idempotency-key": randomUUID() }) };
const web = create({ name: "web", family: "linux", labels: { a: "1" } });
const operation = await images.create(web, key);
assert.equal((await images.create(web, key)).id, operation.id);
const image = Image.decode((await wait(operation)).response.value);
assert.equal(image.status, Image_Status.READY);
assert.deepEqual([image.name, image.labels], ["web", { a: "1" }]);
assert.equal(requests.CreateImageMetadata.decode(operation.metadata.value).imageId, image.id);
done("create, the same key again, wait");

const get = requests.GetImageRequest.fromPartial({ imageId: image.id });
assert.deepEqual(await images.get(get), image);
const listed = await images.list(requests.ListImagesRequest.fromPartial({ folderId: FOLDER, filter: 'name = "web"' }));
assert.deepEqual(listed.images.map((found) => found.id), [image.id]);
const family = requests.GetImageLatestByFamilyRequest.fromPartial({ folderId: FOLDER, family: "linux" });
assert.deepEqual(await images.getLatestByFamily(family), image);
done("get, list, get by family");

const change = requests.UpdateImageRequest.fromPartial({
  imageId: image.id, updateMask: { paths: ["name", "labels"] }, name: "db", labels: { b: "2" },
});
const changed = Image.decode((await wait(await images.update(change))).response.value);
assert.deepEqual([changed.name, changed.labels, changed.family], ["db", { b: "2" }, "linux"]);
done("update");

let refused = await refusal(images.create, create({ name: "Web", description: "d".repeat(257) }));
assert.deepEqual(refused, { code: INVALID_ARGUMENT, fields: ["name", "description"] });
refused = await refusal(images.create, create({ name: "db" }));
assert.equal(refused.code, ALREADY_EXISTS);
refused = await refusal(images.get, requests.GetImageRequest.fromPartial({ imageId: "fd8nothing" }));
assert.equal(refused.code, NOT_FOUND);
done("errors with every field violation");

const running = await images.create(create({ name: "slow", uri: slow }));
await operations.cancel(operationService.CancelOperationRequest.fromPartial({ operationId: running.id }));
// The SDK's waiter gives an operation that failed as what it rejects with.
const stopped = await wait(running).then(() => assert.fail("cancelled, and yet an image"), (failed) => failed);
assert.equal(stopped.error?.code, CANCELLED, String(stopped));
done("cancel");

await wait(await images.delete(requests.DeleteImageRequest.fromPartial({ imageId: image.id })));
refused = await refusal(images.get, get);
assert.equal(refused.code, NOT_FOUND);
done("delete");

const wrong = new Session({ iamToken: "wrong", ssl }).client(requests.ImageServiceClient, endpoint);
refused = await refusal(wrong.get, get);
assert.equal(refused.code, UNAUTHENTICATED);
done("a wrong token is UNAUTHENTICATED");
