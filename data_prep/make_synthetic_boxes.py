"""Write images or volumes with synthetic objects and their exact boxes, as ``medwave train detect`` reads them.

    python data_prep/make_synthetic_boxes.py boxes.npz
    python data_prep/make_synthetic_boxes.py volumes.npz --shape 32,32,32 --sides 10,16 --contrast 0.4,0.7 --noise 0.1

The file holds the splits train, val and test: ``train_images`` uint8 ``(N, ...)``, ``train_boxes`` ``(K, 2 * ndim)``
(first corner, far corner, in samples), ``train_labels`` (balls, rings, rods), ``train_owner`` (the image of each box),
and ``classes``. The same seed gives the same arrays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medwave.data import synthetic_boxes


def main() -> None:
    options = parse()
    counts = dict(zip(("train", "val", "test"), options.counts, strict=True))
    synthetic_boxes(
        options.output, options.shape, counts, seed=options.seed, objects=options.objects, side_voxels=options.sides,
        contrast=options.contrast, noise=options.noise,
    )  # fmt: skip
    print(f"{options.output}: {', '.join(f'{count} {split}' for split, count in counts.items())}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("output", type=Path, help="the file, .npz")
    parser.add_argument("--shape", type=whole, default=(64, 64), help="two or three axes (default: 64,64)")
    parser.add_argument("--counts", type=whole, default=(200, 50, 200), help="train,val,test (default: 200,50,200)")
    parser.add_argument("--objects", type=int, default=4, help="most objects of an image")
    parser.add_argument("--sides", type=pair, default=(8.0, 22.0), help="smallest and largest object, in samples")
    parser.add_argument("--contrast", type=pair, default=(0.2, 0.5), help="least and most, of the range of the image")
    parser.add_argument("--noise", type=float, default=0.15, help="standard deviation, of the range of the image")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def whole(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def pair(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(","))
    return low, high


if __name__ == "__main__":
    main()
