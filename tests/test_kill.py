"""A million rows through a hundred deaths: every output equals the oracle's."""
import os
import random
import signal
import subprocess
from pathlib import Path

import duckdb
import pytest

import harness
import make_input
from kill.campaign import Campaign, failpoints
from kill.paced import Paced
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

PASSES = 80
ROWS = PASSES * make_input.ROWS_A_PASS


@pytest.mark.kill
def test_a_hundred_deaths(binary, failpoint_binary, tmp_path, request):
    assert ROWS >= 1_000_000
    deaths = request.config.getoption("--kills")
    seed = request.config.getoption("--kill-seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    root = Path(__file__).resolve().parent.parent
    names = failpoints(root)
    assert len(names) >= 15, f"the sources name few failpoints: {names}"

    path = make_input.make(harness.cache() / f"input-{PASSES}.csv", PASSES)
    clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
    log = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "kill-campaign.tsv"
    campaign = Campaign(clickstream, path, ROWS, names, log, seed)
    print(f"seed {seed}; the deaths are in {log}")
    campaign.run(deaths)

    assert len(campaign.deaths) >= min(deaths, 100), f"{len(campaign.deaths)} deaths, see {log}"
    never = [name for name in names if name not in campaign.reached]
    assert not never, f"no death at {never}, see {log}"
    assert campaign.reached.get("random", 0) >= deaths // 8

    # The binary that users have takes it to the end.
    ended = harness.Clickstream(binary, clickstream.data).done(path, timeout=300).summary
    assert ended["outcome"] in ("done", "already_done"), ended
    assert ended["totals"]["events"] == ROWS
    assert ended["totals"]["sessions"] == PASSES * make_input.SESSIONS_A_PASS
    assert ended["totals"]["steps"] == PASSES * make_input.STEPS_A_PASS
    oracle = Oracle([Source(ended["source"], [path])])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
    spread = [death.rows_in_marts / ROWS for death in campaign.deaths]
    print(f"{len(campaign.deaths)} deaths over {ROWS:,} rows; a tenth of them came before {sorted(spread)[len(spread) // 10]:.0%},"
          f" half before {sorted(spread)[len(spread) // 2]:.0%}")


@pytest.mark.kill
@pytest.mark.parametrize("form, flags", [
    ("csv", ()),
    ("gz", ()),
    ("zip", ()),
    ("zst", ("--shuffle", "30s", "--allowed-lateness", "30s", "--duplicate", "1%", "--seed", "3")),
])
def test_steered_and_killed_by_its_schedule(clickstream, sample, tmp_path, request, form, flags):
    seed = request.config.getoption("--kill-seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")
    header, rows = harness.lines_of(sample)
    path = harness.write_csv(tmp_path / f"2019-Oct-head.csv.{form}", rows, header)
    paced = Paced(clickstream, path, ("--speed", "100x", "--max-gap", "30s", *flags), seed)
    for _ in range(20):
        paced.die()
    ended = paced.finish()
    assert ended.code == 0 and ended.summary["outcome"] == "done", ended.describe()
    assert ended.summary["this_run"]["events"] > 0 and len(paced.told) >= 20
    plain = harness.write_csv(tmp_path / "plain.csv", rows, header)
    oracle = Oracle([Source(ended.summary["source"], [plain], published=clickstream.lake if flags else None)])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)


class Lives:
    """The same command again and again, killed at drawn moments, until it has come to its end."""

    def __init__(self, clickstream, request):
        seed = request.config.getoption("--kill-seed")
        seed = random.randrange(1 << 32) if seed is None else seed
        print(f"seed {seed}")
        self.clickstream, self.draw, self.deaths = clickstream, random.Random(seed), 0

    def die(self, *command, seconds=(0.05, 0.6)):
        """False where it was done before its time had come."""
        process = self.clickstream.start(*command)
        try:
            process.wait(self.draw.uniform(*seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            self.deaths += 1
        ended = harness.finish(process)
        assert ended.code in (0, -signal.SIGKILL), ended.describe()
        return ended.code != 0


@pytest.mark.kill
def test_passes_of_a_loop_killed_at_random(clickstream, sample, request):
    """Each pass is a source of its own, a day later: the same command goes on in the pass where it was."""
    lives = Lives(clickstream, request)
    # A second and a half for a pass, so that deaths come upon more than the first.
    while lives.deaths < 20 and lives.die(sample, "--loop=3", "--rate", "12000/s"):
        pass
    ended = clickstream.done(sample, "--loop=3").summary
    assert lives.deaths >= 8 and ended["totals"]["events"] == 3 * 17_434 and ended["totals"]["sessions"] == 3 * 5_067
    starts = duckdb.sql(
        f"SELECT source, epoch(min(event_time))::BIGINT FROM read_parquet('{clickstream.lake}/events/*/*.parquet') GROUP BY 1").fetchall()
    first = min(start for _, start in starts)
    assert sorted(start - first for _, start in starts) == [0, 86_400, 172_800]
    oracle = Oracle([Source(source, [sample], shift_seconds=start - first) for source, start in sorted(starts)])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)


@pytest.mark.kill
def test_shards_killed_at_random(clickstream, sample, request):
    """Two shards of one source, in turn on one folder: each goes on where it was, and together they are all of it."""
    lives = Lives(clickstream, request)
    left = {"0/2", "1/2"}
    while lives.deaths < 20 and left:
        shard = lives.draw.choice(sorted(left))
        if not lives.die(sample, "--shard", shard, "--rate", "6000/s"):
            left.remove(shard)
    ended = [clickstream.done(sample, "--shard", shard).summary for shard in ("0/2", "1/2")]
    assert lives.deaths >= 8 and ended[0]["source"] == ended[1]["source"] and ended[1]["totals"]["events"] == 17_434
    oracle = Oracle([Source(ended[1]["source"], [sample], shards=2)])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
