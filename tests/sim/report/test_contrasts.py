"""Declared contrasts are tested with Holm's correction; all else is exploratory."""

import numpy as np
import pytest

from conf.compose import compose
from conf.errors import ConfigError
from sim.report.contrasts import holm, primary_pairs, without_method
from sim.report.pooling import summarise
from sim.report.run_records import ArmName, read_run
from sim.report.score_tables import differences_table, power_notes
from strategy.arms import check_methods


def test_holm_is_the_step_down_procedure():
    p = {("a", "x"): 0.01, ("b", "x"): 0.04, ("c", "x"): 0.03, ("d", "x"): 0.005}
    found = holm(p)
    # the worked example: .005*4, .01*3, .03*2, then .04*1 lifted to what stands before it
    expected = {("d", "x"): 0.02, ("a", "x"): 0.03, ("c", "x"): 0.06, ("b", "x"): 0.06}
    assert found == pytest.approx(expected)
    assert holm({}) == {}
    assert holm({("a", "b"): 0.7, ("a", "c"): 0.9}) == {("a", "b"): 1.0, ("a", "c"): 1.0}


def test_holm_keeps_the_error_rate_of_true_nulls():
    generator = np.random.default_rng(3)
    drawn = generator.uniform(size=(4000, 3))
    wrong = [
        min(holm({("a", str(n)): p for n, p in enumerate(row)}).values()) < 0.05 for row in drawn
    ]
    assert np.mean(wrong) < 0.06


def test_of_several_shares_the_largest_is_meant():
    arms = [ArmName("cdcda@0.1", "cdcda", 0.1), ArmName("cdcda@1", "cdcda", 1.0)]
    arms += [ArmName("direct_ft", "direct_ft", None)]
    assert primary_pairs(["cdcda - direct_ft", "cdcda - device_rag"], arms) == [
        ("cdcda@1", "direct_ft")
    ]


def test_a_contrast_without_its_method_is_named():
    arms = [ArmName("cdcda@1", "cdcda", 1.0), ArmName("direct_ft", "direct_ft", None)]
    declared = ["cdcda - direct_ft", "cdcda - device_rag", "rkd_ft - fedavg"]
    assert without_method(declared, arms) == (
        "Declared, but not tested, as this run lacks a method: cdcda against device_rag "
        "(no device_rag); rkd_ft against fedavg (no rkd_ft, no fedavg)."
    )
    assert without_method(declared[:1], arms) == ""


def test_primary_contrasts_are_adjusted_and_the_rest_is_exploratory(make_run):
    results = summarise([read_run(make_run(users=12))])
    table = differences_table(results)
    place = table.head.index("p, Holm")
    cells = {(row[0].text, row[1].text, row[2].text[:7]): row[place].text for row in table.rows}
    assert cells["cdcda", "direct_ft", "ROUGE-1"] != "exploratory"
    assert cells["cdcda", "direct_ft_matched", "ROUGE-1"] != "exploratory"
    assert cells["cdcda", "direct_ft", "ROUGE-L"] == "exploratory"
    assert cells["cdcda", "device", "ROUGE-1"] == "exploratory"
    tested = results.arm("cdcda").differences["direct_ft"]["rouge1"]
    mirrored = results.arm("direct_ft").differences["cdcda"]["rouge1"]
    assert tested.adjusted_p == mirrored.adjusted_p >= tested.p
    assert tested.p * 20_001 == pytest.approx(round(tested.p * 20_001))
    assert any("exploratory" in note for note in power_notes(results))


@pytest.mark.parametrize("said", ["cdcda", "cdcda - cdcda", "cdcda-direct_ft", "cdcda - "])
def test_a_contrast_names_two_methods(said):
    with pytest.raises(ConfigError, match="expected 'method - method'"):
        compose([f"contrasts=['{said}']"])


def test_a_contrast_of_an_unknown_method_is_refused_before_the_run():
    with pytest.raises(ConfigError, match=r"contrasts: unknown 'cdcd'.*cdcda"):
        check_methods(compose(['contrasts=["cdcd - direct_ft"]']))
