"""Point spread functions as statements: what blurs a fine pixel grid, and how.

Nothing is computed here; the engine builds its operator from a :class:`PSF`.

Geometry. Coarse pixel i covers the fine pixels i s … i s + s - 1, so its centre
lies at i s + (s - 1)/2, in units of fine pixels from the centre of the first
one. `phase` is that position for i = 0; tap j of a kernel of k taps then sits at
phase + j - (k - 1)/2. Taps must fall on pixels: a kernel of even length needs an
even ratio for the centred phase, one of odd length an odd ratio; otherwise the
phase that is not stated lies half a pixel before the centre.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ResponseError
from .resample import FloatArray
from .tables import find_matrix, load_arrays, write_atomically

Kind = Literal["bicubic", "gaussian", "gauss3-bicubic", "box", "kernel"]
Border = Literal["symmetric", "reflect", "replicate", "wrap", "zero"]
BORDERS: tuple[Border, ...] = ("symmetric", "reflect", "replicate", "wrap", "zero")
KERNEL_SUFFIXES = (".npy", ".npz", ".csv", ".txt", ".mat", ".tif", ".tiff")
LEAST_NEGATIVE = -0.1
LEAST_NEGATIVE_ESTIMATED = -1.0
ACCEPTED = (
    "bicubic, gaussian:SIGMA (standard deviation in fine pixels), gauss3-bicubic, box, "
    f"a 2-D array, or a kernel file ({', '.join(KERNEL_SUFFIXES)})"
)


@dataclass(frozen=True)
class PSF:
    """How the fine grid is blurred before every s-th sample is taken.

    Attributes
    ----------
    kind : {"bicubic", "gaussian", "gauss3-bicubic", "box", "kernel"}
        ``bicubic``: antialiased cubic decimation; ``gauss3-bicubic``: a 3x3
        Gaussian of standard deviation 2, then that; ``box``: the mean of the
        s x s pixels.
    sigma : float or None
        Standard deviation in fine pixels, of ``gaussian`` alone.
    kernel : ndarray, shape (k, l), float64, or None
        Sums to 1, of ``kernel`` alone; it is correlated, not flipped.
    source : str
        What was asked for: the specification or the file.
    phase : float or None
        Centre of the first coarse pixel, fine pixels; None for the one above.
    border : {"symmetric", "reflect", "replicate", "wrap", "zero"}
        How the fine image goes on beyond its edge.
    """

    kind: Kind
    sigma: float | None = None
    kernel: FloatArray | None = None
    source: str = ""
    phase: float | None = None
    border: Border = "symmetric"

    def record(self) -> dict[str, Any]:
        """JSON-able description, kernel included."""
        entry: dict[str, Any] = {"kind": self.kind, "source": self.source, "border": self.border}
        if self.sigma is not None:
            entry["sigma"] = self.sigma
        if self.phase is not None:
            entry["phase"] = self.phase
        if self.kernel is not None:
            entry["kernel"] = self.kernel.tolist()
        return entry


ESTIMATED = "estimated from the pair"
"""Source of a kernel that was estimated."""


def parse_psf(
    spec: str | os.PathLike[str] | ArrayLike | PSF,
    *,
    phase: float | None = None,
    border: Border | None = None,
    image_shape: tuple[int, int] | None = None,
) -> PSF:
    """Point spread function from a specification.

    Parameters
    ----------
    spec : str, path, array_like or PSF
        "bicubic", "gaussian:SIGMA", "gauss3-bicubic", "box", a 2-D kernel, or
        the path of a file that holds one. Case does not matter.
    phase : float, optional
        See :class:`PSF`.
    border : {"symmetric", "reflect", "replicate", "wrap", "zero"}, optional
        See :class:`PSF`; "symmetric" by default.
    image_shape : (int, int), optional
        Rows and columns of the fine image; a kernel may not be larger.

    Returns
    -------
    PSF

    Raises
    ------
    ResponseError
        If it is none of these; the message lists what is accepted.
    """
    if isinstance(spec, PSF):
        made = spec
    elif isinstance(spec, str | os.PathLike):
        made = _from_text(os.fspath(spec))
    else:
        made = PSF("kernel", kernel=check_kernel(spec, "kernel"), source="kernel")
    phase = made.phase if phase is None else float(phase)
    border = made.border if border is None else border
    if phase is not None and not np.isfinite(phase):
        raise ResponseError(f"psf phase: expected a finite number of fine pixels, got {phase}")
    if border not in BORDERS:
        raise ResponseError(f"psf border: expected one of {', '.join(BORDERS)}, got {border!r}")
    kernel = made.kernel
    if (
        kernel is not None
        and image_shape is not None
        and any(k > n for k, n in zip(kernel.shape, image_shape, strict=True))
    ):
        raise ResponseError(
            f"{made.source}: expected a kernel no larger than the image {tuple(image_shape)}, "
            f"got {kernel.shape}"
        )
    return PSF(made.kind, made.sigma, kernel, made.source, phase, border)


def check_kernel(values: object, what: str, lowest: float = LEAST_NEGATIVE) -> FloatArray:
    """Return a kernel as float64 that sums to 1.

    Small negative lobes are allowed (bicubic kernels have them).

    Parameters
    ----------
    values : array_like, shape (k, l)
    what : str
        Name for messages.
    lowest : float
        Least value allowed, in parts of the largest; the lobes of an estimated
        kernel, which carry the noise of the pair, may reach further down.

    Raises
    ------
    ResponseError
        If it is not 2-D, not finite, too negative, or does not sum to more than 0.
    """
    try:
        kernel = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ResponseError(f"{what}: expected {ACCEPTED}; got {type(values).__name__}") from error
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ResponseError(f"{what}: expected a 2-D kernel, got shape {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ResponseError(f"{what}: expected finite numbers, got NaN or infinity")
    total = float(kernel.sum())
    if total <= 0 or kernel.min() < lowest * kernel.max():
        raise ResponseError(
            f"{what}: expected a kernel with a positive sum and no value below "
            f"{lowest:g} times its largest; got a sum of {total:g}, "
            f"values {kernel.min():g} to {kernel.max():g}"
        )
    # a kernel that already sums to one keeps its bits through a round trip
    out: FloatArray = kernel if abs(total - 1) <= 1e-12 else kernel / total
    return out


def save_kernel(kernel: ArrayLike, path: str | os.PathLike[str]) -> None:
    """Write a kernel: ``.npy``, or ``.csv``/``.txt`` with digits that bring it back exactly.

    Raises
    ------
    ResponseError
        If it is no kernel, or the file name ends in something else.
    WriteError
        If it could not be written; what stood there before still does.
    """
    checked = check_kernel(kernel, "kernel")
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".npy", ".csv", ".txt"):
        raise ResponseError(f"{target}: expected a name in .npy, .csv or .txt, got {suffix!r}")

    def write(file: BinaryIO) -> None:
        if suffix == ".npy":
            np.save(file, checked, allow_pickle=False)
        else:
            lines = (",".join(repr(float(v)) for v in row) for row in checked)
            file.write(("\n".join(lines) + "\n").encode())

    write_atomically(target, write)


def _from_text(text: str) -> PSF:
    plain = text.strip().casefold()
    if plain in ("bicubic", "box"):
        return PSF("bicubic" if plain == "bicubic" else "box", source=plain)
    if plain in ("gauss3-bicubic", "gauss3_bicubic"):
        return PSF("gauss3-bicubic", source="gauss3-bicubic")
    if plain.startswith("gaussian"):
        _, _, number = plain.partition(":")
        try:
            sigma = float(number)
        except ValueError as error:
            raise ResponseError(
                f"psf {text!r}: expected gaussian:SIGMA with SIGMA a number of fine pixels"
            ) from error
        if not (np.isfinite(sigma) and sigma > 0):
            raise ResponseError(f"psf {text!r}: expected SIGMA above 0, got {sigma:g}")
        return PSF("gaussian", sigma=sigma, source=f"gaussian:{sigma!r}")
    path = Path(text).expanduser()
    if path.suffix.lower() in KERNEL_SUFFIXES:
        return PSF("kernel", kernel=check_kernel(_read_kernel(path), str(path)), source=str(path))
    raise ResponseError(f"unknown psf {text!r}: expected {ACCEPTED}")


def _read_kernel(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ResponseError(f"{path}: no such kernel file")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".txt"):
        delimiter = "," if suffix == ".csv" else None
        try:
            text = path.read_text(encoding="utf-8-sig")
            rows = [line.strip() for line in text.splitlines() if line.strip()]
            if suffix == ".txt" and any("," in row for row in rows):
                delimiter = ","
            return np.array([[float(cell) for cell in row.split(delimiter)] for row in rows])
        except ValueError as error:
            raise ResponseError(f"{path}: expected rows of numbers: {error}") from error
    if suffix in (".tif", ".tiff"):
        import tifffile

        try:
            return np.squeeze(np.asarray(tifffile.imread(path)))
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise ResponseError(f"{path}: cannot be read as TIFF: {error}") from error
    arrays = load_arrays(path)
    chosen = find_matrix(arrays, ("psf", "kernel", "k"))
    if chosen is None:
        held = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "no numeric array"
        raise ResponseError(
            f"{path}: expected one 2-D array, or one named psf or kernel; got {held}"
        )
    return arrays[chosen]
