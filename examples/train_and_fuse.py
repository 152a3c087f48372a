"""Train a network on a folder of cubes, then fuse a pair of its kind with it.

The folder is made first, from generated scenes; with cubes of your own begin at `train`.
This takes seconds and learns next to nothing: with real scenes give steps in the ten
thousands, larger patches and the published width, on a graphics card if there is one.
"""

from __future__ import annotations

from pathlib import Path

import napari_hsfusion as hs
from napari_hsfusion.scene import demo_scene

SENSORS = {"scale": 4, "psf": "gauss3-bicubic", "srf": "gaussian:480/70,560/60,660/60"}
SMALL = {"steps": 60, "patch": 32, "rate": 1e-3, "validate_every": 15, "validation_side": 64}


def make_folder(folder: str, seeds: range) -> Path:
    """Write generated scenes as cubes that a network can be trained on."""
    path = Path(folder)
    path.mkdir(exist_ok=True)
    for seed in seeds:
        hs.save_cube(demo_scene(size=64, bands=16, seed=seed), path / f"scene-{seed}.tif")
    return path


def main() -> None:
    """Train, look at what the weights say of themselves, fuse with them."""
    train, val = make_folder("train", range(1, 4)), make_folder("val", range(4, 5))

    trained = hs.train(
        train,
        "network.safetensors",
        val=val,
        design={"width": 12, "start": "subspace"},
        params=SMALL,
        seed=0,
        **SENSORS,
    )
    tried = trained.record["validation"]
    print(
        f"{trained.path}: {trained.record['steps']} steps on {len(trained.record['scenes'])} "
        f"scenes; validation {trained.record['metric']:.2f} dB, {tried['subspace']:.2f} dB before"
    )

    truth = demo_scene(size=64, bands=16, seed=9)  # a scene that it has never seen
    pair = hs.simulate(truth, **SENSORS)
    for consistency in (False, True):
        fused = hs.fuse(
            pair.lr_hsi,
            pair.hr_msi,
            method="emr-diff",
            weights=str(trained.path),
            consistency=consistency,
        )
        agrees = "made to agree with the pair" if consistency else "as the network gives it"
        print(f"fused, {agrees}: PSNR {hs.evaluate(truth, fused)['psnr']:.2f} dB")
    hs.save_cube(fused, "fused.tif")


if __name__ == "__main__":
    main()
