"""A small cohort page that tests share: one that failed, one that stands out, three alike."""

import numpy as np
from report_cases import ball, volume

from medwave.reports.cohort import CohortRow, write_cohort_index, write_preview


def write_cohort(folder):
    """Write the page, its summary and the reports it links to; the path of the page."""
    fixed = volume(ball((40, 44, 36)))
    rows = [CohortRow("broken", failed=True, reasons=("broken.nii.gz: <not> an image",), severity=np.inf)]
    for number, dice in enumerate((0.31, 0.72, 0.7, 0.71)):
        report = folder / "runs" / f"p {number}" / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text("<title>report</title>")
        write_preview(folder / f"{number}.jpg", fixed, np.roll(fixed.data, number, axis=0))
        why = ("Dice 0.310, median of all 0.705",) if number == 0 else ()
        rows.append(CohortRow(
            f"p{number}", f"runs/p {number}/report.html", folder / f"{number}.jpg", reasons=why, severity=len(why),
            dice=dice, dice_affine=0.2, similarity_before=0.1, similarity_after=0.9, folds=0, largest_mm=11.5 - number,
            scale=1.0, rotation_degrees=3.0, cpu_s=4.0 + 10 * number,
        ))  # fmt: skip
    (folder / "summary.csv").write_text("name\n" + "".join(f"{row.name}\n" for row in rows))
    return write_cohort_index(folder / "index.html", rows, options={"preset": "fast"}, command_line="medwave batch x")
