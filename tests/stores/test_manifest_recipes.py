"""The tables of a store in DuckDB and Polars, as docs/store.md shows them."""

from pathlib import Path

import duckdb
import polars
import pytest


@pytest.fixture
def filled(store, samples):
    samples.write(store, ["a", "b"])
    with store.writer([samples.rgb]) as writer:
        writer.add("long", {"rgb": samples.rows(samples.rgb, "long", 40)})
        writer.fail("bad", None, "decode", "no frames")
    store.checkpoint()
    return store


@pytest.mark.folder
def test_duckdb_over_the_files(filled, samples):
    (checkpoint,) = Path(filled.url).glob("ckpt/0*")
    long = duckdb.sql(
        f"""select v.video_id, v.row_size, p.id
            from '{checkpoint}/rgb.{samples.rgb.generation}.parquet' v
            join (select *, row_number() over () - 1 as number from '{checkpoint}/parts.parquet') p
            on v.part = p.number where v.row_size > 30"""
    ).fetchall()
    assert long == [("long", 40, filled["rgb"].locate("long")[0].id)]


def test_tables_without_files(filled):
    videos = filled.videos()
    found = duckdb.from_arrow(videos).aggregate("feature, sum(rows)").order("feature").fetchall()
    assert found == [("audio", 8), ("rgb", 48)]
    frame = polars.from_arrow(videos)
    assert frame.filter(polars.col("feature") == "rgb")["rows"].sum() == 48
    assert polars.from_arrow(filled.failed())["video_id"].to_list() == ["bad"]
