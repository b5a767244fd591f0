"""A ServerApp of one's own around CdcdaPlm, with an augmenter of one's own in the cloud's place."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.paths import cache_folder, public_route_folder
from conf.compose import compose
from examples.own_app.augmenter import Paraphrases
from lamp import dataset
from protocol.settings import settings_of
from sim.run.prepare import with_models
from sim.run.provision import fix_orders, provision
from strategy import CdcdaPlm, public
from strategy.arms import make_arms
from strategy.base_model import ensure_bases
from strategy.progress import LoggedProgress
from strategy.registry import Fleet
from strategy.run_log import RunLog
from strategy.tuning import PublicTuning

WORDS = ["experiment=smoke", "users=2", "qlora.cohort=1"]


def make_app(words: list[str]) -> ServerApp:
    """A ServerApp for the miniature world; ``words`` are those of ``python -m sim``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        cache, folder = cache_folder(context.run_config), public_route_folder(context)
        config, progress = compose([*WORDS, f"paths.cache={cache}", *words]), LoggedProgress()
        data = dataset.load(config)
        config, _ = with_models(config, data, progress)
        provision(folder / "devices", data.targets, config)  # the simulation plays the users
        fix_orders(folder / "devices")

        others = public.write(cache / "public", data.public)
        tuning = PublicTuning(task=config.task, qlora=config.qlora, public=others, cache=cache)
        CdcdaPlm(
            make_arms(["direct_ft", "cdcda"], ratios=[0.5, 1.0]),
            settings=settings_of(config),
            bases=ensure_bases({True}, config.model.device, tuning, progress),
            augmenter=Paraphrases(),
            filters=config.filters,
            fleet=Fleet(users=config.users),
            log=RunLog(folder),
            progress=progress,
        ).start(grid)

    return app
