"""Subtitles: what players read of them, for events that overlap and words that look like markup."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_media import ffmpeg

from vlpipe.models.metrics.dense_captioning import EventCaption
from vlpipe.pipelines.captioning.subtitles import cues, subrip, webvtt

CLOCK = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d{3})")
EVENTS = (
    EventCaption(10.0, 20.0, "A man runs"),
    EventCaption(0.1, 34.96, "We see a title"),
    EventCaption(12.5, 15.0, "He jumps"),
)

events = st.lists(
    st.builds(
        lambda start, length, words: EventCaption(start, start + length, words),
        st.floats(0, 200_000),
        st.floats(0, 600),
        st.text(max_size=20),
    ),
    max_size=8,
)


def blocks(text):
    """(start_ms, end_ms, lines) of each cue, after anything that stands before the first."""
    found = []
    for block in text.removeprefix("WEBVTT\n").split("\n\n"):
        if not block.strip():
            continue
        number, times, *lines = block.strip("\n").split("\n")
        assert int(number) == len(found) + 1
        edges = [
            ((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(ms)
            for h, m, s, ms in CLOCK.findall(times)
        ]
        found.append((*edges, lines))
    return found


def test_overlapping_events_become_cues_that_follow_each_other():
    assert [(cue.start_ms, cue.end_ms, cue.lines) for cue in cues(EVENTS)] == [
        (100, 10_000, ("We see a title",)),
        (10_000, 12_500, ("We see a title", "A man runs")),
        (12_500, 15_000, ("We see a title", "A man runs", "He jumps")),
        (15_000, 20_000, ("We see a title", "A man runs")),
        (20_000, 34_960, ("We see a title",)),
    ]


def test_of_many_at_once_the_surest_are_shown():
    many = [EventCaption(0, 2 + n, f"event {n}") for n in range(6)]
    assert cues(many)[0].lines == ("event 0", "event 1", "event 2")


def test_the_same_words_in_a_row_are_one_cue_and_no_words_are_none():
    same = [EventCaption(0, 2, "it"), EventCaption(2, 3, "it"), EventCaption(5, 6, " \n ")]
    assert [(cue.start_ms, cue.end_ms) for cue in cues(same)] == [(0, 3000)]
    assert cues([EventCaption(1.0, 1.0, "no length")]) == []
    assert webvtt([]).startswith("WEBVTT\n")


@settings(max_examples=150, deadline=None)
@given(events)
def test_times_rise_and_each_cue_is_one_block(told):
    for text in (webvtt(told), subrip(told)):
        previous = 0
        for start_ms, end_ms, lines in blocks(text):
            assert previous <= start_ms < end_ms
            assert 1 <= len(lines) <= 3
            assert all(line.strip() and "-->" not in line for line in lines)
            previous = end_ms


WORDS = ("<unk> & <b>bold</b>", "1 --> 2", "x &amp; y", "\u00fcber <script>alert(1)")


@pytest.mark.parametrize("words", WORDS)
def test_words_come_out_of_a_reader_of_webvtt_as_they_are(tmp_path, words):
    (tmp_path / "a.vtt").write_text(webvtt([EventCaption(1, 2.5, words)]), encoding="utf-8")
    read = ffmpeg("-i", tmp_path / "a.vtt", "-f", "webvtt", "-").decode()
    assert "00:01.000 --> 00:02.500" in read
    assert read.strip().splitlines()[-1] == words  # ffmpeg writes texts unescaped


@pytest.mark.parametrize("words", [*WORDS, "{\\an8}up"])
def test_subrip_holds_no_commands_for_a_player(tmp_path, words):
    (tmp_path / "a.srt").write_text(subrip([EventCaption(1, 2.5, words)]), encoding="utf-8")
    read = ffmpeg("-i", tmp_path / "a.srt", "-f", "srt", "-").decode()
    assert "00:00:01,000 --> 00:00:02,500" in read
    look_alikes = str.maketrans("<>{}", "\u2039\u203a()")
    assert read.strip().splitlines()[-1] == words.translate(look_alikes)


def test_a_player_reads_every_cue_of_both_forms(tmp_path):
    for name, text in (("a.vtt", webvtt(EVENTS)), ("a.srt", subrip(EVENTS))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        again = ffmpeg("-i", tmp_path / name, "-f", "srt", "-").decode()
        assert [block[:2] for block in blocks(again)] == [
            (cue.start_ms, cue.end_ms) for cue in cues(EVENTS)
        ]
        assert "We see a title\nA man runs\nHe jumps" in again


def test_hours_take_the_digits_they_need():
    late = [EventCaption(3 * 3600 + 1.5, 100 * 3600.0, "late")]
    assert "03:00:01.500 --> 100:00:00.000" in webvtt(late)
    assert "03:00:01,500 --> 100:00:00,000" in subrip(late)
