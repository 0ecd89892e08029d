"""What boto3 finds in a bucket. The store stands in the AWS variables.

judge.py BUCKET make            makes the bucket where it is missing
judge.py BUCKET take KEY PATH   downloads an object, prints its metadata as JSON, deletes it
judge.py BUCKET left            prints the keys of objects and of unfinished uploads, one a line
"""

import json
import sys

import boto3
from botocore.exceptions import ClientError


def make(s3, bucket):
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        s3.create_bucket(Bucket=bucket)


def take(s3, bucket, key, path):
    # In ranges, several at a time, as boto3 does it by itself.
    s3.download_file(bucket, key, path)
    print(json.dumps(s3.head_object(Bucket=bucket, Key=key)["Metadata"]))
    s3.delete_object(Bucket=bucket, Key=key)


def left(s3, bucket):
    for listed in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        print(listed["Key"])
    for listed in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        print(listed["Key"])


if __name__ == "__main__":
    bucket, verb, *rest = sys.argv[1:]
    {"make": make, "take": take, "left": left}[verb](boto3.client("s3"), bucket, *rest)
