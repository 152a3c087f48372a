"""The graphical front end: the only place that imports Qt, magicgui and napari.qt."""
