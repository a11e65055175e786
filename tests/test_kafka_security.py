"""A broker that asks who one is: TLS under a CA of our own, SASL PLAIN, SCRAM and OAUTHBEARER, a
client's certificate, and rights by ACL. What is refused says what would be right; no secret shows anywhere."""
import base64
import json
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import admin

import harness
from cluster import Cluster, Part, Pipeline, free_ports
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

PREFIX = "secure."
# Topics of their own, for what is denied on some of them.
DENIED = "secure.denied."
# A word that is nowhere else: found in a log or on a command line, it has leaked.
SECRET = "hunter2-correct-horse"
# A tenth of it is what a busy machine has to take up the next one; a broker refuses two in a second.
TOKEN_SECONDS = 20
BY_PASSWORD = ("alice", "mallory", "nogroup", "notransaction", "nowrite")


def openssl(*arguments, cwd):
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def authority(folder, name):
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2",
            "-subj", f"/CN=clickstream test {name}", cwd=folder)


def certificate(folder, name, subject, ca):
    """A key, and a certificate of it under that CA."""
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}", cwd=folder)
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"{name}.pem",
            "-days", "2", "-extfile", "names", cwd=folder)


def certificates(folder):
    """A CA, a broker's and a client's key and certificate under it, in the form that Kafka takes; and a
    client's under another CA."""
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("ca", "foreign"):
        authority(folder, name)
    certificate(folder, "broker", "127.0.0.1", "ca")
    certificate(folder, "eve", "eve", "ca")
    certificate(folder, "forged", "eve", "foreign")
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
        self.port, self.mutual = port + 2, port + 3
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        passwords = " ".join(f'user_{name}="{SECRET}"' for name in BY_PASSWORD)
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {passwords};"
        oauth = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        listeners = f"PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{self.port},MUTUAL://127.0.0.1:{self.mutual}"
        self.cluster = Cluster(port=port, properties=[
            f"listeners={listeners},CONTROLLER://127.0.0.1:{port + 100}",
            f"advertised.listeners={listeners}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL",
            "listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            f"listener.name.secure.plain.sasl.jaas.config={plain}",
            f"listener.name.secure.scram-sha-512.sasl.jaas.config={scram}",
            f"listener.name.secure.oauthbearer.sasl.jaas.config={oauth}",
            *(f"listener.name.{name}.ssl.keystore.type=PEM" for name in ("secure", "mutual")),
            *(f"listener.name.{name}.ssl.keystore.location={self.certificates / 'keystore.pem'}" for name in ("secure", "mutual")),
            "listener.name.mutual.ssl.client.auth=required",
            "listener.name.mutual.ssl.truststore.type=PEM",
            f"listener.name.mutual.ssl.truststore.location={self.certificates / 'ca.pem'}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ])
        self.allow()

    def allow(self):
        """What the README says that the parts need; and to some users all of it but one thing."""
        client = admin.AdminClient({"bootstrap.servers": self.cluster.servers})
        may = []

        def acl(users, kind, name, *operations, pattern=admin.ResourcePatternType.PREFIXED, effect=admin.AclPermissionType.ALLOW):
            may.extend(admin.AclBinding(kind, name, pattern, f"User:{user}", "*", operation, effect)
                       for user in users for operation in operations)

        kinds, to = admin.ResourceType, admin.AclOperation
        whole = ("alice", "bob", "carol", "CN=eve", "nowrite")
        acl((*whole, "nogroup", "notransaction"), kinds.TOPIC, PREFIX, to.READ, to.WRITE, to.CREATE, to.DESCRIBE_CONFIGS)
        acl((*whole, "notransaction"), kinds.GROUP, PREFIX, to.READ)
        acl((*whole, "nogroup"), kinds.TRANSACTIONAL_ID, PREFIX, to.WRITE, to.DESCRIBE)
        # May look, and not touch.
        acl(("mallory",), kinds.TOPIC, PREFIX, to.DESCRIBE, to.DESCRIBE_CONFIGS)
        # May all but one thing, which shows only while it works.
        for name in ("events", "sessions"):
            acl(("nowrite",), kinds.TOPIC, f"{DENIED}{name}", to.WRITE, pattern=admin.ResourcePatternType.LITERAL, effect=admin.AclPermissionType.DENY)
        scram = admin.ScramCredentialInfo(admin.ScramMechanism.SCRAM_SHA_512, 4096)
        bob = admin.UserScramCredentialUpsertion("bob", scram, SECRET.encode())
        for done in (*client.create_acls(may).values(), *client.alter_user_scram_credentials([bob]).values()):
            done.result(60)

    def properties(self, name, **settings):
        """A properties file as an operator has it."""
        path = self.folder / f"{name}.properties"
        lines = {"security.protocol": "SASL_SSL" if "sasl_mechanism" in settings else "SSL", "ssl.ca.location": self.certificates / "ca.pem",
                 **{key.replace("_", "."): value for key, value in settings.items()}}
        path.write_text("# who we are\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))
        return path

    def pipeline(self, binary, folder, properties, *flags, prefix=PREFIX, port=None):
        made = Pipeline(binary, self.cluster, folder, prefix, ["--kafka-properties", str(properties), *flags])
        made.on = lambda: ["--broker", f"kafka://127.0.0.1:{port or self.port}", "--topic-prefix", prefix, *made.flags]
        return made

    def with_password(self, binary, folder, user, prefix):
        (folder / user).mkdir(exist_ok=True)
        properties = self.properties(user, sasl_mechanism="PLAIN", sasl_username=user, sasl_password=SECRET)
        return self.pipeline(binary, folder / user, properties, prefix=prefix)

    def with_certificate(self, binary, folder, name, prefix):
        (folder / name).mkdir()
        own = {"ssl_certificate_location": self.certificates / f"{name}.pem", "ssl_key_location": self.certificates / f"{name}.key"}
        properties = self.properties(name, **(own if name != "nobody" else {}))
        return self.pipeline(binary, folder / name, properties, prefix=prefix, port=self.mutual)


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
    assert run.wait(180) == 0, run.describe()
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
    held.write_text(token("carol", TOKEN_SECONDS))
    carol = secure.properties("carol", sasl_mechanism="OAUTHBEARER")
    by_token = secure.pipeline(binary, tmp_path / "carol", carol, "--kafka-token-file", str(held))
    part = by_token.start("sessionize")
    for _ in range(TOKEN_SECONDS // 3 + 2):
        time.sleep(3)
        held.write_text(token("carol", TOKEN_SECONDS))
        assert part.is_running(), part.describe()
    by_token.ask("check")
    part.drain()


def refused(pipeline, name, *says, flags=()):
    part = pipeline.start(name, *flags)
    began = time.monotonic()
    assert part.wait(180) == 1, part.describe()
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
    assert produce.wait(180) == 1 and "may not" in produce.says(), produce.describe()


def test_a_clients_certificate(secure, binary, tmp_path, sample):
    eve = secure.with_certificate(binary, tmp_path, "eve", "secure.eve.")
    ended = eve.run(sample)
    assert ended["totals"]["events"] == 17_434
    assert "WRONG" not in eve.ask("check").stdout
    assert_marts_equal(eve.marts, Oracle([Source(ended["source"], [sample])]))
    # None at all, and one of another authority.
    for name in ("nobody", "forged"):
        refused(secure.with_certificate(binary, tmp_path, name, "secure.eve."), "sessionize", "ssl.certificate.location")


def test_what_one_right_is_missing_for_is_said_and_nothing_is_lost(secure, binary, tmp_path):
    """A right that is missing shows where it is used, and not before: on the group, the transactional id,
    one topic of many."""
    alice = secure.with_password(binary, tmp_path, "alice", DENIED)
    alice.ask("topics", "create")
    of = lambda user: secure.with_password(binary, tmp_path, user, DENIED)  # noqa: E731
    rows = [f"2019-10-01 0{n}:00:00 UTC,view,{n + 1},2,a.b,c,1.00,4,session-{n}\n" for n in range(5)]
    path = harness.write_csv(tmp_path / "few.csv", rows)
    for part in ("sessionize", "lake", "marts"):
        refused(of("nogroup"), part, f"{DENIED}", "READ on the group")
    for part, flags in (("sessionize", ()), ("produce", (path, "--flat-out"))):
        refused(of("notransaction"), part, f"id {DENIED}", "WRITE and DESCRIBE on the transactional id", flags=flags)
    refused(of("nowrite"), "produce", f"{DENIED}events", "WRITE", flags=(path, "--flat-out"))
    # The producer that may; then a sessionizer that may write steps, and no sessions.
    assert alice.start("produce", path, "--flat-out").wait(180) == 0
    refused(of("nowrite"), "sessionize", f"{DENIED}sessions", "WRITE")
    ended = alice.run(path)
    assert ended["outcome"] == "already_done" and ended["totals"]["events"] == 5 and ended["totals"]["sessions"] == 5
    oracle = Oracle([Source(ended["source"], [path])])
    assert_marts_equal(alice.marts, oracle)
    assert_lake_equal(alice.lake, oracle)
