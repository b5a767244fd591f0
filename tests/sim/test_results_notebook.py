"""The notebook runs from top to bottom on a run folder."""

import json
from pathlib import Path

import pandas as pd

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "results.ipynb"


def test_the_notebook_runs(make_run, monkeypatch):
    monkeypatch.setenv("RUN", str(make_run(users=6)))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    found = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), found)
    assert found["run"].arms == ("device", "direct_ft", "direct_ft_matched", "cdcda")
    assert len(found["gain"]) == 6
    pd.testing.assert_series_equal(
        found["difference"].set_index("metric").value.loc[["user_mean_rouge1"]],
        pd.Series({"user_mean_rouge1": found["gain"].mean()}, name="value").rename_axis("metric"),
    )
    assert not any(cell.get("outputs") for cell in cells)
