"""Watch a fusion from the inside: take its events one by one, look at previews, stop it.

`iter_fuse` yields what napari's Fuse widget shows: the stages with their steps and
losses, and the estimate as it stands. The budget here is tiny, so that it ends in
seconds; leave the settings out for a result worth having.
"""

from __future__ import annotations

import numpy as np

import napari_hsfusion as hs
from napari_hsfusion.engine.events import CancelToken, Finished, Preview, Started, Step
from napari_hsfusion.errors import Cancelled
from napari_hsfusion.scene import demo_scene

SENSOR = "gaussian:480/70,560/60,660/60,835/120"
TINY = {"d": 4, "weight": 0.5, "spatial_base": 8, "spatial_steps": 10, "levels": 4}
NEAR_INFRARED = 24  # the band that is watched, counted from 0


def main() -> None:
    """Run once to the end, keeping every preview; then start again and stop half-way."""
    truth = demo_scene(size=32, bands=30)
    pair = hs.simulate(truth, scale=4, psf="bicubic", srf=SENSOR, snr_db=35)

    previews = []
    for event in hs.iter_fuse(pair.lr_hsi, pair.hr_msi, **TINY):
        if isinstance(event, Started):
            print(f"{event.method}: {', '.join(event.stages)}")
        elif isinstance(event, Step) and event.loss is not None:
            print(f"  {event.stage} {event.index}/{event.total}: {event.loss:.4f}")
        elif isinstance(event, Preview):
            previews.append(event.bands(NEAR_INFRARED))  # one band costs one band
        elif isinstance(event, Finished):
            last = event.cube[NEAR_INFRARED]
            print(f"seed {event.record['seed']}, weight {event.record['prior_weight']}")
    np.save("previews.npy", np.stack(previews))
    apart = float(np.abs(previews[-1] - last).max())
    print(f"{len(previews)} previews; the last is {apart:.1e} from the result")

    stop = CancelToken()  # any thread may set it
    try:
        for event in hs.iter_fuse(pair.lr_hsi, pair.hr_msi, cancel=stop, **TINY):
            if isinstance(event, Step) and event.stage.startswith("train") and event.index == 3:
                stop.cancel()
    except Cancelled as reason:
        print(f"stopped: {reason}")


if __name__ == "__main__":
    main()
