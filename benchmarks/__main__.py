"""``python -m benchmarks accuracy PAIRS -o RESULTS.json``: run a benchmark, keep its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Benchmarks of napari-hsfusion; every one writes JSON with machine, versions and seed."""


@app.command()
def accuracy(
    pairs: Annotated[Path, typer.Argument(help="Folder of simulated pairs, NAME.npz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the results.")],
    scenes: Annotated[str, typer.Option(help="Names, separated by commas; all by default.")] = "",
    runs: Annotated[
        str, typer.Option(help="METHOD:PRESET, separated by commas.")
    ] = "bicubic:default,subspace:default,subspace:classes,args-diff:fast,args-diff:balanced",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Quality, seconds and peak memory of every method on every pair."""
    from .accuracy import measure, write

    names = scenes.split(",") if scenes else sorted(p.stem for p in pairs.glob("*.npz"))
    rows = []
    for name in names:
        for run in runs.split(","):
            method, _, preset = run.partition(":")
            row = measure(pairs / f"{name}.npz", method, preset or None, seed, device)
            rows.append(row)
            typer.echo(
                f"| {name} | {method} | {row['preset']} | {row['psnr']:.2f} | {row['sam']:.2f} | "
                f"{row['ergas']:.2f} | {row['ssim']:.4f} | {row['seconds']:.1f} | "
                f"{row['peak_bytes'] / 2**20:.0f} |"
            )
            write(out, rows, seed)


@app.command()
def window(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the results.")],
    size: Annotated[int, typer.Option(min=32, help="Side of the scene in pixels.")] = 96,
    bands: Annotated[int, typer.Option(min=4)] = 102,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """What a napari window costs a fusion, and a fusion a window; needs a display."""
    from .window import measure, write

    # more of the sampling than by default, which would be over in a second
    longer = {"spatial_steps": 60, "levels": 40}
    rows = []
    for side, count, watch, settings in (
        (64, 20, "composite", longer),
        (size, bands, "composite", longer),
        (size, bands, "band", longer),
        (size, bands, "composite", {}),
    ):
        row = measure(side, count, repeats, watch, settings)
        rows.append(row)
        shares = ", ".join(
            f"{stage} {ratio:.3f} ({row['ratio_unqueued'][stage]:.3f} less the queue)"
            for stage, ratio in row["ratio"].items()
        )
        typer.echo(
            f"| {count}×{side}×{side} | {watch} | {settings} | in the window against alone: "
            f"{shares} | longest gap {max(row['longest_gap_ms']):.0f} ms |"
        )
        write(out, rows)


@app.command("emr-diff")
def emr_diff(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the results.")],
    sides: Annotated[str, typer.Option(help="Sides in pixels, separated by commas.")] = "256,512",
    width: Annotated[int, typer.Option(min=1, help="Channels of the network.")] = 34,
    weights: Annotated[Path | None, typer.Option(help="Weights in place of random ones.")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """EMR-Diff's restoration against a plain implementation of the same equations."""
    from .emr_diff import measure, write

    rows = []
    for side in sides.split(","):
        for row in measure(int(side), width, repeats, seed, weights):
            rows.append(row)
            typer.echo(
                f"| {row['kind']} | {side}×{side} | {row['parameters']} | "
                f"{row['peak_bytes'] / 2**20:.0f} MB | {row['seconds_per_call']:.2f} s a call, "
                f"{row['cpu_seconds_per_call']:.2f} of the processor's | "
                f"differ by {row['difference']:.1e} |"
            )
        write(out, rows, seed)


if __name__ == "__main__":
    app()
