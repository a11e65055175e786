"""The command itself: where settings come from, the bare command, what it serves, how it ends."""
import json
import os
import re
import signal
import subprocess
import tomllib
import time
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest

from harness import Ended, environment, finish, said

SCHEMA = Path(__file__).resolve().parent.parent / "clickstream" / "summary.schema.json"


def run(binary, *args, **env):
    done = subprocess.run([str(binary), *map(str, args)], capture_output=True, text=True, timeout=60, env=environment(**env))
    return Ended(done.returncode, done.stdout, done.stderr)


def settings(binary, *args, **env):
    """What --print-config says, as it would be read again."""
    ended = run(binary, *args, "--print-config", **env)
    assert ended.code == 0, ended.describe()
    return tomllib.loads(ended.stdout)


def test_a_flag_beats_the_environment_that_the_file_that_the_default(binary, tmp_path):
    file = tmp_path / "clickstream.toml"
    file.write_text('partitions = 8\ngap = "10m"\n[run]\nspeed = "60x"\nquiet = true\n')
    assert settings(binary, "run", "x")["partitions"] == "4"
    from_file = settings(binary, "run", "x", "--config", file)
    assert (from_file["partitions"], from_file["gap"], from_file["speed"], from_file["quiet"]) == ("8", "10m", "60x", True)
    by_variable = settings(binary, "run", "x", CLICKSTREAM_CONFIG=str(file), CLICKSTREAM_PARTITIONS="2", CLICKSTREAM_QUIET="0")
    assert (by_variable["partitions"], by_variable["gap"], by_variable["quiet"]) == ("2", "10m", False)
    by_flag = settings(binary, "run", "x", f"--config={file}", "--partitions", "3", CLICKSTREAM_PARTITIONS="2")
    assert by_flag["partitions"] == "3"


@pytest.mark.parametrize(
    "words, env, inputs",
    [
        (["x", "--rate", "5000/s", "--max-gap", "30s"], {}, ["x"]),
        (["x", "y z.csv", "--input", "-"], {}, ["x", "y z.csv", "-"]),
        (["--input", "a", "--input=b", "--flat-out"], {"CLICKSTREAM_SPEED": "60x"}, ["a", "b"]),
        (["--speed", "2x"], {"CLICKSTREAM_INPUT": "a\nb", "CLICKSTREAM_FLAT_OUT": "1"}, ["a", "b"]),
        (["x"], {"CLICKSTREAM_INPUT": "a"}, ["x"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "produce"])
def test_what_is_printed_can_be_given_back(binary, tmp_path, command, words, env, inputs):
    printed = run(binary, command, *words, "--print-config", **env)
    assert printed.code == 0 and tomllib.loads(printed.stdout)["input"] == inputs, printed.describe()
    file = tmp_path / "again.toml"
    file.write_text(printed.stdout)
    assert settings(binary, command, "--config", file) == tomllib.loads(printed.stdout)


def test_an_input_of_the_config_file_is_played(clickstream, sample, tmp_path):
    file = tmp_path / "clickstream.toml"
    for value in (f'"{sample}"', f'["{sample}"]'):
        file.write_text(f"input = {value}\n")
        assert clickstream.done([], "--config", str(file)).summary["totals"]["events"] == 17_434
    ended = clickstream.run([])
    assert ended.code == 2 and "INPUT is missing" in ended.stderr, ended.describe()


def test_a_warehouse_without_a_dataset_is_wrong_usage(binary):
    for command in (("consume", "warehouse", "--broker", "kafka://127.0.0.1:1"), ("warehouse", "init")):
        ended = run(binary, *command)
        assert ended.code == 2 and "--warehouse PROJECT.DATASET" in ended.stderr, ended.describe()


# One pace: a flag beats the environment, that the file. Two of one place are wrong.
@pytest.mark.parametrize(
    "flags, env, file, expected",
    [
        ([], {}, "", {}),
        (["--flat-out"], {"CLICKSTREAM_SPEED": "60x"}, 'rate = "9/s"', {"flat-out": True}),
        (["--speed", "5x"], {"CLICKSTREAM_FLAT_OUT": "1"}, "", {"speed": "5x"}),
        (["--rate=5/s"], {"CLICKSTREAM_RATE": "9/s"}, "flat-out = true", {"rate": "5/s"}),
        ([], {"CLICKSTREAM_RAMP": "1/s..5/s over 5m", "CLICKSTREAM_FLAT_OUT": "0"}, 'speed = "9x"', {"ramp": "1/s..5/s over 5m"}),
        ([], {}, 'speed = "9x"\nflat-out = false', {"speed": "9x"}),
        (["--rate", "5/s", "--flat-out"], {}, "", "--rate and --flat-out: a replay has one pace"),
        ([], {"CLICKSTREAM_RATE": "9/s", "CLICKSTREAM_SPEED": "5x"}, "", "from the environment: a replay has one pace"),
        ([], {}, 'speed = "9x"\nramp = "1/s..5/s over 5m"', "from the config file: a replay has one pace"),
        (["--restart"], {"CLICKSTREAM_YES": "0"}, "", {}),
        ([], {"CLICKSTREAM_YES": "1"}, "", {}),
    ],
)
def test_one_pace(binary, tmp_path, flags, env, file, expected):
    config = tmp_path / "clickstream.toml"
    config.write_text(file)
    ended = run(binary, "run", "x", "--config", config, "--print-config", *flags, **env)
    if isinstance(expected, str):
        assert ended.code == 2 and expected in ended.stderr, ended.describe()
        return
    assert ended.code == 0, ended.describe()
    said = tomllib.loads(ended.stdout)
    assert {name: said[name] for name in ("speed", "rate", "ramp", "rate-steps", "flat-out") if said.get(name)} == expected


@pytest.mark.parametrize(
    "text, says",
    [
        ('speeed = "60x"', "speeed"),
        ('[run]\nlake_dir = "x"', "lake_dir"),
        ("speed = [1]", "speed must be"),
        ("speed = ", "is not TOML"),
        ('speed = "fast"', "600x"),
    ],
)
def test_a_wrong_config_file_is_wrong_usage(binary, tmp_path, text, says):
    file = tmp_path / "clickstream.toml"
    file.write_text(text)
    ended = run(binary, "run", "x", "--config", file)
    assert ended.code == 2 and says in ended.stderr, ended.describe()


def test_a_missing_config_file(binary, tmp_path):
    ended = run(binary, "run", "x", "--config", tmp_path / "none.toml")
    assert ended.code == 2 and "none.toml" in ended.stderr, ended.describe()


def test_the_last_error_is_of_the_log_s_form(clickstream, tmp_path):
    for path, flags, code, says in (
        (tmp_path / "none.csv", (), 1, "none.csv: no such file"),
        (tmp_path / "none.csv", ("--speed", "1x", "--rate", "1/s"), 2, "one pace"),
    ):
        text = clickstream.run(path, *flags)
        assert text.code == code and text.stderr.startswith("clickstream: ") and says in text.stderr, text.describe()
        as_json = clickstream.run(path, *flags, "--log-format", "json")
        (line,) = as_json.stderr.splitlines()
        assert as_json.code == code and says in json.loads(line)["fields"]["message"], as_json.describe()


def test_help_has_groups_and_examples(binary):
    ended = run(binary, "run", "--help")
    assert ended.code == 0
    for group in ("Pace:", "Sessions:", "Data:", "Input:", "Broker:", "Output:", "Settings:", "Examples:"):
        assert group in ended.stdout, group
    assert re.match(r"clickstream \d+\.\d+\.\d+", run(binary, "--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions(binary, shell):
    ended = run(binary, "completions", shell)
    assert ended.code == 0 and "flat-out" in ended.stdout, ended.describe()


@pytest.mark.parametrize("stream", ["/dev/full", "a pipe that nobody reads"])
def test_what_cannot_be_said_ends_no_job(binary, clickstream, sample, stream):
    def run(command, **more):
        if stream == "/dev/full":
            with open(stream, "w") as nowhere:
                return subprocess.run(command, timeout=60, env=environment(), **{name: nowhere for name in more})
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.run(command, timeout=60, env=environment(), **{name: writer for name in more})
        finally:
            os.close(writer)

    command = [word for word in clickstream.command(sample) if word not in ("--quiet", "--json")]
    assert run([*command, "--log-level", "debug"], stderr=True).returncode == 0
    assert run([*command[:2], "none.csv", *command[3:]], stderr=True).returncode == 1
    said = 1 if stream == "/dev/full" else 0
    for words in (command[1:], ["completions", "bash"], ["run", "x", "--print-config"]):
        assert run([str(binary), *words], stdout=True, stderr=True).returncode == said, words


def test_the_summary_fits_its_schema(clickstream, sample):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for ended in (clickstream.done(sample), clickstream.done(sample)):
        jsonschema.validate(ended.summary, schema)


def fetch(address, path):
    with urllib.request.urlopen(address + path, timeout=10) as answer:
        return answer.read().decode()


def served(process, data):
    """The address that the process wrote, once it answers."""
    file, until = data / "address", time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, finish(process).describe()
        if file.exists() and file.read_text().endswith("\n"):
            address = file.read_text().splitlines()[0]
            try:
                fetch(address, "/readyz")
                return address
            except (urllib.error.URLError, ConnectionError):
                pass
        time.sleep(0.05)
    raise AssertionError("it serves nothing after 30 s")


def until_caught_up(process, address):
    until = time.monotonic() + 60
    while not json.loads(fetch(address, "/api/status"))["caught_up"]:
        assert process.poll() is None and time.monotonic() < until, fetch(address, "/api/status")
        time.sleep(0.05)


def test_the_bare_command_plays_the_sample_and_serves_until_ctrl_c(binary, tmp_path):
    data = tmp_path / "data"
    command = [str(binary), "--data-dir", str(data), "--listen", "0", "--flat-out", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    address = served(process, data)
    until = time.monotonic() + 60
    while json.loads(fetch(address, "/api/totals"))["sessions"] < 5067:
        assert time.monotonic() < until, fetch(address, "/api/status")
        time.sleep(0.1)
    totals = json.loads(fetch(address, "/api/totals"))
    assert (totals["views"], totals["carts"], totals["purchases"]) == (17_055, 165, 214)
    assert (totals["viewed"], totals["carted"], totals["purchased"]) == (12_295, 127, 211)
    assert totals["revenue_cents"] == 5_944_263
    for path in ("/api/categories", "/api/brands", "/api/traffic", "/api/products", "/api/sessions", "/api/abandoned"):
        rows = json.loads(fetch(address, path + "?limit=3"))
        assert 0 < len(rows) <= 3, path
    assert "why do they not buy" in fetch(address, "/")
    assert fetch(address, "/healthz") == "ok\n"
    metrics = fetch(address, "/metrics")
    names = set(re.findall(r"^# TYPE (\S+)", metrics, re.M))
    for part in ("producer", "sessionizer", "lake", "marts"):
        assert any(name.startswith(f"clickstream_{part}_") for name in names), part
    assert "clickstream_sessionizer_sessions_total 5067" in metrics
    # It stays.
    until_caught_up(process, address)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 0, ended.describe()
    assert ended.summary["outcome"] == "done"
    assert not (data / "address").exists()

    # Again: it says so, and serves what is there.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    address = served(process, data)
    assert json.loads(fetch(address, "/api/totals")) == totals
    # At once, not at its end.
    assert said(process, "--restart plays it anew")
    until_caught_up(process, address)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 0 and ended.summary["outcome"] == "already_done", ended.describe()


def test_what_is_not_there_is_not_found(binary, tmp_path, sample):
    data = tmp_path / "data"
    command = [str(binary), "run", str(sample), "--data-dir", str(data), "--listen", "0", "--stay", "--flat-out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    address = served(process, data)
    for path, status in (("/api/nothing", 404), ("/api/categories?limit=many", 400), ("/api/categories?limit=-1", 400)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(address, path)
        assert refused.value.code == status, path
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 0


def test_an_unfinished_source_is_named(clickstream, sample, tmp_path):
    first = clickstream.start(sample, "--speed", "100x", "--beside")
    until = time.monotonic() + 60
    while time.monotonic() < until and not clickstream.marts.exists():
        time.sleep(0.05)
    time.sleep(1)
    first.send_signal(signal.SIGTERM)
    drained = finish(first)
    assert drained.code == 3, drained.describe()
    other = tmp_path / "other.csv"
    other.write_text("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n")
    ended = clickstream.done(other)
    assert ended.summary["unfinished"] == [drained.summary["source"] + "/0"], ended.describe()
