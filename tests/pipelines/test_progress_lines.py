"""What a command says of its progress where nobody sees a bar."""

from types import SimpleNamespace

from vlpipe.pipelines.cli.progress import show_progress


def plan(name, count):
    job = SimpleNamespace(source_name=name)
    return SimpleNamespace(
        job=job, num_tasks=count, selected=[""] * count, batches=[0], stored=(), missing=()
    )


def test_each_extraction_of_a_command_counts_for_itself(capsys):
    with show_progress() as observer:
        observer.on_plan(plan("first", 2))
        observer.on_video("a", ())
        observer.on_video("b", ("what failed",))
        observer.on_plan(plan("second", 1))
        observer.on_video("c", ())
    lines = [line for line in capsys.readouterr().err.splitlines() if " videos, " in line]
    assert "2 of 2 videos" in lines[-2]
    assert "1 failed" in lines[-2]
    assert "1 of 1 videos" in lines[-1]
    assert "failed" not in lines[-1]
