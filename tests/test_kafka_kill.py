"""A million rows through the deaths of every part and of the broker: every output equals the oracle's."""
import os
import random
import subprocess
from pathlib import Path

import pytest

import harness
import make_input
from cluster import Cluster, Pipeline
from kill.campaign import failpoints
from kill.on_kafka import Campaign, moments_of
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

PASSES = 80
ROWS = PASSES * make_input.ROWS_A_PASS
# What the campaign plays on, a second: it has to last for the deaths.
RATE = 8_000


@pytest.mark.kill
def test_deaths_on_kafka(binary, failpoint_binary, tmp_path, request):
    assert ROWS >= 1_000_000
    deaths = request.config.getoption("--kafka-kills")
    seed = request.config.getoption("--kill-seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    root = Path(__file__).resolve().parent.parent
    moments = moments_of(failpoints(root, kafka=True))
    assert len(moments) >= 20, moments
    # Each failpoint costs two deaths; the rest are random, and one in sixteen is the broker's.
    brokers = max(1, deaths // 16)
    draw = random.Random(seed)
    rounds = max(0, deaths - brokers) * 3 // 4 // 2
    chosen = [moment for _ in range(-(-rounds // len(moments))) for moment in draw.sample(moments, len(moments))][:rounds]
    randoms = max(1, deaths - brokers - 2 * len(chosen))

    path = make_input.make(harness.cache() / f"input-{PASSES}.csv", PASSES)
    log = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "kill-campaign-kafka.tsv"
    cluster = Cluster()
    flags = ["--session-timeout", "6s", "--transaction-timeout", "10s"]
    pipeline = Pipeline(binary, cluster, tmp_path, "kill.", flags)
    try:
        pipeline.ask("topics", "create")
        rate = max(1_000, min(RATE, ROWS // (deaths * 3)))
        campaign = Campaign(pipeline, failpoint_binary, path, log, seed, rate)
        print(f"seed {seed}; the deaths are in {log}")
        campaign.run(chosen, randoms, brokers)
        assert len(campaign.deaths) >= deaths * 9 // 10, f"{len(campaign.deaths)} deaths, see {log}"
        campaign.finish()
        # All in one process under the same names takes it to the end, and says when it is there.
        ended = pipeline.run(path)
        assert ended["outcome"] == "already_done", ended
        assert ended["totals"]["events"] == ROWS
        assert ended["totals"]["sessions"] == PASSES * make_input.SESSIONS_A_PASS
        assert ended["totals"]["steps"] == PASSES * make_input.STEPS_A_PASS
        oracle = Oracle([Source(ended["source"], [path])])
        assert_marts_equal(pipeline.marts, oracle)
        assert_lake_equal(pipeline.lake, oracle)
        print(f"{len(campaign.deaths)} deaths over {ROWS:,} rows, of {len(campaign.reached)} kinds")
    finally:
        pipeline.end()
        cluster.end()


@pytest.mark.kill
@pytest.mark.parametrize("flat_out", [False, True], ids=["paced", "flat-out"])
def test_deaths_of_all_parts_at_once(flat_out, binary, kafka, tmp_path, request):
    """All in one process, whose parts share what they fetch and, flat out, have from memory what was
    committed: killed whenever it likes, and started anew."""
    deaths = max(6, request.config.getoption("--kafka-kills") // 4)
    # Flat out there are rows for no more: it takes a second to begin, and has a tenth of them a little later.
    deaths, longest = (min(deaths, 12), 2) if flat_out else (deaths, 3)
    seed = request.config.getoption("--kill-seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    draw = random.Random(seed)
    path = make_input.make(harness.cache() / f"input-{PASSES}.csv", PASSES)
    pipeline = Pipeline(binary, kafka, tmp_path, f"at-once-{flat_out}.")
    pace = ["--flat-out"] if flat_out else ["--rate", f"{ROWS // deaths // 2}/s"]
    print(f"seed {seed}")
    try:
        killed = 0
        for _ in range(deaths):
            part = pipeline.start("run", path, *pace)
            try:
                part.process.wait(draw.uniform(0.3, longest))
            except subprocess.TimeoutExpired:
                part.kill()
                killed += 1
            assert part.process.returncode in (-9, 0), part.describe()
        assert killed >= deaths // 2, f"{killed} deaths"
        ended = pipeline.run(path)
        assert ended["totals"]["events"] == ROWS, ended
        oracle = Oracle([Source(ended["source"], [path])])
        assert_marts_equal(pipeline.marts, oracle)
        assert_lake_equal(pipeline.lake, oracle)
    finally:
        pipeline.end()
