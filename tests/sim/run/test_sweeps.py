"""A sweep after one cold run computes nothing anew; a withdrawal in between is honoured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients import folder
from clients.app import app
from conf.compose import compose, to_json
from lamp.records import Pair, Query, UserHistory
from sim.commands.withdraw import withdraw_user
from sim.folders import RunFolder
from sim.run.engine import client_run_config
from sim.run.inline import InlineGrid
from sim.run.provision import policy_of
from sim.run.server import ServerInputs, run_experiment
from storage import atomic, jsonlines
from strategy import public
from strategy.augmentation import record_hash
from strategy.cache import Cache
from strategy.cloud_models import Cloud
from strategy.progress import LoggedProgress
from tests.plugins.stand_ins import Generator, NliScorer

RATIOS = {"ana": 0.5, "eve": 1.0}
SEVEN = "ratios=[0.0,0.1,0.3,0.5,0.7,0.9,1.0]"


def history(user: str) -> UserHistory:
    pairs = tuple(Pair(f"{user}-{n}", f"{user} text about {n} films", f"y{n}") for n in range(6))
    query = Query(f"{user}-q", "Generate a headline for the following article: a film", "gold")
    return UserHistory(user, (), pairs, (query,))


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen2_folder):
    """One cache, and a function that runs an experiment in a new run folder."""
    root = tmp_path_factory.mktemp("sweeps")

    def run(name: str, *words: str, cloud: Cloud | None = None) -> RunFolder:
        config = compose(
            [
                "model=qwen2.5",
                f"model.device.path='{qwen2_folder}'",
                "model.device.dtype=float32",
                "task.max_new_tokens=2",
                "methods=[direct_ft,cdcda]",
                "users=2",
                "augmenter.k=2",
                "qlora.epochs=1",
                "qlora.base_epochs=1",
                "qlora.compute_dtype=float32",
                *words,
            ]
        )
        paths = replace(config.paths, cache=str(root / "cache"), runs=str(root))
        made = RunFolder(root / name)
        atomic.write_text(made.config, to_json(replace(config, paths=paths)))
        for user, ratio in RATIOS.items():
            secret = user.encode() * 10 + b"xy"
            folder.create(made.devices, history(user), policy_of(config, ratio), secret)
        simulate(made, cloud)
        return made

    def simulate(made: RunFolder, cloud: Cloud | None = None) -> None:
        from conf.compose import from_json

        config = from_json(made.config.read_text())
        others = public.write(Path(config.paths.cache) / "public", [history("public-user")])
        grid = InlineGrid(app, len(RATIOS), client_run_config(config, made))
        inputs = ServerInputs(config, made.path, others)
        run_experiment(
            grid, inputs, LoggedProgress(), cloud=cloud or Cloud(Generator(), NliScorer())
        )

    run.again = simulate
    return run


@pytest.fixture(scope="module")
def cold(world):
    return world("cold", "ratios=[1.0]", "augmenter.save=true")


def computed(run: RunFolder) -> list[tuple[int, int, int]]:
    return [
        (line["replies"], line["tokens"], line["nli_pairs"])
        for line in jsonlines.read(run.path / "rounds.jsonl")
        if line["phase"] == "augmentation counters"
    ]


def adaptations(run: RunFolder) -> dict[tuple[str, str], int]:
    lines = jsonlines.read(run.path / "adaptations.jsonl")
    return {(line["arm"], line["user"]): line["synthetic"] for line in lines}


def test_the_cold_run_computes_everything_once(cold):
    ((replies, tokens, nli_pairs),) = computed(cold)
    assert (replies, nli_pairs) == (2 * (3 + 6), 2 * (3 + 6))
    assert tokens > 0


@pytest.mark.parametrize(
    "words",
    [
        (SEVEN,),
        ("ratios=[1.0]", "augmenter.k=1"),
        ("ratios=[1.0]", "filters.eps_scf=0.2", "filters.eps_tdf=0.1"),
        ("ratios=[1.0]", "methods=[cdcda_random,cdcda_unfiltered,direct_ft_matched]"),
    ],
    ids=["ratios", "k", "thresholds", "ablations"],
)
def test_what_follows_computes_nothing_anew(cold, world, words, request):
    run = world(request.node.callspec.id, *words)
    assert computed(run) == [(0, 0, 0)]


def test_seven_ratios_train_on_growing_shares(cold, world):
    trained = adaptations(world("growing", SEVEN))
    eve = [trained[f"cdcda@{ratio}", "eve"] for ratio in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    assert eve == [0, 2, 4, 6, 8, 10, 12]
    ana = [trained[f"cdcda@{ratio}", "ana"] for ratio in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    assert ana == [0, 2, 4, 6, 6, 6, 6]  # never above the policy's one half


def test_after_a_withdrawal_the_stale_adapter_is_trained_anew_on_what_is_still_shared(world):
    run = world("withdrawn", "ratios=[1.0]", "seed=7")
    withdrawal, deleted = withdraw_user(run, "eve", 0.5)
    assert withdrawal.stale == ("cdcda@1",)
    assert deleted >= 2 * 2 * 3  # reply and scores, k = 2, three records; more from other runs
    cache = Cache(run.path.parent / "cache" / "augmentation.sqlite")
    assert cache.of_records(record_hash(pair) for pair in withdrawal.records) == []
    stale = run.devices / folder.folder_name("eve") / "adapters" / "cdcda@1" / "STALE.json"
    assert stale.exists()
    world.again(run)
    assert not stale.exists()
    assert adaptations(run)["cdcda@1", "eve"] == 2 * 3
    kinds = [
        line["kind"] for line in jsonlines.read(run.path / "ledger.jsonl") if line["user"] == "eve"
    ]
    place = kinds.index("withdrawal")
    assert "train.adapt" in kinds[:place]
    assert "train.adapt" in kinds[place:]


def test_a_replay_keeps_the_same_pairs_without_a_cloud_model(world, cold):
    words = ("augmenter=replay", f"augmenter.file='{cold.path / 'candidates.jsonl'}'")
    nobody = Cloud(None, None)  # whatever is asked of it fails
    replayed = world(
        "replayed", "ratios=[1.0]", "augmenter.k=2", "augmenter.save=true", *words, cloud=nobody
    )
    assert computed(replayed) == [(0, 0, 0)]
    for name in ("augmentation", "candidates"):
        files = [run.path / f"{name}.jsonl" for run in (cold, replayed)]
        assert files[0].read_text() == files[1].read_text()
    assert provenance_key(replayed) == provenance_key(cold)  # names the kept pairs, word for word


def provenance_key(run: RunFolder) -> dict[tuple[str, str], str]:
    lines = jsonlines.read(run.path / "adaptations.jsonl")
    return {(line["adapter"], line["user"]): line["provenance_key"] for line in lines}
