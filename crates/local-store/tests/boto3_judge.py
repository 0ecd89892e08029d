"""Judges an S3 endpoint with boto3: python3 boto3_judge.py URL. Exits 0 when all checks hold.

Needs only boto3. The bucket is made and removed here.
"""

import base64
import hashlib
import io
import os
import sys
import time
import unittest
import urllib.error
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

MIB = 1 << 20
BUCKET = "boto3-judge"
ENDPOINT = sys.argv.pop(1)


CONFIG = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, signature_version="s3v4")

s3 = boto3.client("s3", endpoint_url=ENDPOINT, config=CONFIG)


class Judge(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        region = s3.meta.region_name
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region})

    @classmethod
    def tearDownClass(cls):
        bucket = boto3.resource("s3", endpoint_url=ENDPOINT, config=CONFIG).Bucket(BUCKET)
        bucket.objects.all().delete()
        s3.delete_bucket(Bucket=BUCKET)

    def refused(self, status, code, verb, **arguments):
        with self.assertRaises(ClientError) as refusal:
            getattr(s3, verb)(Bucket=BUCKET, **arguments)
        response = refusal.exception.response
        self.assertEqual((response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]), (status, code))

    def test_upload_fileobj_in_parts_with_default_checksums(self):
        body = os.urandom(17 * MIB + 3)
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
        extra = {"ContentType": "x/y", "Metadata": {"m": "1"}}
        s3.upload_fileobj(io.BytesIO(body), BUCKET, "multi", Config=config, ExtraArgs=extra)
        md5s = b"".join(hashlib.md5(body[at : at + 5 * MIB]).digest() for at in range(0, len(body), 5 * MIB))
        head = s3.head_object(Bucket=BUCKET, Key="multi", ChecksumMode="ENABLED")
        self.assertEqual(head["ETag"], f'"{hashlib.md5(md5s).hexdigest()}-4"')
        self.assertEqual((head["ContentType"], head["Metadata"]), ("x/y", {"m": "1"}))
        self.assertIn("ChecksumType", head)
        back = io.BytesIO()
        s3.download_fileobj(BUCKET, "multi", back, Config=config)
        self.assertEqual(back.getvalue(), body)

    def test_checksums_of_streams(self):
        for algorithm in ["CRC32", "SHA1", "SHA256"]:
            body = os.urandom(MIB + 1)
            s3.put_object(Bucket=BUCKET, Key="trailer", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
            got = s3.get_object(Bucket=BUCKET, Key="trailer", ChecksumMode="ENABLED")
            self.assertEqual(got["Body"].read(), body)
            self.assertIn("Checksum" + algorithm, got)

    def test_wrong_checksums(self):
        self.refused(400, "BadDigest", "put_object", Key="bad", Body=b"x", ChecksumCRC32="AAAAAA==")
        md5 = base64.b64encode(hashlib.md5(b"y").digest()).decode()
        self.refused(400, "BadDigest", "put_object", Key="bad", Body=b"x", ContentMD5=md5)
        self.refused(404, "NoSuchKey", "get_object", Key="bad")

    def test_ranges(self):
        s3.put_object(Bucket=BUCKET, Key="range", Body=b"0123456789")
        for header, expected in [("bytes=2-4", b"234"), ("bytes=-3", b"789"), ("bytes=8-99", b"89")]:
            got = s3.get_object(Bucket=BUCKET, Key="range", Range=header)
            self.assertEqual((got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]), (expected, 206))
        self.refused(416, "InvalidRange", "get_object", Key="range", Range="bytes=10-")

    def test_conditions(self):
        etag = s3.put_object(Bucket=BUCKET, Key="cond", Body=b"1", IfNoneMatch="*")["ETag"]
        self.refused(412, "PreconditionFailed", "put_object", Key="cond", Body=b"2", IfNoneMatch="*")
        self.refused(412, "PreconditionFailed", "put_object", Key="cond", Body=b"2", IfMatch='"0"')
        self.refused(412, "PreconditionFailed", "get_object", Key="cond", IfMatch='"0"')
        self.refused(304, "304", "get_object", Key="cond", IfNoneMatch=etag)
        self.refused(412, "412", "head_object", Key="cond", IfMatch='"0"')
        s3.put_object(Bucket=BUCKET, Key="cond", Body=b"3", IfMatch=etag)

    def test_pages(self):
        keys = sorted(f"pages/{name}" for name in ["a b", "a+b", "a%2Fb", "\u00e9", "<&>", "d/1", "d/2", "\U0001f600", "\x02"])
        for key in keys:
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
        for verb in ["list_objects_v2", "list_objects"]:
            for size in [1, 2, 1000]:
                pages = s3.get_paginator(verb).paginate(Bucket=BUCKET, Prefix="pages/", PaginationConfig={"PageSize": size})
                found = [item["Key"] for page in pages for item in page.get("Contents", [])]
                self.assertEqual(found, keys)
            pages = s3.get_paginator(verb).paginate(
                Bucket=BUCKET, Prefix="pages/", Delimiter="/", PaginationConfig={"PageSize": 1}
            )
            prefixes = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
            self.assertEqual(prefixes, ["pages/d/"])
        deleted = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys if key != "pages/\x02"]})
        self.assertNotIn("Errors", deleted)
        s3.delete_object(Bucket=BUCKET, Key="pages/\x02")

    def test_copy(self):
        body = os.urandom(6 * MIB)
        s3.put_object(Bucket=BUCKET, Key="copy/from \u00e9", Body=body)
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
        source = {"Bucket": BUCKET, "Key": "copy/from \u00e9"}
        s3.copy(source, BUCKET, "copy/parts", Config=config)
        s3.copy_object(Bucket=BUCKET, Key="copy/whole", CopySource=source)
        for key in ["copy/parts", "copy/whole"]:
            self.assertEqual(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read(), body)
        self.refused(404, "NoSuchKey", "copy_object", Key="x", CopySource=f"{BUCKET}/none")

    def test_uploads(self):
        upload = s3.create_multipart_upload(
            Bucket=BUCKET, Key="up", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
        )
        up = {"Key": "up", "UploadId": upload["UploadId"]}
        parts = []
        for number, body in [(1, bytes(5 * MIB)), (2, b"end")]:
            part = s3.upload_part(Bucket=BUCKET, PartNumber=number, Body=body, **up)
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        listed = s3.list_parts(Bucket=BUCKET, MaxParts=1, **up)
        self.assertEqual((listed["IsTruncated"], listed["NextPartNumberMarker"]), (True, 1))
        self.assertEqual(listed["Parts"][0]["ETag"], parts[0]["ETag"])
        self.assertIn("ChecksumCRC32", listed["Parts"][0])
        uploads = s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
        self.assertIn(upload["UploadId"], [it["UploadId"] for it in uploads])

        wrong = [{"PartNumber": 1, "ETag": '"0"'}]
        done = lambda parts, **more: {"MultipartUpload": {"Parts": parts}, **up, **more}
        self.refused(400, "InvalidPart", "complete_multipart_upload", **done(wrong))
        self.refused(400, "InvalidPartOrder", "complete_multipart_upload", **done(parts[::-1]))
        self.refused(400, "BadDigest", "complete_multipart_upload", **done(parts, ChecksumCRC32="AAAAAA=="))
        complete = s3.complete_multipart_upload(Bucket=BUCKET, **done(parts))
        again = s3.complete_multipart_upload(Bucket=BUCKET, **done(parts))
        self.assertEqual(complete["ETag"], again["ETag"])
        got = s3.get_object(Bucket=BUCKET, Key="up", ChecksumMode="ENABLED")
        self.assertEqual(got["ChecksumType"], "FULL_OBJECT")
        self.assertEqual(got["Body"].read(), bytes(5 * MIB) + b"end")
        self.refused(404, "NoSuchUpload", "abort_multipart_upload", **up)

    def test_signed_urls(self):
        s3.put_object(Bucket=BUCKET, Key="signed", Body=b"0123456789")
        url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "signed"}, ExpiresIn=1)
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=0-0"})) as got:
            self.assertEqual((got.status, got.read(), got.headers["Content-Range"]), (206, b"0", "bytes 0-0/10"))
        self.assertEqual(self.status(url, "HEAD"), (403, b""))
        too_long = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "signed"}, ExpiresIn=604801)
        self.assertEqual(self.status(too_long)[0], 400)
        time.sleep(2.1)
        status, body = self.status(url)
        self.assertEqual(status, 403)
        self.assertIn(b"<Code>AccessDenied</Code><Message>Request has expired</Message>", body)

    def status(self, url, method="GET"):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method)) as got:
                return got.status, got.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


if __name__ == "__main__":
    unittest.main()
