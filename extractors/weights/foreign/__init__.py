"""Weights of other frameworks into the layouts that the extractors here load.

`read_variables` reads a file as plain arrays, whichever format it is in; `layout` is what an
extractor says of foreign names and axis orders; `convert` brings the two together.
"""
