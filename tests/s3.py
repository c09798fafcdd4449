"""A server that speaks S3 over HTTP: moto's, in one thread. It checks no signatures and no rights."""

from collections.abc import Iterator

import pytest
import requests

LOGIN = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}


class Store:
    """The server at `url`, from outside."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=LOGIN["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=LOGIN["AWS_SECRET_ACCESS_KEY"],
            region_name=LOGIN["AWS_DEFAULT_REGION"],
        )

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        self._client.create_bucket(Bucket=name)

    def keys(self, bucket: str) -> list[str]:
        """What is in a bucket, at most 1000 names."""
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def sync(self, source: str, to: str) -> None:
        """Copy what is in a bucket to another, as `aws s3 sync` does."""
        for key in self.keys(source):
            self._client.copy_object(Bucket=to, Key=key, CopySource={"Bucket": source, "Key": key})

    def empty(self, bucket: str) -> None:
        """Delete what is in a bucket."""
        for key in self.keys(bucket):
            self._client.delete_object(Bucket=bucket, Key=key)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server; the environment has a login for it."""
    from moto.server import ThreadedMotoServer

    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()  # what it keeps outlives a server
        yield Store(url)
    finally:
        server.stop()
