"""Fuse with responses of your own: an SRF from a CSV file, a PSF kernel, or estimated ones.

The pair here carries nothing but its pixels and wavelengths, as images of two cameras do.
"""

from __future__ import annotations

import csv

import numpy as np
import xarray as xr

import napari_hsfusion as hs
from napari_hsfusion.scene import demo_scene
from napari_hsfusion.sensors.psf import save_kernel

CURVES = {"blue": (480.0, 70.0), "green": (560.0, 60.0), "red": (660.0, 60.0)}


def write_curves(path: str) -> None:
    """Write a spectral response as a laboratory measures it: one line a nanometre step."""
    wavelength = np.arange(400.0, 1001.0, 5.0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["wavelength_nm", *CURVES])
        for nm in wavelength:
            heights = (
                np.exp(-4 * np.log(2) * ((nm - centre) / width) ** 2)
                for centre, width in CURVES.values()
            )
            writer.writerow([nm, *(f"{height:.6f}" for height in heights)])


def lens(side: int = 8, sigma: float = 1.7) -> np.ndarray:
    """Give the blur of a lens: a Gaussian, a little wider along the track."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    kernel = np.exp(-0.5 * ((y / (1.2 * sigma)) ** 2 + (x / sigma) ** 2))
    return kernel / kernel.sum()


def bare(image: xr.DataArray) -> xr.DataArray:
    """Give an image that says nothing of its responses."""
    silent = image.copy()
    silent.attrs = {key: value for key, value in image.attrs.items() if key != "observation"}
    return silent


def main() -> None:
    """Fuse with the files, then with what the pair itself tells."""
    write_curves("camera.csv")
    save_kernel(lens(), "lens.csv")
    truth = demo_scene(size=64, bands=30)
    pair = hs.simulate(truth, scale=4, psf="lens.csv", srf="camera.csv", snr_db=40)
    lr_hsi, hr_msi = bare(pair.lr_hsi), bare(pair.hr_msi)

    known = hs.fuse(lr_hsi, hr_msi, method="subspace", psf="lens.csv", srf="camera.csv")
    responses = hs.estimate_responses(lr_hsi, hr_msi)
    blind = hs.fuse(lr_hsi, hr_msi, method="subspace", srf=responses)

    np.save("estimated_srf.npy", responses.srf.matrix)
    if responses.psf.kernel is not None:
        save_kernel(responses.psf.kernel, "estimated_psf.csv")
    for row in hs.compare({"known": known, "estimated": blind}, truth):
        print(f"responses {row['name']:10} PSNR {row['psnr']:.2f} dB")


if __name__ == "__main__":
    main()
