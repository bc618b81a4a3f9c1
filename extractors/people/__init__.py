"""What extractors of people are built of: detectors, trackers, faces."""
