"""Captions of videos by a trained run: events with sentences, as JSON, subtitles and a page."""
