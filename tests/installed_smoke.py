"""What somebody finds who installed medwave: run by the Python of the environment, outside the checkout.

    ENVIRONMENT/bin/python tests/installed_smoke.py

In a new folder: the command, recipes, weights and vendored parts of the pages, all from the installed package. A small
neuron is reconstructed by the shipped network, a small pair registered, and both pages made. Needs the extra demo.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import medwave


def command(*words: object) -> str:
    """Standard output of ``medwave ...``, the script of this environment."""
    script = Path(sys.prefix) / "bin" / "medwave"
    found = subprocess.run([script, *map(str, words)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"medwave {' '.join(map(str, words))}: {found.stdout}{found.stderr}"
    return found.stdout


def check(folder: Path) -> None:
    """Raise AssertionError for what is missing or does not run."""
    home = Path(sys.prefix).resolve()
    assert Path(medwave.__file__).resolve().is_relative_to(home), f"{medwave.__file__} is not that of {home}"
    assert command("--version").split() == ["medwave", medwave.__version__]
    assert "register" in command("--help")
    recipes = json.loads(command("pipelines", "list", "--json", "-"))
    assert len(recipes) == 8
    assert all(Path(recipe["folder"]).resolve().is_relative_to(home) for recipe in recipes)

    from medwave.workflows.demo_neurons import make_neuron_sample

    sample = make_neuron_sample(folder / "neuron", shape=(32, 96, 96))
    out = folder / "reconstruction"
    record = json.loads(
        command(
            "reconstruct", sample.image_path, "--gold", sample.tree_path, "-o", out, "--threads", "1", "--json", "-"
        )
    )
    assert record["tree"]["nodes"] > 50
    assert "THREE" in (out / "report.html").read_text(encoding="utf-8")

    import numpy as np

    from medwave.core.geometry import Grid, Volume
    from medwave.volumes import write_volume

    places = np.indices((24, 24, 24)) - 12.0
    for name, shift in (("fixed", 0), ("moving", 2)):
        inside = ((places - shift) ** 2).sum(axis=0) < 64
        write_volume(folder / f"{name}.nii.gz", Volume(inside.astype(np.float32), Grid((24, 24, 24), np.eye(4))))
    run = folder / "run"
    quick = ("--affine", "none", "--no-deformable", "--threads", "1")  # what is left compiles little
    command("register", folder / "fixed.nii.gz", folder / "moving.nii.gz", "-o", run, *quick)
    page = Path(command("view", run, "--page").partition("page: ")[2].strip())
    assert "niivue" in page.read_text(encoding="utf-8").lower()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))
    print(f"medwave {medwave.__version__} in {sys.prefix}: well")
