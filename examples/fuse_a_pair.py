"""Fuse two files: open an LR-HSI and an HR-MSI, fuse them, save the cube and its script.

The two files are made first, from the demonstration scene; with files of your own begin
at `open_cube`. What the files say of their responses is taken from them; a pair that
says nothing needs `psf=` and `srf=` (see own_responses.py).
"""

from __future__ import annotations

from pathlib import Path

import napari_hsfusion as hs
from napari_hsfusion.scene import demo_scene

SENSOR = "gaussian:480/70,560/60,660/60,835/120"  # centre/width of each band, nm


def make_files() -> tuple[Path, Path]:
    """Write what the two cameras would see of the demonstration scene."""
    pair = hs.simulate(demo_scene(size=64, bands=30), scale=4, psf="box", srf=SENSOR, snr_db=35)
    return hs.save_cube(pair.lr_hsi, "lr_hsi.hdr"), hs.save_cube(pair.hr_msi, "hr_msi.tif")


def main() -> None:
    """Open, fuse, save."""
    hsi_file, msi_file = make_files()

    lr_hsi, hr_msi = hs.open_cube(hsi_file), hs.open_cube(msi_file)
    fused = hs.fuse(lr_hsi, hr_msi, method="subspace")
    hs.save_cube(fused, "fused.tif")

    bands, rows, columns = fused.shape
    print(f"fused.tif: {bands} bands, {rows} x {columns} pixels")
    # the file says how it was made: these lines do it again, bit for bit
    Path("fuse_again.py").write_text(hs.as_script("fused.tif"), encoding="utf-8")


if __name__ == "__main__":
    main()
