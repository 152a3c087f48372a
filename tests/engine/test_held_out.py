"""What a training holds out, what is measured there, and when the training ends by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_pairs import CPU, drain, problem
from torch import nn

from napari_hsfusion.engine import held_out
from napari_hsfusion.engine.diffusion.schedules import exponential_schedule
from napari_hsfusion.engine.events import CancelToken, Step
from napari_hsfusion.engine.held_out import HeldOutLoss, split_image, split_spectra
from napari_hsfusion.engine.noise_prediction import Budget, train_noise_predictor
from napari_hsfusion.engine.selflearning import make_lessons, obtain_networks
from napari_hsfusion.engine.training_state import Progress
from napari_hsfusion.params import ArgsDiffParams

SMALL = ArgsDiffParams(
    d=2, spatial_base=8, spatial_levels=1, spatial_blocks=1, spatial_batch=2, spatial_patch=8
)


def _pixels(image: torch.Tensor) -> set[float]:
    return set(image.flatten().tolist())


@pytest.mark.parametrize(("height", "width"), [(64, 80), (72, 64), (65, 300)])
def test_a_strip_is_held_out(height: int, width: int) -> None:
    """At an edge, an eighth of the image, and nothing of it is left to train on."""
    image = torch.arange(2.0 * height * width, dtype=torch.float64).reshape(2, height, width)
    image = image + torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    split = split_image(image, 32)
    assert split.apart
    assert _pixels(split.kept) | _pixels(split.out) == _pixels(image)
    assert not _pixels(split.kept) & _pixels(split.out)
    share = split.out.numel() / image.numel()
    assert 0.05 <= share <= 1 / 8
    assert min(split.kept.shape[1:]) >= 32
    assert min(split.out.shape[1:]) >= 8


def test_the_strip_is_like_the_image() -> None:
    """Not an edge without any detail, nor the one where all of it is."""
    image = torch.rand((1, 64, 64), generator=torch.Generator().manual_seed(1))
    image[:, :, :8] = 0.5
    image[:, :8] *= 9
    image[:, -8:] *= 0.01
    split = split_image(image, 16)
    assert torch.equal(split.out, image[:, :, -8:])
    assert torch.equal(split.kept, image[:, :, :-8])


@pytest.mark.parametrize(("size", "patch"), [((63, 63), 8), ((64, 64), 57), ((64, 64), 128)])
def test_too_small_to_hold_anything_out(size: tuple[int, int], patch: int) -> None:
    image = torch.rand((3, *size), generator=torch.Generator().manual_seed(0))
    split = split_image(image, patch)
    assert not split.apart
    assert torch.equal(split.kept, image)
    assert torch.equal(split.out, image)


def test_runs_of_spectra_are_held_out() -> None:
    spectra = torch.arange(3 * 640.0).reshape(3, 640)
    split = split_spectra(spectra)
    assert split.apart
    assert split.out.shape == (3, 80)
    assert not _pixels(split.kept) & _pixels(split.out)
    assert _pixels(split.kept) | _pixels(split.out) == _pixels(spectra)
    first = split.out[0].tolist()
    assert first[:10] == list(range(40, 50))
    assert not split_spectra(spectra[:, :63]).apart


class _Scale(nn.Module):
    """Predicts the noise as a multiple of the state."""

    def __init__(self, weight: float = 0.2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, state: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return self.weight * state


def _clean(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand((count, 4), generator=generator, dtype=torch.float64)


def test_the_held_out_loss() -> None:
    """Of a network that predicts no noise the mean square of the noise; the same each time."""
    table = torch.as_tensor(exponential_schedule()[1:])
    loss = HeldOutLoss(_clean, 300, 7, table, 0, 1)
    assert drain(loss(_Scale(0.0), Progress()))[1] == pytest.approx(-1.0, abs=0.1)
    first, again = (drain(loss(_Scale(), Progress()))[1] for _ in range(2))
    assert first == again
    whole = HeldOutLoss(_clean, 300, 300, table, 0, 1)
    assert drain(whole(_Scale(), Progress()))[1] == pytest.approx(first, rel=1e-12)
    other = HeldOutLoss(_clean, 300, 7, table, 1, 1)
    assert drain(other(_Scale(), Progress()))[1] != first
    # more than the samples themselves would take a third of the values
    assert HeldOutLoss(_clean, 10, 2, table, 0, 1)._noise.shape == (10, 4)


def test_many_values_are_not_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "_VALUES", 20)
    table = torch.as_tensor(exponential_schedule()[1:])
    assert len(HeldOutLoss(_clean, 300, 2, table, 0, 1)._noise) == 5
    assert len(HeldOutLoss(_clean, 300, 16, table, 0, 1)._noise) == 16


def _train(
    budget: Budget, progress: Progress, network: nn.Module | None = None
) -> tuple[list[Step], nn.Module]:
    return drain(
        train_noise_predictor(
            network or _Scale(),
            _clean,
            exponential_schedule(),
            budget,
            threads=1,
            stage="train",
            generator=torch.Generator().manual_seed(9),
            device=CPU,
            dtype=torch.float64,
            cancel=CancelToken(),
            held_out=_clean,
            progress=progress,
        )
    )


BUDGET = Budget(5000, 8, 0.02, True, 0.9, patience=100)


def test_training_ends_by_itself() -> None:
    """Of one weight nothing is left to learn soon; then the stage says that it is done."""
    progress = Progress()
    steps, network = _train(BUDGET, progress)
    end = progress.step
    assert 100 < end < 1500
    assert [s.index for s in steps] == [*range(1, end + 1), end]
    assert {s.total for s in steps[:-1]} == {5000}
    assert steps[-1] == Step("train", end, end)
    looks = [(row["step"], -row["metric"]) for row in progress.curve if row["metric"] is not None]
    assert [step for step, _ in looks] == list(range(50, end + 1, 50))
    # no gain of one part in a hundred over the last two looks
    losses = [loss for _, loss in looks]
    assert min(losses[-2:]) > 0.99 * min(losses[:-2])
    best = min(looks, key=lambda look: look[1])
    assert (progress.best_step, -progress.best) == best
    assert {row["rate"] for row in progress.curve} == {0.02}
    loss = HeldOutLoss(_clean, 48, 8, torch.as_tensor(exponential_schedule()[1:]), 9, 1)
    assert -drain(loss(network, Progress()))[1] == pytest.approx(best[1], rel=1e-12)


def test_a_training_that_still_learns_takes_all_its_steps() -> None:
    """Patience beyond the budget."""
    progress = Progress()
    steps, _ = _train(replace(BUDGET, steps=60, patience=5000), progress)
    assert len(steps) == 60
    assert {s.total for s in steps} == {60}


def test_without_patience_nothing_is_looked_at() -> None:
    progress = Progress()
    _train(replace(BUDGET, steps=60, patience=0), progress)
    assert progress.best is None
    assert progress.step == 60


def test_the_same_seed_gives_the_same_end() -> None:
    first, second = Progress(), Progress()
    one, two = _train(BUDGET, first)[1], _train(BUDGET, second)[1]
    assert torch.equal(one.weight, two.weight)
    assert [r["metric"] for r in first.curve] == [r["metric"] for r in second.curve]


def test_training_never_sees_what_is_held_out() -> None:
    """Neither patches nor spectra; without patience it sees all there is."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((3, 64, 72), generator=generator, dtype=torch.float64)
    spectra = torch.rand((9, 16, 18), generator=generator, dtype=torch.float64)
    pair = replace(problem(), y=image, x=spectra)

    def drawn(params: ArgsDiffParams) -> list[tuple[set[float], set[float]]]:
        lessons = make_lessons(pair, params, True)
        found = []
        for name in ("spatial", "spectral"):
            out = lessons[name].held_out
            sets = [_pixels(lessons[name].sample(600, generator))]
            sets.append(set() if out is None else _pixels(out(600, generator)))
            found.append((sets[0], sets[1]))
            assert lessons[name].apart == (out is not None)
        return found

    params = replace(SMALL, spatial_stride=1)
    for seen, out in drawn(replace(params, patience=50)):
        assert out
        assert not seen & out
    (patches, _), (pixels, _) = drawn(params)
    assert len(patches) > 0.9 * image.numel()
    assert len(pixels) > 0.8 * spectra.numel()


def test_what_is_recorded_of_a_pair() -> None:
    """Steps and losses of both networks, and whether what was held out lay apart."""
    pair = problem()

    def obtain(params: ArgsDiffParams) -> tuple[list[Step], dict[str, Any]]:
        events, (_, _, origin) = drain(
            obtain_networks(
                pair,
                params,
                spectral=True,
                highest=None,
                folder=None,
                seed=0,
                device=CPU,
                dtype=torch.float64,
                cancel=CancelToken(),
            )
        )
        return events, origin["networks_training"]

    params = replace(SMALL, spatial_steps=400, spectral_steps=120, patience=50, spatial_rate=1e-7)
    events, found = obtain(params)
    spatial, spectral = found["spatial"], found["spectral"]
    assert spatial["steps_at_most"] == 400
    # at that rate nothing is learnt: one look that counts, one that is not better
    assert spatial["steps"] == 100
    assert spatial["kept_step"] in (50, 100)
    assert [step for step, _ in spatial["held_out_loss"]] == [50, 100]
    assert spatial["held_out_apart"] is False
    assert spectral["steps_at_most"] == 120
    last = [e for e in events if e.stage == "train spatial network"][-1]
    assert (last.index, last.total) == (100, 100)
    _, plain = obtain(replace(params, patience=0, spatial_steps=3, spectral_steps=2))
    assert plain == {"spatial": {"steps": 3}, "spectral": {"steps": 2}}
