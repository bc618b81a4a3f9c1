"""Words that are spoken: windows of sound, files of subtitles, rows of words."""
