"""What extractors of regions are built of: detectors, which boxes are kept, when they change."""
