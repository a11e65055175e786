"""Fixtures. The binaries are built beforehand (`make release`); what is missing fails, not skips."""
import os
import subprocess
from pathlib import Path

import pytest
from minio import Minio

import cluster
import harness

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=120, help="kill -9s in the campaign (at least 100 by default)")
    parser.addoption("--kafka-kills", type=int, default=24, help="deaths in the campaign on Kafka (100 and more: make kafka-kills)")
    parser.addoption("--fault-passes", type=int, default=8, help="of the sample in each of the faults on Kafka (make kafka-kills: a million rows)")
    parser.addoption("--broken-brokers", action="store_true", help="faults of brokers that take minutes: a full disk, one of three killed")
    parser.addoption("--kill-seed", type=int, default=None, help="the campaign's seed, to run the same again")


@pytest.fixture(scope="session")
def sample():
    """The real rows that ship with the project."""
    return ROOT / "data" / "2019-Oct-head.csv.gz"


def _built(name):
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    if not (folder / name).exists():
        pytest.fail(f"{folder / name} is not built: make release", pytrace=False)
    return folder / name


@pytest.fixture(scope="session")
def binary():
    return _built("clickstream")


@pytest.fixture(scope="session")
def failpoint_binary():
    return _built("clickstream-failpoints")


@pytest.fixture
def clickstream(binary, tmp_path):
    """Runs `clickstream run …` on a data folder of its own, flat out unless told otherwise."""
    return harness.Clickstream(binary, tmp_path / "data")


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    """A real object store, with a bucket."""
    harness.installed("minio")
    folder, port = tmp_path_factory.mktemp("minio"), harness.free_port()
    run = lambda *args: subprocess.run([harness.ROOT / "scripts/minio", *args, "--dir", folder], check=True, capture_output=True)
    run("start", "--port", str(port))
    user = harness.AWS["AWS_ACCESS_KEY_ID"]
    client = Minio(f"127.0.0.1:{port}", access_key=user, secret_key=user, secure=False)
    client.make_bucket("shop")
    yield client, f"http://127.0.0.1:{port}"
    run("stop")


@pytest.fixture(scope="session")
def kafka():
    """One node of a real Apache Kafka, for all tests that speak to one."""
    made = cluster.Cluster()
    yield made
    made.end()


@pytest.fixture
def on_kafka(binary, kafka, tmp_path, request):
    """The pipeline under a topic prefix of the test's own: tests of two files may have one name."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.nodeid.split("/")[-1])
    made = cluster.Pipeline(binary, kafka, tmp_path, f"{name}.")
    yield made
    made.end()
