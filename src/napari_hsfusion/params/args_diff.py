"""Parameters of ARGS-Diff (CVPR 2025) and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import ParameterError
from .base import Params, param

_PUBLISHED = {"sampler": ("published",)}
_PROXIMAL = {"sampler": ("proximal",)}
_UNLEARNT = {"sampler": ("proximal",), "weight": (0.0,)}


@dataclass(frozen=True)
class ArgsDiffParams(Params):
    """Parameters of the self-learning subspace diffusion; defaults are the published ones."""

    d: int | None = param(
        8,
        "Subspace dimensions: coefficient images and basis spectra; auto takes as many as the "
        "LR-HSI has directions that hold more than noise, from 8 to 16.",
        low=1,
        high=256,
        unit="dimensions",
    )
    sampler: str = param(
        "published",
        "published: Algorithm 1, both factors sampled by guided DDIM. proximal: the spectral "
        "basis is fixed, the coefficients start from estimates that need no training, and the "
        "learnt denoiser alternates with exact solutions of both data terms.",
        choices=("published", "proximal"),
    )
    T: int = param(
        500,
        "DDIM sampling steps, evenly spaced over the training times.",
        low=1,
        high=1000,
        unit="steps",
        applies=_PUBLISHED,
    )
    guidance: str = param(
        "sample",
        "Where the guidance direction is subtracted: from the next sample, or from the predicted "
        "noise as Eq. 15 prints it.",
        choices=("sample", "noise"),
        applies=_PUBLISHED,
    )
    gradient: str = param(
        "network",
        "Whether the guidance gradient runs back through both networks, or is taken at the "
        "predicted clean factors, which is cheaper.",
        choices=("network", "x0"),
        applies=_PUBLISHED,
    )
    argm: bool = param(
        True,
        "Adaptive residual guided module: one more gradient step on the new sample (Eq. 17).",
        applies=_PUBLISHED,
    )
    lambda1: float = param(
        1.0, "Weight of the HR-MSI in the guidance (Eq. 10).", low=0, high=1e4, applies=_PUBLISHED
    )
    lambda2: float = param(
        1.0,
        "Weight of the HR-MSI in the residual module (Eq. 16).",
        low=0,
        high=1e4,
        applies={**_PUBLISHED, "argm": (True,)},
    )
    rho1: float = param(
        0.05, "Guidance step of the coefficients.", low=0, high=10, applies=_PUBLISHED
    )
    rho2: float = param(0.05, "Guidance step of the basis.", low=0, high=10, applies=_PUBLISHED)
    r: float = param(
        10.0,
        "The residual module's steps are rho / r.",
        low=1e-3,
        high=1e6,
        applies={**_PUBLISHED, "argm": (True,)},
    )
    beta1: float = param(
        0.9, "Adam's first decay in the guidance.", low=0, high=0.9999, applies=_PUBLISHED
    )
    beta2: float = param(
        0.999, "Adam's second decay in the guidance.", low=0, high=0.99999, applies=_PUBLISHED
    )
    epsilon: float = param(
        1e-8, "Adam's small constant in the guidance.", low=1e-16, high=1.0, applies=_PUBLISHED
    )
    graphs: str = param(
        "auto",
        "auto: on a graphics card a step is captured once as a CUDA graph and replayed, where that "
        "works and its results agree. off: every step is launched anew.",
        choices=("auto", "off"),
        applies=_PUBLISHED,
    )
    precision: str = param(
        "auto",
        "Number format of the networks' passes when sampling: float32; tf32, products on graphics "
        "cards of compute capability 8.0 and later; bfloat16. auto takes tf32 where there is such "
        "a card, else float32. All else is float32.",
        choices=("auto", "float32", "tf32", "bfloat16"),
        unless=_UNLEARNT,
    )
    spatial_base: int = param(
        64,
        "Width of the spatial network's finest level.",
        low=8,
        high=256,
        unit="channels",
        unless=_UNLEARNT,
    )
    spatial_levels: int = param(
        4,
        "Resolution levels of the spatial network; level k is k times as wide as the finest.",
        low=1,
        high=6,
        unit="levels",
        unless=_UNLEARNT,
    )
    spatial_blocks: int = param(
        2,
        "Residual blocks a level in the spatial network.",
        low=1,
        high=4,
        unit="blocks",
        unless=_UNLEARNT,
    )
    spatial_steps: int = param(
        30_000,
        "Training steps of the spatial network.",
        low=1,
        high=10_000_000,
        unit="steps",
        unless=_UNLEARNT,
    )
    spatial_batch: int = param(
        16,
        "Patches a training step of the spatial network.",
        low=1,
        high=1024,
        unit="patches",
        unless=_UNLEARNT,
    )
    spatial_patch: int = param(
        128,
        "Side of a training patch, at most the image's.",
        low=8,
        high=1024,
        unit="pixels",
        unless=_UNLEARNT,
    )
    spatial_stride: int = param(
        32,
        "Grid on which training patches start.",
        low=1,
        high=1024,
        unit="pixels",
        unless=_UNLEARNT,
    )
    spatial_rate: float = param(
        1e-4,
        "Learning rate of the spatial network, falling linearly to zero.",
        low=1e-7,
        high=0.1,
        unless=_UNLEARNT,
    )
    spatial_flips: bool = param(
        False,
        "Whether training patches are mirrored and turned by right angles at random.",
        unless=_UNLEARNT,
    )
    spectral_steps: int = param(
        400_000,
        "Training steps of the spectral network.",
        low=1,
        high=10_000_000,
        unit="steps",
        applies=_PUBLISHED,
    )
    spectral_batch: int = param(
        128,
        "Spectra a training step of the spectral network.",
        low=1,
        high=65_536,
        unit="spectra",
        applies=_PUBLISHED,
    )
    spectral_rate: float = param(
        1e-4,
        "Learning rate of the spectral network.",
        low=1e-7,
        high=0.1,
        applies=_PUBLISHED,
    )
    average: float = param(
        0.9999,
        "Decay of the moving average of the weights, warmed up over the first steps.",
        low=0,
        high=0.999999,
        unless=_UNLEARNT,
    )
    patience: int = param(
        0,
        "Training steps without a lower loss on held-out parts of the pair after which training "
        "ends; the learning rates stay what they are. 0 takes all steps, and holds nothing out.",
        low=0,
        high=10_000_000,
        unit="steps",
        unless=_UNLEARNT,
    )
    noise_x: float | None = param(
        None,
        "Standard deviation of the LR-HSI's white noise, in the unit of the images; auto takes "
        "what is stored with the image, else what is found in it.",
        low=0,
        high=1e12,
        applies=_PROXIMAL,
    )
    noise_y: float | None = param(
        None,
        "The same of the HR-MSI; auto takes what is stored with the image, else what is found "
        "in the pair, and no more than the image's own patches have.",
        low=0,
        high=1e12,
        applies=_PROXIMAL,
    )
    denoise: bool = param(
        True,
        "Take white noise out of both images first, by non-local Bayes, at the levels found in "
        "the pair. Images with hardly any noise are left as they are.",
        applies=_PROXIMAL,
    )
    classes: int = param(
        8,
        "Classes of the HR-MSI, each with a detail covariance of its own in the closed-form "
        "prior; 1 uses one covariance, and then one partition.",
        low=1,
        high=64,
        unit="classes",
        applies=_PROXIMAL,
    )
    partitions: int = param(
        6,
        "How many partitions of the scene into classes are averaged, of counts around the one "
        "above: 1, 3/4, 3/2, 5/4, 2 and 5/8 times as many.",
        low=1,
        high=6,
        unit="partitions",
        applies=_PROXIMAL,
    )
    locality: float = param(
        3.0,
        "Weight of a pixel's place beside its spectrum where classes are formed; 0: spectra alone.",
        low=0,
        high=100,
        applies=_PROXIMAL,
    )
    regressions: int = param(
        8,
        "Regressions of the coefficients on the HR-MSI, each with a kernel of its own, whose mean "
        "is averaged with the closed form; 0: the closed form alone.",
        low=0,
        high=8,
        unit="kernels",
        applies=_PROXIMAL,
    )
    levels: int = param(
        8,
        "Noise levels that the sampler visits.",
        low=1,
        high=200,
        unit="levels",
        applies=_PROXIMAL,
        unless=_UNLEARNT,
    )
    sigma_high: float = param(
        0.05,
        "First noise level, relative to a coefficient image's range.",
        low=1e-4,
        high=10,
        applies=_PROXIMAL,
        unless=_UNLEARNT,
    )
    sigma_low: float = param(
        0.005,
        "Last noise level, relative to a coefficient image's range.",
        low=1e-5,
        high=10,
        applies=_PROXIMAL,
        unless=_UNLEARNT,
    )
    weight: float | None = param(
        None,
        "Weight of the learnt prior against the closed-form one; auto chooses it by fusing the "
        "pair one scale down, where the LR-HSI is the reference; 0 trains nothing.",
        low=0,
        high=1e6,
        applies=_PROXIMAL,
    )
    iterations: int = param(
        25,
        "Conjugate-gradient iterations at every noise level.",
        low=1,
        high=1000,
        unit="iterations",
        applies=_PROXIMAL,
        unless=_UNLEARNT,
    )

    @property
    def dimensions(self) -> int:
        """`d`, once it is settled for a pair."""
        if self.d is None:
            raise ParameterError("d: auto is settled when a run starts; no pair is known here")
        return self.d


_BALANCED = ArgsDiffParams(
    d=None,
    sampler="proximal",
    spatial_base=8,
    spatial_levels=2,
    spatial_blocks=1,
    spatial_steps=200,
    spatial_batch=4,
    spatial_patch=32,
    spatial_stride=1,
    spatial_rate=1e-3,
    spatial_flips=True,
    average=0.99,
    patience=100,
)

ARGS_DIFF_PRESETS: Mapping[str, ArgsDiffParams] = {
    "paper": ArgsDiffParams(),
    "balanced": _BALANCED,
    "fast": replace(_BALANCED, weight=0.0, regressions=4),
}
