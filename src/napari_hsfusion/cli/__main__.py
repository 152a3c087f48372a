"""``python -m napari_hsfusion.cli``."""

from . import main

main()
