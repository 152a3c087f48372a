"""``python -m benchmarks accuracy PAIRS -o RESULTS.json``: run a benchmark, keep its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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


@app.command()
def uncertainty(
    pairs: Annotated[Path, typer.Argument(help="Folder of simulated pairs, NAME.npz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file; a plot is put beside.")],
    scenes: Annotated[str, typer.Option(help="Names, separated by commas; all by default.")] = "",
    runs: Annotated[
        str, typer.Option(help="METHOD:PRESET, separated by commas.")
    ] = "subspace:classes,args-diff:fast",
    samples: Annotated[int, typer.Option(min=2)] = 16,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Whether the deviations that samples give fit the errors, calibrated and not."""
    from .uncertainty import measure, write

    names = scenes.split(",") if scenes else sorted(p.stem for p in pairs.glob("*.npz"))
    rows = []
    for name in names:
        for run in runs.split(","):
            method, _, preset = run.partition(":")
            row = measure(pairs / f"{name}.npz", method, preset or None, samples, seed, device)
            rows.append(row)
            fit, plain = row["calibrated"], row["plain"] or row["calibrated"]
            typer.echo(
                f"| {name} | {method} {row['preset']} | {fit['within_1']:.3f} | "
                f"{fit['within_2']:.3f} | {plain['within_1']:.3f} | {plain['within_2']:.3f} | "
                f"{fit['within_1_with_noise']:.3f} | {fit['within_2_with_noise']:.3f} | "
                f"{row['spearman']:.2f} | {row['spearman_map']:.2f} | "
                f"{row['uncertainty_seconds']:.1f} of {row['seconds']:.1f} s |"
            )
            write(out, rows, seed)


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


@app.command()
def speed(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the results.")],
    side: Annotated[int, typer.Option(min=32, help="Pixels, where another size varies.")] = 256,
    sides: Annotated[str, typer.Option(help="Sides in pixels, separated by commas.")] = (
        "64,128,256"
    ),
    bands: Annotated[str, typer.Option(help="Numbers of bands.")] = "31,103,206",
    dims: Annotated[str, typer.Option(help="Subspace dimensions.")] = "4,8,16",
    widths: Annotated[
        str, typer.Option(help="Channels of the spatial network; 64 is the published one.")
    ] = "8,16,32",
    chains: Annotated[str, typer.Option(help="Steps T of whole chains.")] = "5,10,20",
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    training_steps: Annotated[int, typer.Option(min=1)] = 20,
    card_steps: Annotated[
        int, typer.Option(min=1, help="Steps a turn of every variant on a graphics card.")
    ] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option()] = "cpu",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """ARGS-Diff's training and sampling steps against a plain implementation, and a plot."""
    import torch

    from napari_hsfusion.engine.device import describe_device, resolve_device
    from napari_hsfusion.figures import save_png

    from . import report
    from .cards import measure_variants
    from .side_by_side import Case
    from .speed import (
        GRADIENTS,
        measure_chain,
        measure_memory,
        measure_step,
        measure_training,
        sweeps,
        write,
    )

    torch.set_num_threads(threads)
    place = resolve_device(device)
    numbers = [[int(value) for value in text.split(",")] for text in (sides, bands, dims, widths)]
    names = ("variants", "steps", "chains", "training", "memory")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    document = {
        "seed": seed,
        "device": place.type,
        "device_name": describe_device(place)["name"],
        "repeats": repeats,
        **found,
    }
    for gradient in GRADIENTS if place.type == "cuda" else ():
        # what counts most comes first, in case time runs out
        for base in (16, 64):
            for row in measure_variants(
                Case(side, base=base, gradient=gradient), card_steps, repeats, seed, device
            ):
                found["variants"].append(row)
                graph = row.get("cuda_graph_reason") or f"graph {row.get('cuda_graph', False)}"
                typer.echo(
                    f"| {base} | {gradient} | {row['kind']} {row['precision']} | {graph} | "
                    f"{1e3 * row['per_step']:.3f} ms | {row['ratio']:.2f} | "
                    f"{row['peak_bytes'] / 2**20:.0f} MB |"
                )
            write(out, document)
    done = {}
    for sweep, case in sweeps(Case(side), *numbers):
        if case not in done:
            done[case] = measure_step(case, repeats, seed, device)
            ours, plain = (done[case]["per_step"][kind] for kind in ("ours", "plain"))
            typer.echo(f"| {case} | {ours:.4f} s | {plain:.4f} s | {plain / ours:.2f} |")
        found["steps"].append({"sweep": sweep, **done[case]})
        write(out, document)
    small = Case(min(side, 64))
    for steps in chains.split(","):
        found["chains"].append(measure_chain(small, int(steps), seed, device))
    for network in ("spatial", "spectral"):
        found["training"].append(measure_training(network, small, training_steps, seed, device))
    for base in numbers[-1][:2]:
        for gradient in GRADIENTS:
            case = Case(side, base=base, gradient=gradient)
            found["memory"].append(measure_memory(case, seed, device, threads))
    write(out, document)
    save_png(report.figure(json.loads(out.read_text("utf-8"))), out.with_suffix(".png"))


@app.command()
def memory(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the results.")],
    only: Annotated[str, typer.Option(help="METHOD or METHOD:PRESET; all by default.")] = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Memory that runs are expected to take against what they take, on the CPU."""
    from .estimates import cases, measure, write

    rows = []
    for case in cases():
        if not f"{case.method}:{case.preset}".startswith(only):
            continue
        row = measure(case, seed)
        rows.append(row)
        typer.echo(
            f"| {case.method} {case.preset} | {case.bands}×{case.side}×{case.side} | "
            f"{case.threads} | {case.samples} | {dict(case.settings)} | "
            f"{row['estimate'] / 1e6:.0f} MB | {row['measured'] / 1e6:.0f} MB | "
            f"{row['estimate_to_measured']:.2f} | {row['measured_default'] / 1e6:.0f} MB |"
        )
        write(out, rows, seed)


@app.command()
def training(
    pairs: Annotated[Path, typer.Argument(help="Folder of simulated pairs, NAME.npz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file; a plot is put beside.")],
    scenes: Annotated[
        str, typer.Option(help="Names, separated by commas.")
    ] = "pavia_centre,cave_feathers",
    side: Annotated[int, typer.Option(min=16, help="Pixels that pairs are cut to.")] = 128,
    widths: Annotated[str, typer.Option(help="Channels of the spatial network.")] = "8,16,32",
    steps: Annotated[
        str, typer.Option(help="Training steps after which it is tried.")
    ] = "30,100,300,1000",
    sampling: Annotated[int, typer.Option(min=1, help="Steps of the published sampler.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Quality against training steps and width of the network, on the CPU, and a plot."""
    import torch

    from napari_hsfusion.figures import save_png

    from . import quality
    from .training_curve import Pair, measure, write

    torch.set_num_threads(threads)
    moments = [int(value) for value in steps.split(",")]
    rows: list[dict[str, Any]] = []
    chosen = [Pair(pairs / f"{name}.npz", side) for name in scenes.split(",")]
    for width in (None, *map(int, widths.split(","))):
        for pair in chosen:
            for row in measure(pair, width, moments, T=sampling, seed=seed):
                rows.append(row)
                typer.echo(
                    f"| {pair.name} | {width or ''} | {row['sampler']} | "
                    f"{row.get('weight') or ''} | {row.get('steps', '')} | {row['psnr']:.3f} | "
                    f"{row.get('training_seconds', 0.0):.1f} s |"
                )
                write(out, rows, seed)
    drawn = quality.training_figure(json.loads(out.read_text("utf-8")))
    save_png(drawn, out.with_suffix(".png"))


@app.command()
def endtoend(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file; rows in it are kept.")],
    sizes: Annotated[
        str, typer.Option(help="SIDExBANDS of the scene, separated by commas.")
    ] = "256x103,512x31",
    presets: Annotated[str, typer.Option(help="In this order.")] = "fast,balanced,paper",
    minutes: Annotated[
        float, typer.Option(min=0.01, help="For one run; a longer training is cut, and told so.")
    ] = 4.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a change to every preset.")
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """ARGS-Diff's presets from end to end: seconds, quality and memory."""
    from .endtoend import measure, write

    changes = dict(text.split("=", 1) for text in settings or ())
    for size in sizes.split(","):
        side, bands = map(int, size.split("x"))
        for preset in presets.split(","):
            row = measure(side, bands, preset, minutes, seed, device, changes)
            write(out, [row], seed)
            typer.echo(
                f"| {bands}×{side}×{side} | {preset} | {row['device_name']} | "
                f"{'complete' if row['complete'] else 'training cut'} | {row['seconds']:.1f} s | "
                f"{row['whole_seconds']:.0f} s | {row['psnr']:.2f} dB | "
                f"{row['device_bytes'] / 2**20:.0f} MB | {row['sampling']} |"
            )


@app.command("report")
def report_speed(
    results: Annotated[Path, typer.Argument(help="JSON file of a speed benchmark.")] = Path(
        "benchmarks/results/speed.json"
    ),
    text: Annotated[Path, typer.Option("--page", help="Page with places for the tables.")] = Path(
        "docs/performance.md"
    ),
    quality_text: Annotated[
        Path, typer.Option("--quality", help="Page about quality, from the files beside.")
    ] = Path("docs/quality.md"),
) -> None:
    """Put the figures of the benchmarks into the pages about performance and quality."""
    from . import quality, report

    report.rewrite(text, json.loads(results.read_text("utf-8")))
    quality.write(results.parent, quality_text)


if __name__ == "__main__":
    app()
