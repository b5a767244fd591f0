"""The table of growing simulations, by hand; and two real ones, as small as they get."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks import scale
from benchmarks.measure import markdown
from benchmarks.scale import MIB, Cost
from conf.errors import RunError
from storage import jsonlines


def cost(users: int, measured_s: float, driver_mib: int) -> Cost:
    return Cost(
        users=users,
        actors=2,
        whole_s=measured_s + 25,
        warm_up_s=5,
        measured_s=measured_s,
        own_s=1.5 * measured_s,
        driver_bytes=driver_mib * MIB,
        adapter_bytes=users * MIB // 2,
        failed=0,
    )


def test_ratios_are_against_100_users():
    sheet = scale.sheet([cost(20, 4, 400), cost(100, 10, 500), cost(1000, 110, 550)], records=24)
    assert sheet.heads[2] == "× 100 users"
    assert sheet.rows == (
        ("20", "0.200", "2.00", "25%", "400", "0.80", "10.0", "5.0", "20.0", "0"),
        ("100", "0.100", "1.00", "25%", "500", "1.00", "50.0", "5.0", "20.0", "0"),
        ("1000", "0.110", "1.10", "25%", "550", "1.10", "500.0", "5.0", "20.0", "0"),
    )
    assert "| 1000 | 0.110 | 1.10 |" in markdown(sheet)


def test_without_100_users_ratios_are_against_the_smallest():
    assert scale.sheet([cost(20, 4, 400), cost(40, 8, 500)], records=24).heads[2] == "× 20 users"


def test_a_run_folder_is_read_by_arm(tmp_path):
    files = {
        "rounds": [
            {"arm": "", "phase": "base model", "seconds": 9.0},
            {"arm": "device", "phase": "answer", "seconds": 3.0},
            {"arm": "direct_ft", "phase": "adapt", "seconds": 4.0},
            {"arm": "direct_ft", "phase": "answer", "seconds": 2.0},
        ],
        "adaptations": [{"arm": "direct_ft", "user": user, "seconds": 2.0} for user in "ab"],
        # one line per query, each with the user's seconds
        "answers": [
            {"arm": arm, "user": user, "query": query, "seconds": 1.0}
            for arm in ("device", "direct_ft")
            for user in "ab"
            for query in "12"
        ],
        "failures": [{"user": "b"}, {"user": "b"}],
    }
    for name, rows in files.items():
        jsonlines.append(tmp_path / f"{name}.jsonl", rows)
    adapter = tmp_path / "devices" / "a-1" / "adapters" / "direct_ft"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(bytes(7))
    (tmp_path / "devices" / "a-1" / "history.json").write_bytes(bytes(5))
    read = scale._read(2, tmp_path, whole_s=30.0, driver_bytes=1, places=2)
    assert (read.warm_up_s, read.measured_s, read.own_s) == (3.0, 6.0, 6.0)
    assert (read.per_user_s, read.outside, read.start_and_stop_s) == (3.0, 0.5, 21.0)
    assert (read.adapter_bytes, read.failed) == (7, 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")  # noqa: PTH110
def test_the_peak_of_a_process_is_what_it_held_not_what_it_holds():
    code = "import time; x = bytearray(96 << 20); del x; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            assert 96 * MIB < scale._peak_bytes(process.pid) < 200 * MIB
        finally:
            process.kill()


def test_a_run_that_fails_says_how_to_see_why(tmp_path):
    with pytest.raises(RunError, match=r"2 users ended with status 2: .*nonsense.*python -m sim"):
        scale.simulated(2, ["nonsense=1"], tmp_path)


def test_sizes_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        scale.main(["20", "0"])
    assert "at least one user, got 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_two_sizes_on_ray_give_a_table_and_a_picture(tmp_path):
    results = tmp_path / "RESULTS.md"
    started = time.perf_counter()
    costs = scale.run([2, 4], results, records=4)
    assert [each.users for each in costs] == [2, 4]
    for each in costs:
        assert each.failed == 0
        assert each.adapter_bytes > 0
        assert each.driver_bytes > 100 * MIB
        assert 0 < each.measured_s < each.whole_s < time.perf_counter() - started
        assert 0 < each.own_s <= each.actors * each.measured_s
    assert costs[1].adapter_bytes == 2 * costs[0].adapter_bytes
    assert "| 4 |" in results.read_text(encoding="utf-8")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
