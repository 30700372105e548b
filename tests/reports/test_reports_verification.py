"""The verification page: its curve goes through known points, its numbers are those given, names are escaped."""

import re

import numpy as np
import pytest

from medwave.core.errors import GeometryError
from medwave.metrics import auroc, folded_accuracy, tar_at_far
from medwave.reports import VerificationReport, write_verification_report
from medwave.reports.verification import roc_curve, score_histogram


def report(scores, same, **more):
    scores, same = np.array(scores, dtype=float), np.array(same, dtype=bool)
    names = [f"picture {n}" for n in range(len(scores))]
    given = {"name": "pairs.txt", "first": names, "second": names, "accepted": {}}
    return VerificationReport(
        same=same, scores=scores, accuracy=folded_accuracy(scores, same, 2), auroc=auroc(scores, same), **given | more
    )


MIXED = ([0.9, 0.1, 0.8, 0.3, 0.6, 0.7, 0.2, 0.4], [1, 0, 1, 0, 1, 0, 0, 1])


def test_the_curve_steps_through_the_rates_of_each_threshold():
    curve = roc_curve(report([0.9, 0.8, 0.7, *np.linspace(0, 0.5, 100), 0.6], [1, 1, 0, *[0] * 100, 1]))
    assert curve.points[:2] == [(0.0, 0.0), (0.0, pytest.approx(2 / 3))]
    assert curve.points[2] == (pytest.approx(1 + np.log10(1 / 101) / 3), 1.0)  # three decades for 101 different pairs
    assert curve.points[-1] == (1.0, 1.0)
    assert [text for _, text in curve.x_ticks] == ["0.001", "0.01", "0.1", "1"]
    assert curve.path.startswith("M0.00 100.00")
    assert curve.path.endswith("V0.00")


def test_the_histogram_is_of_shares_of_each_kind():
    chart = score_histogram(report(*MIXED))
    shown = [[float(bar.text.rsplit(" ", 1)[1]) for bar in group] for group in chart.groups]
    assert np.sum(shown, axis=0).tolist() == [100.0, 100.0]
    assert chart.series == ("one identity", "two identities")


def test_the_page_holds_the_numbers_and_escapes_names(tmp_path):
    scores, same = np.array(MIXED[0]), np.array(MIXED[1], dtype=bool)
    made = report(
        *MIXED, first=["<b>x</b>"] * 8, accepted={0.25: tar_at_far(scores, same, 0.25), 0.001: None},
        command_line="medwave verify pairs.txt",
    )  # fmt: skip
    page = write_verification_report(tmp_path / "report.html", made).read_text()
    assert "pairs.txt was verified" in page
    assert "4 pairs of one identity and 4 of two" in page
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "50.00 %" in page  # at a FAR of one in four the threshold is 0.7: two of the four same pairs lie above it
    assert "too few pairs of two identities" in page
    assert "medwave verify pairs.txt" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)[a-z]+:", page)


def test_lengths_that_differ_are_refused():
    with pytest.raises(GeometryError, match=r"lengths \[7, 8\]"):
        report(*MIXED, first=["x"] * 7)
