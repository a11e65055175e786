"""A broker that asks who one is: TLS under a CA of our own, SASL PLAIN, SCRAM and OAUTHBEARER, and
rights by ACL. What is refused says what would be right; no secret shows anywhere."""
import base64
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import harness
from cluster import Cluster, Part, Pipeline, free_ports
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

PREFIX = "secure."
# A word that is nowhere else: found in a log or on a command line, it has leaked.
SECRET = "hunter2-correct-horse"


def openssl(*arguments, cwd):
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def certificates(folder):
    """A CA, and a broker's key and certificate under it, in the form that Kafka takes."""
    folder.mkdir()
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=clickstream test CA", cwd=folder)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=127.0.0.1", cwd=folder)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "broker.pem",
            "-days", "2", "-extfile", "names", cwd=folder)
    (folder / "keystore.pem").write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())
    return folder


def token(subject, seconds):
    """An unsecured JSON Web Token, as a broker takes it that was told to."""
    part = lambda claims: base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()  # noqa: E731
    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now, 'exp': now + seconds})}."


class Secure:
    def __init__(self, folder):
        self.folder, self.certificates = folder, certificates(folder / "certificates")
        port = free_ports(4)
        self.port = port + 2
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="{SECRET}" user_mallory="{SECRET}";'
        oauth = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        listeners = f"PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{self.port}"
        self.cluster = Cluster(port=port, properties=[
            f"listeners={listeners},CONTROLLER://127.0.0.1:{port + 100}",
            f"advertised.listeners={listeners}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
            "listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            f"listener.name.secure.plain.sasl.jaas.config={plain}",
            f"listener.name.secure.scram-sha-512.sasl.jaas.config={scram}",
            f"listener.name.secure.oauthbearer.sasl.jaas.config={oauth}",
            "listener.name.secure.ssl.keystore.type=PEM",
            f"listener.name.secure.ssl.keystore.location={self.certificates / 'keystore.pem'}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ])
        three = [part for user in ("alice", "bob", "carol") for part in ("--allow-principal", f"User:{user}")]
        allow, prefixed = ["AclCommand", "--add"], ["--resource-pattern-type", "prefixed"]
        operations = lambda *names: [part for name in names for part in ("--operation", name)]  # noqa: E731
        # What the README says that the parts need; each tool is a JVM, so all at once.
        tools = [
            ["kafka.admin.ConfigCommand", "--alter", "--add-config", f"SCRAM-SHA-512=[password={SECRET}]",
             "--entity-type", "users", "--entity-name", "bob"],
            [*allow, *three, *operations("Read", "Write", "Create", "DescribeConfigs"), "--topic", PREFIX, *prefixed],
            [*allow, *three, *operations("Read"), "--group", PREFIX, *prefixed],
            [*allow, *three, *operations("Write", "Describe"), "--transactional-id", PREFIX, *prefixed],
            # May look, and not touch.
            [*allow, "--allow-principal", "User:mallory", *operations("Describe", "DescribeConfigs"), "--topic", PREFIX, *prefixed],
        ]
        with ThreadPoolExecutor(len(tools)) as pool:
            list(pool.map(lambda words: self.cluster.tool(*words), tools))

    def properties(self, name, **settings):
        """A properties file as an operator has it."""
        path = self.folder / f"{name}.properties"
        lines = {"security.protocol": "SASL_SSL", "ssl.ca.location": self.certificates / "ca.pem",
                 **{key.replace("_", "."): value for key, value in settings.items()}}
        path.write_text("# who we are\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))
        return path

    def pipeline(self, binary, folder, properties, *flags):
        made = Pipeline(binary, self.cluster, folder, PREFIX, ["--kafka-properties", str(properties), *flags])
        made.on = lambda: ["--broker", f"kafka://127.0.0.1:{self.port}", "--topic-prefix", PREFIX, *made.flags]
        return made


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    made = Secure(tmp_path_factory.mktemp("secure"))
    yield made
    made.cluster.end()


def test_scram_plain_and_a_token_are_taken_and_no_secret_shows(secure, binary, tmp_path, sample):
    bob = secure.properties("bob", sasl_mechanism="SCRAM-SHA-512", sasl_username="bob", sasl_password=SECRET)
    pipeline = secure.pipeline(binary, tmp_path, bob)
    run = pipeline.start("run", sample, "--flat-out", "--log-level", "trace")
    line = Path(f"/proc/{run.pid}/cmdline").read_bytes().decode(errors="replace")
    assert SECRET not in line
    assert run.wait(120) == 0, run.describe()
    assert SECRET not in run.says() and SECRET not in run.out.read_text()
    oracle = Oracle([Source(run.report()["source"], [sample])])
    assert_marts_equal(pipeline.marts, oracle)
    assert_lake_equal(pipeline.lake, oracle)

    # The password from the environment, or from a file of its own.
    alice = secure.properties("alice", sasl_mechanism="PLAIN", sasl_username="alice", sasl_password="${env:KAFKA_PASSWORD}")
    said = secure.pipeline(binary, tmp_path, alice).ask("check", KAFKA_PASSWORD=SECRET)
    assert SECRET not in said.stdout + said.stderr
    (tmp_path / "password").write_text(SECRET + "\n")
    bare = secure.properties("bare", sasl_mechanism="PLAIN", sasl_username="alice")
    secure.pipeline(binary, tmp_path, bare, "--kafka-property", f"sasl.password=${{file:{tmp_path / 'password'}}}").ask("check")

    # A token that is replaced before it expires: the part outlives the first one.
    held = tmp_path / "token"
    held.write_text(token("carol", 8))
    carol = secure.properties("carol", sasl_mechanism="OAUTHBEARER")
    by_token = secure.pipeline(binary, tmp_path / "carol", carol, "--kafka-token-file", str(held))
    part = by_token.start("sessionize")
    for _ in range(4):
        time.sleep(3)
        held.write_text(token("carol", 8))
        assert part.is_running(), part.describe()
    by_token.ask("check")
    part.drain()


def refused(pipeline, name, *says):
    part = pipeline.start(name)
    began = time.monotonic()
    assert part.wait(60) == 1, part.describe()
    assert time.monotonic() - began < 30, "a refusal is not waited out"
    for text in says:
        assert text in part.says(), part.describe()
    assert SECRET not in part.says(), part.describe()


def test_what_is_refused_says_what_would_be_right(secure, binary, tmp_path):
    pipeline = secure.pipeline(binary, tmp_path, secure.properties("bob", sasl_mechanism="SCRAM-SHA-512", sasl_username="bob", sasl_password=SECRET))
    pipeline.ask("topics", "create")

    def of(name, *flags, **settings):
        return secure.pipeline(binary, tmp_path / name, secure.properties(name, **settings), *flags)

    (tmp_path / "empty").write_text("")
    for name in ("wrong", "stranger", "expired", "mechanism", "mallory"):
        (tmp_path / name).mkdir()
    wrong = of("wrong", sasl_mechanism="SCRAM-SHA-512", sasl_username="bob", sasl_password="wrong")
    refused(wrong, "sessionize", "are not accepted")
    stranger = of("stranger", sasl_mechanism="PLAIN", sasl_username="alice", sasl_password=SECRET, ssl_ca_location="/etc/ssl/certs/ca-certificates.crt")
    refused(stranger, "sessionize", "ssl.ca.location")
    expired = of("expired", "--kafka-token-file", str(tmp_path / "empty"), sasl_mechanism="OAUTHBEARER")
    refused(expired, "sessionize", str(tmp_path / "empty"))
    unknown = of("mechanism", sasl_mechanism="SCRAM-SHA-256", sasl_username="bob", sasl_password=SECRET)
    refused(unknown, "sessionize", "sasl.mechanism")

    mallory = of("mallory", sasl_mechanism="PLAIN", sasl_username="mallory", sasl_password=SECRET)
    found = mallory.ask("check", check=False)
    assert found.code == 1 and "READ" in found.stdout and "WRITE" in found.stdout, found.describe()
    refused(mallory, "sessionize", "may not")
    refused(mallory, "lake", "may not")
    (tmp_path / "one.csv").write_text(
        harness.HEADER + "\n2019-10-01 00:00:00 UTC,view,1,2,a.b,c,1.00,4,00000000-0000-0000-0000-000000000000\n")
    produce = mallory.start("produce", tmp_path / "one.csv", "--flat-out")
    assert produce.wait(60) == 1 and "may not" in produce.says(), produce.describe()
