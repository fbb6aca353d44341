"""Where networks come from: classes of devices, presets, files of networks and of traces."""
