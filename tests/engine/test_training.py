"""The training loop: what it minimises, when it ends, and how it goes on after anything."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from small_pairs import CPU, drain
from torch import nn

from napari_hsfusion.engine.events import CancelToken, Measured, Step
from napari_hsfusion.engine.training import Keeping, averaged_network, train
from napari_hsfusion.engine.training_recipe import Recipe, best_precision
from napari_hsfusion.engine.training_state import (
    Progress,
    TrainingState,
    read_progress,
    read_state_header,
)
from napari_hsfusion.engine.training_team import Team, launched_together, make_team
from napari_hsfusion.errors import (
    Cancelled,
    DeviceError,
    ParameterError,
    TrainingError,
    WeightsError,
)


class Net(nn.Module):
    """Two layers with starting weights of their own, and a buffer that steps count in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 1)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def loss(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(8, 3, generator=generator)
    wanted = x[:, :1] - 0.3 * x[:, 2:]
    return (network(x) - wanted).square().mean()


def error(network: nn.Module, progress: Progress) -> Generator[Step, None, float]:
    """Validation on fixed samples: minus the squared error."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(77))
    yield Step("validate", 1, 1)
    return -float((network(x) - x[:, :1] + 0.3 * x[:, 2:]).square().mean())


def start(recipe: Recipe, **more: Any) -> Generator[Any, None, TrainingState]:
    options: dict[str, Any] = {
        "stage": "train",
        "generator": torch.Generator().manual_seed(1),
        "cancel": CancelToken(),
        "team": Team(CPU),
        **more,
    }
    return train(
        options.pop("network", None) or Net(), options.pop("loss", loss), recipe, **options
    )


def everything(state: TrainingState) -> dict[str, torch.Tensor]:
    """All tensors of a state."""
    out = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    out |= {f"average.{k}": v for k, v in state.averaged.module.state_dict().items()}
    out |= {f"best.{k}": v for k, v in state.best.items()}
    for index, values in state.optimiser.state_dict()["state"].items():
        out |= {f"adam.{index}.{k}": v for k, v in values.items()}
    out["generator"] = state.generator.get_state()
    out["count"] = state.averaged.n_averaged
    return {k: v.clone() for k, v in out.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def rows(progress: Progress) -> list[tuple[Any, ...]]:
    return [(r["step"], r["rate"], r["loss"], r["metric"]) for r in progress.curve]


FULL = Recipe(
    steps=40,
    rate=0.02,
    schedule="cosine",
    average=0.9,
    clip=0.5,
    validate_every=7,
    save_seconds=1e9,
    log_every=3,
)


def test_the_loop_learns_and_says_so() -> None:
    """The loss falls, every step is told, every row of the curve is the mean of its steps."""
    progress = Progress()
    recipe = Recipe(steps=300, rate=0.02, schedule="linear", average=0.9, log_every=20)
    events, state = drain(start(recipe, progress=progress))
    losses = [e.loss for e in events]
    assert [e.index for e in events] == list(range(1, 301))
    assert sum(losses[-30:]) < 0.3 * sum(losses[:30])
    assert [r["step"] for r in progress.curve] == list(range(20, 301, 20))
    assert progress.curve[4]["loss"] == pytest.approx(sum(losses[80:100]) / 20)
    assert progress.curve[-1]["rate"] == pytest.approx(0.02 / 300)
    averaged = averaged_network(state)
    assert not any(p.requires_grad for p in averaged.parameters())
    assert not averaged.training


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda gone: 1.0),
        ("linear", lambda gone: 1.0 - gone),
        ("cosine", lambda gone: 0.5 * (1.0 + math.cos(math.pi * gone))),
    ],
)
def test_rates(schedule: str, expected: Callable[[float], float]) -> None:
    """The rate follows the steps, or the time if that is used up sooner."""
    recipe = Recipe(steps=200, rate=0.1, schedule=schedule)
    for step in (0, 1, 50, 199):
        assert recipe.rate_at(step, 1e9) == pytest.approx(0.1 * expected(step / 200))
    timed = Recipe(steps=200, rate=0.1, schedule=schedule, minutes=2.0)
    assert timed.rate_at(50, 90.0) == pytest.approx(0.1 * expected(0.75))
    assert timed.rate_at(50, 3.0) == pytest.approx(0.1 * expected(0.25))
    assert timed.rate_at(50, 500.0) == pytest.approx(0.1 * expected(1.0))


def test_unknown_names() -> None:
    with pytest.raises(ParameterError, match="expected one of constant, linear, cosine"):
        Recipe(steps=1, rate=1.0, schedule="steep")
    with pytest.raises(ParameterError, match="precision"):
        Recipe(steps=1, rate=1.0, precision="int8")
    assert best_precision(CPU) == "float32"


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_clipped(precision: str) -> None:
    """The gradient of the loss, not of the scaled one, has at most that norm."""

    def norm(clip: float | None) -> float:
        # hardly any rate: the same weights; a scaled loss overflows at first, and is scaled less
        _, state = drain(start(Recipe(steps=12, rate=1e-12, clip=clip, precision=precision)))
        slopes = [p.grad.flatten() for p in state.network.parameters() if p.grad is not None]
        return float(torch.cat(slopes).norm())

    free = norm(None)
    assert 0.1 < free < 100
    assert norm(0.01) == pytest.approx(0.01, rel=1e-2)
    assert norm(100.0) == pytest.approx(free, rel=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision: str) -> None:
    """The forward pass is in the narrow type, weights stay float32, and it learns alike."""
    kinds = []

    def watched(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        kinds.append(network.second(torch.zeros(1, 5)).dtype)
        return loss(network, generator)

    recipe = Recipe(steps=150, rate=0.02, average=0.9, precision=precision, clip=1.0)
    events, state = drain(start(recipe, loss=watched))
    assert set(kinds) == {getattr(torch, precision)}
    assert {p.dtype for p in state.network.parameters()} == {torch.float32}
    assert sum(e.loss for e in events[-30:]) < 0.5 * sum(e.loss for e in events[:30])
    assert state.scaler.is_enabled() == (precision == "float16")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, precision: str) -> None:
    """Closed after every few steps and taken up again: the same bits, curve and best."""
    recipe = Recipe(**{**FULL.__dict__, "precision": precision})
    _, whole = drain(start(recipe, validate=error))
    path = tmp_path / "run.state.safetensors"
    for stop in (1, 5, 7, 8, 22, 23):
        run = start(recipe, validate=error, keeping=Keeping(path, {"a": 1}, resume=path.exists()))
        for event in run:
            if isinstance(event, Step) and event.stage == "train" and event.index >= stop:
                break
        run.close()
        assert read_progress(path).step == stop
    assert read_state_header(path) == {"a": 1}
    # another start, another seed: nothing but the state counts
    _, resumed = drain(
        start(
            recipe,
            validate=error,
            keeping=Keeping(path, resume=True),
            generator=torch.Generator().manual_seed(99),
        )
    )
    assert same(everything(whole), everything(resumed))
    assert rows(whole.progress) == rows(resumed.progress)
    assert (whole.progress.best, whole.progress.best_step) == (
        resumed.progress.best,
        resumed.progress.best_step,
    )
    assert whole.progress.seconds > 0
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()


def test_a_finished_run_can_be_lengthened(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    constant = {**FULL.__dict__, "schedule": "constant"}
    _, whole = drain(start(Recipe(**{**constant, "steps": 28}), validate=error))
    drain(start(Recipe(**{**constant, "steps": 14}), validate=error, keeping=Keeping(path)))
    longer = Recipe(**{**constant, "steps": 28})
    _, resumed = drain(start(longer, validate=error, keeping=Keeping(path, resume=True)))
    assert same(everything(whole), everything(resumed))


def test_closing_within_a_validation_repeats_it(tmp_path: Path) -> None:
    """A run closed at an event of a validation validates when it goes on."""
    path = tmp_path / "state.safetensors"
    run = start(FULL, validate=error, keeping=Keeping(path))
    for event in run:
        if event.stage == "validate":
            break
    run.close()
    assert read_progress(path).validated == 0
    _, resumed = drain(start(FULL, validate=error, keeping=Keeping(path, resume=True)))
    _, whole = drain(start(FULL, validate=error))
    assert same(everything(whole), everything(resumed))
    # the state is kept with the validation that was all that was left
    path.unlink()
    short = Recipe(**{**FULL.__dict__, "steps": 7})
    run = start(short, validate=error, keeping=Keeping(path))
    for event in run:
        if event.stage == "validate":
            break
    run.close()
    drain(start(short, validate=error, keeping=Keeping(path, resume=True)))
    assert read_progress(path).validated == 7


_KILLED = """
import sys
sys.path[:0] = [{tests!r}, {own!r}]
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_training import FULL, Keeping, Recipe, error, start
endless = {{"steps": 100_000, "schedule": "constant", "save_seconds": 0.0}}
recipe = Recipe(**{{**FULL.__dict__, **endless}})
for event in start(recipe, validate=error, keeping=Keeping(Path({path!r}))):
    print(event.index, flush=True)
"""


def test_a_killed_run_goes_on_from_its_last_whole_state(tmp_path: Path) -> None:
    """SIGKILL at any moment, saving all the time: the state is whole, the bits the same."""
    path = tmp_path / "state.safetensors"
    own = Path(__file__).parent
    code = _KILLED.format(tests=str(own.parent), own=str(own), path=str(path))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ}
    )
    try:
        assert child.stdout is not None
        seen = 0
        while seen < 60:
            line = child.stdout.readline()
            assert line, "the child ended early"
            seen += 1
        time.sleep(0.013)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    step = read_progress(path).step
    assert step >= 30
    longer = {**FULL.__dict__, "schedule": "constant", "steps": step + 9}
    recipe = Recipe(**longer)
    _, resumed = drain(start(recipe, validate=error, keeping=Keeping(path, resume=True)))
    _, whole = drain(start(recipe, validate=error))
    assert same(everything(whole), everything(resumed))
    assert rows(whole.progress)[:10] == rows(resumed.progress)[:10]


def test_cancelling_keeps_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    token = CancelToken()
    run = start(FULL, cancel=token, keeping=Keeping(path))
    for _ in range(4):
        next(run)
    token.cancel()
    with pytest.raises(Cancelled):
        next(run)
    assert read_progress(path).step == 4


def test_validations_find_the_best() -> None:
    """Metrics are told, the best weights are kept, and the averaged network is what is tried."""
    given = iter([1.0, 3.0, 2.0, 2.5, 2.0, 1.0])
    tried = []

    def judge(network: nn.Module, progress: Progress) -> Generator[Step, None, float]:
        tried.append({k: v.clone() for k, v in network.state_dict().items()})
        assert not network.training
        assert not torch.is_grad_enabled()
        yield from ()
        return next(given)

    recipe = Recipe(steps=100, rate=0.02, average=0.9, validate_every=10, patience=3, log_every=10)
    events, state = drain(start(recipe, validate=judge))
    measured = [e for e in events if isinstance(e, Measured)]
    assert [(e.index, e.metric, e.best) for e in measured] == [
        (10, 1.0, 1.0),
        (20, 3.0, 3.0),
        (30, 2.0, 3.0),
        (40, 2.5, 3.0),
        (50, 2.0, 3.0),
    ]
    assert state.progress.step == 50  # three without a new best
    assert state.progress.best_step == 20
    assert same(state.best, tried[1])
    assert not same(state.best, tried[2])
    assert [r["metric"] for r in state.progress.curve] == [1.0, 3.0, 2.0, 2.5, 2.0]


def test_small_gains_do_not_keep_a_run_going(tmp_path: Path) -> None:
    """Each is the best so far, and its weights are kept; but only a gain of 5 % counts."""
    given = [-1.0, -0.9, -0.88, -0.87, -0.84, -0.83, -0.82, -0.81, -0.5]

    def judge(network: nn.Module, progress: Progress) -> Generator[Step, None, float]:
        yield from ()
        return given[progress.step // 10 - 1]

    recipe = Recipe(
        steps=100, rate=0.02, average=0.9, validate_every=10, patience=3, gain=0.05, log_every=10
    )
    _, state = drain(start(recipe, validate=judge))
    assert state.progress.step == 80  # three after -0.84
    assert (state.progress.best, state.progress.best_step) == (-0.81, 80)
    assert state.progress.mark == -0.84
    path = tmp_path / "state.safetensors"
    for stop in (15, 34, 72):
        run = start(recipe, validate=judge, keeping=Keeping(path, resume=path.exists()))
        for event in run:
            if isinstance(event, Step) and event.index >= stop:
                break
        run.close()
    _, resumed = drain(start(recipe, validate=judge, keeping=Keeping(path, resume=True)))
    assert same(everything(state), everything(resumed))
    assert resumed.progress.step == 80


def test_validations_need_no_gradients_and_leave_those_of_others_alone() -> None:
    """Whoever takes the events may go on with work that needs gradients."""
    within: list[bool] = []

    def judge(network: nn.Module, progress: Progress) -> Generator[Step, None, float]:
        for index in (1, 2):
            within.append(torch.is_grad_enabled())
            yield Step("validate", index, 2)
        return 1.0

    outside = [
        torch.is_grad_enabled()
        for _ in start(Recipe(steps=2, rate=0.1, validate_every=1), validate=judge)
    ]
    assert within == [False] * 4
    assert len(outside) == 8
    assert all(outside)


def test_time_ends_a_run() -> None:
    recipe = Recipe(steps=10_000_000, rate=0.01, minutes=0.3 / 60, schedule="linear")
    begun = time.monotonic()
    events, state = drain(start(recipe, validate=error))
    assert time.monotonic() - begun < 5
    assert isinstance(events[-1], Measured)
    assert state.progress.seconds >= 0.3


def test_a_run_that_diverges_keeps_its_last_good_state(tmp_path: Path) -> None:
    """An infinite loss, and weights that are no longer finite, are errors."""
    path = tmp_path / "state.safetensors"

    def explodes(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        explodes.calls += 1  # type: ignore[attr-defined]
        return loss(network, generator) * (math.inf if explodes.calls == 6 else 1.0)  # type: ignore[attr-defined]

    explodes.calls = 0  # type: ignore[attr-defined]
    recipe = Recipe(steps=40, rate=0.02, save_seconds=0.0)
    with pytest.raises(TrainingError, match=r"diverged at step 6.*smaller rate"):
        drain(start(recipe, loss=explodes, keeping=Keeping(path)))
    assert read_progress(path).step == 5

    def poisons(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        value = loss(network, generator)
        value.register_hook(lambda grad: grad * math.nan)
        return value

    before = path.read_bytes()
    with pytest.raises(TrainingError, match="no longer finite"):
        drain(start(recipe, loss=poisons, keeping=Keeping(path)))
    assert path.read_bytes() == before

    def undefined(network: nn.Module, progress: Progress) -> Generator[Step, None, float]:
        yield from ()
        return math.nan

    with pytest.raises(TrainingError):
        drain(start(Recipe(steps=2, rate=0.1), validate=undefined))


def test_states_that_do_not_fit(tmp_path: Path) -> None:
    """Truncated anywhere, of another network, of another kind, absent: each is refused."""
    path = tmp_path / "state.safetensors"
    drain(start(Recipe(steps=3, rate=0.02), keeping=Keeping(path)))
    whole = path.read_bytes()
    recipe = Recipe(steps=6, rate=0.02)
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"state\.safetensors"):
            drain(start(recipe, keeping=Keeping(path, resume=True)))
    path.write_bytes(whole)
    with pytest.raises(WeightsError, match="not the state of this training run"):
        drain(start(recipe, network=nn.Linear(3, 1), keeping=Keeping(path, resume=True)))
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"hsfusion": json.dumps({})})
    with pytest.raises(WeightsError, match="another kind of file"):
        read_state_header(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_progress(tmp_path / "absent.safetensors")


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_together() == 1
    team = make_team(CPU)
    assert (team.rank, team.world, team.leads, team.agreed(3.5)) == (0, 1, True, 3.5)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched_together() == 3
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(DeviceError, match=r"napari-hsfusion\[train\]"):
        make_team(CPU)
