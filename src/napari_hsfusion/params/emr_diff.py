"""Parameters of EMR-Diff (CVPR 2026) and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .base import Params, param

_PAIR = {"train_on": ("pair",)}
_NEW = {"train_on": ("pair",), "fine_tune": (False,)}


@dataclass(frozen=True)
class EmrDiffParams(Params):
    """Parameters of the supervised residual diffusion.

    Steps, noise and network belong to the weights; they are set here only where a new
    network is trained on the pair itself.
    """

    train_on: str = param(
        "weights",
        "weights: networks trained beforehand restore the pair. pair: a network is trained on the "
        "pair itself, degraded once more by its own ratio, and applied at full size (Wald's "
        "protocol).",
        choices=("weights", "pair"),
    )
    weights: str | None = param(
        None,
        "File of weights; auto takes the set that comes with the package and fits the pair.",
        unless=_NEW,
        file=".safetensors",
    )
    consistency: bool = param(
        True,
        "Make the network's cube agree with both images: it becomes the prior mean of the closed "
        "form in a spectral subspace.",
    )
    tile: int | None = param(
        None,
        "Side of the tiles that the network's blocks are worked out in, which bounds the memory "
        "and changes nothing in the result; auto takes 256 for images larger than that.",
        low=16,
        high=65_536,
        unit="pixels",
    )
    fine_tune: bool = param(
        False,
        "Train on from weights that fit the pair, instead of from a new network.",
        applies=_PAIR,
    )
    start: str = param(
        "subspace",
        "What the chain starts from. bicubic: the interpolated LR-HSI, as published. subspace: "
        "the closed-form estimate, which has the detail of the HR-MSI already.",
        choices=("bicubic", "subspace"),
        applies=_NEW,
    )
    architecture: str = param(
        "baf-unet",
        "Network: baf-unet, or the variants it is compared with: baf-unet-s without supervision of "
        "coarser levels, af-unet with one encoder, b-unet with plain blocks, unet with neither.",
        choices=("baf-unet", "baf-unet-s", "af-unet", "b-unet", "unet"),
        applies=_NEW,
    )
    residual: str = param(
        "multimodal",
        "Residual of the chain: of LR-HSI and HR-MSI, of the LR-HSI alone, or none (the chain "
        "starts from zero).",
        choices=("multimodal", "unimodal", "none"),
        applies=_NEW,
    )
    noise: str = param(
        "edge-aware",
        "Noise at the edges of the HR-MSI alone, or plain noise everywhere.",
        choices=("edge-aware", "plain"),
        applies=_NEW,
    )
    T: int = param(5, "Steps of the diffusion chain.", low=1, high=1000, unit="steps", applies=_NEW)
    kappa: float = param(2.0, "Noise level of the chain.", low=1e-3, high=100, applies=_NEW)
    pseudo: str | None = param(
        None,
        "Bands of the cube, counted from 1, that stand for the HR-MSI in the chain, as in 1,15,31; "
        "auto takes the first ones.",
        applies={**_NEW, "residual": ("multimodal", "none")},
    )
    width: int | None = param(
        32,
        "Channels of every level of the network; auto takes as many as the chain has, C + c, as "
        "published.",
        low=4,
        high=1024,
        unit="channels",
        applies=_NEW,
    )
    steps: int = param(
        200, "Training steps on the pair.", low=1, high=10_000_000, unit="steps", applies=_PAIR
    )
    batch: int = param(2, "Crops a training step.", low=1, high=256, unit="crops", applies=_PAIR)
    patch: int = param(
        64, "Side of the training crops at most.", low=8, high=4096, unit="pixels", applies=_PAIR
    )
    rate: float = param(
        1e-3, "Adam's learning rate; it falls to zero.", low=1e-7, high=0.1, applies=_PAIR
    )
    average: float = param(
        0.98, "Decay of the moving average of the weights.", low=0, high=0.999999, applies=_PAIR
    )


EMR_DIFF_PRESETS: Mapping[str, EmrDiffParams] = {
    "default": EmrDiffParams(),
    "network": EmrDiffParams(consistency=False),
    "pair": EmrDiffParams(train_on="pair"),
}
