"""EMR-Diff: edge-aware multimodal residual diffusion, supervised, in a few steps.

Zhang et al., "EMR-Diff: Edge-aware Multimodal Residual Diffusion Model for Hyperspectral
Image Super-resolution", CVPR 2026. The network is trained on scenes beforehand, or on the
pair itself one ratio down; its cube can be made to agree with both images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ParameterError, WeightsError
from ...params import EMR_DIFF_PRESETS, EmrDiffParams
from ..checkpoint import prepare_folder
from ..device import limited_threads
from ..diffusion.edges import edge_map
from ..emr.config import EmrConfig
from ..emr.consistency import make_consistent, misfit_levels
from ..emr.cost import emr_cost
from ..emr.model import EmrModel
from ..emr.on_pair import STAGE, small_scene, train_on_pair, worth
from ..emr.shipped import load_fitting
from ..emr.start import start_estimate
from ..emr.weights import check_fit, load_weights, save_weights
from ..events import Event, Preview, Started, Step
from ..memory import PLAIN, Economy
from ..nets.initialise import initialise
from ..observation import Problem
from ..spread import drained, spread_of_runs
from ..training_team import Team
from .base import Context, Method, Outcome, Shape

NETWORK_FILE = "emr-diff.safetensors"
"""Name of a pair's own network in a folder of networks."""

_TILE = 256


def _run(
    problem: Problem, params: EmrDiffParams, context: Context
) -> Generator[Event, None, Outcome]:
    on_pair = params.train_on == "pair"
    if context.networks is not None and not on_pair:
        raise ParameterError("networks has no effect with train_on=weights; give weights=FILE")
    saved = None if context.networks is None else context.networks / NETWORK_FILE
    train = on_pair and not (saved is not None and saved.is_file())
    model, origin = _model(problem, params, context)
    if train and context.networks is not None:
        prepare_folder(context.networks)
    stages = {"start": 1, "restore": model.config.steps}
    if train:
        stages = {STAGE: params.steps, **stages}
    if params.consistency:
        stages["agree"] = 1
    where = replace(params, tile=params.tile or context.economy.tile)
    cost = emr_cost(problem.x.shape, problem.y.shape, where, context.device, model.config, train)
    yield Started("emr-diff", stages, cost)
    share = float(origin.pop("share", 1.0))
    if train:
        model, share = yield from _trained(problem, params, context, model)
        if saved is not None:
            centres = None if problem.wavelengths is None else problem.wavelengths.tolist()
            sensors = {"wavelengths": centres, "srf": problem.spectral.matrix.tolist()}
            save_weights(saved, model, {**sensors, "share": share, "training": _training(params)})
    model = model.to(context.device, context.dtype)
    context.cancel.check()
    start = start_estimate(problem, model.config.start, context.seed)
    yield Step("start", 1, 1)
    # a stream of its own: the noise is the same whether the network is new or loaded
    generator = torch.Generator().manual_seed((context.seed + _STREAM) % 2**63)
    cube = yield from _restored(problem, params, context, model, start, share, generator)
    record: dict[str, Any] = {
        **origin,
        "network": model.config.to_record(),
        "network_share": share,
        "networks_loaded": on_pair and not train,
        "misfit": {"network": misfit_levels(problem, cube)},
    }

    def draw(noise: torch.Generator) -> Tensor:
        found = drained(_restored(problem, params, context, model, start, share, noise))
        if not params.consistency:
            return found
        return make_consistent(problem, found, context.seed, noise)

    if params.consistency:
        context.cancel.check()
        cube = make_consistent(problem, cube, context.seed)
        record["misfit"]["consistent"] = misfit_levels(problem, cube)
        yield Step("agree", 1, 1)
        yield _preview("agree", 1, 1, cube, problem)
    return Outcome(cube, None, record, sampling=partial(spread_of_runs, draw))


def _model(
    problem: Problem, params: EmrDiffParams, context: Context
) -> tuple[EmrModel, dict[str, Any]]:
    """Network to restore with, or to train, and where it comes from."""
    saved = None if context.networks is None else context.networks / NETWORK_FILE
    if params.train_on == "weights" or (params.fine_tune and not (saved and saved.is_file())):
        model, header, path = load_fitting(problem, params.weights)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return model, {
            "weights": path.name,
            "weights_digest": f"sha256:{digest}",
            "weights_psf": header.get("psf"),
        }
    if params.weights is not None and not params.fine_tune:
        raise ParameterError("weights has no effect with train_on=pair unless fine_tune=true")
    if saved is not None and saved.is_file():
        model, header = load_weights(saved)
        _check_saved(saved, model.config, header, params, problem)
        return model, {"weights": saved.name, "share": header.get("share", 1.0)}
    config = pair_config(params, len(problem.x), len(problem.y), problem.spatial.ratio)
    with torch.device("meta"):  # torch's own starting weights would move its global generator
        model = EmrModel(config)
    initialise(model.to_empty(device="cpu"), torch.Generator().manual_seed(context.seed))
    return model, {}


def _check_saved(
    saved: Path,
    config: EmrConfig,
    header: Mapping[str, Any],
    params: EmrDiffParams,
    problem: Problem,
) -> None:
    """Make sure that a pair's own network is for such a pair, and what the parameters ask for."""
    bands, msi_bands, ratio = len(problem.x), len(problem.y), problem.spatial.ratio
    found = (config.bands, config.msi_bands, config.ratio)
    if found != (bands, msi_bands, ratio):
        raise WeightsError(
            f"{saved}: expected a network for {bands} and {msi_bands} bands at a ratio of {ratio}, "
            f"got one for {found[0]} and {found[1]} at {found[2]}"
        )
    try:
        check_fit(header, bands, problem.wavelengths, ratio, msi_bands, problem.spectral.matrix)
    except WeightsError as error:
        raise WeightsError(f"{saved}: {error}: give another folder") from None
    has: dict[str, Any] = dict(header.get("training") or {})
    wanted = _training(params)
    if not params.fine_tune:
        has |= config.to_record()
        wanted |= pair_config(params, bands, msi_bands, ratio).to_record()
    for name, value in wanted.items():
        if has.get(name) != value:
            old, new = has.get(name), value
            if name == "pseudo":  # counted from 1, as users do
                old, new = ([b + 1 for b in one or ()] for one in (old, new))
            raise WeightsError(
                f"{saved}: the saved network has {_CALLED.get(name, name)} = {old}, this run "
                f"needs {new}: give the same settings, or another folder"
            )


def _training(params: EmrDiffParams) -> dict[str, Any]:
    """How a pair's own network is trained."""
    return {
        "fine_tune": params.fine_tune,
        "training_steps": params.steps,
        **{name: getattr(params, name) for name in ("batch", "patch", "rate", "average")},
    }


def pair_config(params: EmrDiffParams, bands: int, msi_bands: int, ratio: int) -> EmrConfig:
    """Design of a network that is trained on a pair.

    Raises
    ------
    ParameterError
        If the pseudo-MSI bands do not fit.
    """
    pseudo: tuple[int, ...] = ()
    if params.pseudo is not None:
        try:
            pseudo = tuple(int(part) - 1 for part in params.pseudo.split(","))
        except ValueError:
            raise ParameterError(
                f"pseudo: expected band numbers, as in 1,15,31, got {params.pseudo!r}"
            ) from None
    try:
        return EmrConfig(
            bands=bands,
            msi_bands=msi_bands,
            ratio=ratio,
            width=bands + msi_bands if params.width is None else params.width,
            architecture=params.architecture,
            residual=params.residual,
            noise=params.noise,
            start=params.start,
            steps=params.T,
            kappa=params.kappa,
            pseudo=pseudo,
        )
    except WeightsError as error:
        raise ParameterError(str(error)) from None


def _trained(
    problem: Problem, params: EmrDiffParams, context: Context, model: EmrModel
) -> Generator[Step, None, tuple[EmrModel, float]]:
    scene = small_scene(problem, model.config.start, context.seed)
    learnt = yield from train_on_pair(
        scene,
        model.to(context.device, context.dtype),
        steps=params.steps,
        batch=params.batch,
        patch=params.patch,
        rate=params.rate,
        average=params.average,
        seed=context.seed,
        team=Team(context.device),
        cancel=context.cancel,
    )
    return learnt, worth(scene, learnt, context.seed)


def _restored(
    problem: Problem,
    params: EmrDiffParams,
    context: Context,
    model: EmrModel,
    start: Tensor,
    share: float,
    generator: torch.Generator,
) -> Generator[Event, None, Tensor]:
    msi = problem.y[None]
    tile = params.tile or context.economy.tile or (_TILE if max(msi.shape[-2:]) > _TILE else 0)
    steps = model.restore(start[None], msi, edge_map(msi), generator, tile)
    total = model.config.steps
    cube = start
    for index in range(1, total + 1):
        context.cancel.check()
        with torch.no_grad(), limited_threads(None):
            estimate = next(steps)[0]
            cube = estimate if share == 1.0 else start + share * (estimate - start)
        yield Step("restore", index, total)
        yield _preview("restore", index, total, cube, problem)
    return cube


def _preview(stage: str, index: int, total: int, cube: Tensor, problem: Problem) -> Preview:
    basis = torch.eye(len(cube), device=cube.device, dtype=cube.dtype)
    return Preview(stage, index, total, cube, basis, problem.scale)


def _sampling_cost(
    x_shape: Shape,
    y_shape: Shape,
    params: EmrDiffParams,
    device: torch.device,
    samples: int,
    economy: Economy,
) -> dict[str, float]:
    where = replace(params, tile=params.tile or economy.tile)
    cost = emr_cost(x_shape, y_shape, where, device, train=False)
    cubes = 4 * 4.0 * x_shape[0] * y_shape[1] * y_shape[2]
    seconds = cost.get("sampling_seconds", cost["seconds"])
    return {"seconds": samples * seconds, "bytes": cost["bytes"] + cubes}


def _economies(params: EmrDiffParams) -> Sequence[Economy]:
    """Smaller and smaller tiles, unless the parameters name a side."""
    sides = _SIDES if params.tile is None else ()
    return [PLAIN, *(Economy(tile=side) for side in sides)]


_SIDES = (128, 64, 32)  # of tiles, pixels
_STREAM = 0xE318
_CALLED = {"steps": "T"}  # of a design; the parameter of this name is the training's


METHOD = Method(
    name="emr-diff",
    title="EMR-Diff",
    description=(
        "A supervised residual diffusion in five steps, with noise at the edges alone; weights for "
        "31 visible bands come with the package, or a network is trained on the pair (CVPR 2026)."
    ),
    params=EmrDiffParams,
    presets=EMR_DIFF_PRESETS,
    default_preset="default",
    trains=True,
    runner=_run,
    estimator=emr_cost,
    sampling_estimator=_sampling_cost,
    economies=_economies,
)
