"""What a file of deployments may say, and how a wrong one is refused before any server sees it."""

import pytest
import yaml

from vlpipe.pipelines.cli import run
from vlpipe.pipelines.deployment_plan import PACKAGED_PLAN, read_plan
from vlpipe.pipelines.training.job import parse_settings
from vlpipe.stores.errors import UsageError


@pytest.fixture
def write(tmp_path):
    """Writes the packaged file with changes to its care deployment."""

    def written(**changes):
        content = yaml.safe_load(PACKAGED_PLAN.read_text())
        care = content["deployments"][3]
        care.update(changes)
        path = tmp_path / "prefect.yaml"
        path.write_text(yaml.safe_dump(content | {"deployments": [care]}))
        return path

    return written


def test_the_packaged_file_is_valid_and_its_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    plan = read_plan()
    assert [d.full_name for d in plan.deployments] == [
        "ingest/demo", "extract/demo", "retrain/count-demo", "care/demo-store",
    ]  # fmt: skip
    assert {p.name: p.concurrency_limit for p in plan.pools} == {"local-cpu": 2, "local-gpu": 1}
    assert all(not s.active for d in plan.deployments for s in d.schedules)
    ingest, extract, retrain, care = (d.job for d in plan.deployments)
    assert ingest.table == tmp_path / "vlpipe-demo" / "videos.parquet"
    assert extract.root == retrain.root == tmp_path / "vlpipe-demo" / "dataset"
    assert care.store == str(tmp_path / "vlpipe-demo" / "store")
    assert f"{care.store} is no store yet" in plan.remarks


def test_the_packaged_retraining_is_the_training_of_the_demo():
    from vlpipe.pipelines.demo.questions import _COMMON, SETTINGS

    (plan,) = read_plan(only=["retrain"]).deployments
    wanted = parse_settings(changes=(*_COMMON, *SETTINGS["count"]))
    assert plan.job.settings == wanted


def test_deployments_are_chosen_by_flow_name_or_both():
    assert len(read_plan(only=["demo"]).deployments) == 2
    assert [d.stage for d in read_plan(only=["care", "ingest/demo"]).deployments] == [
        "ingest", "care",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no deployment 'nightly'") as caught:
        read_plan(only=["nightly"])
    assert "it has: ingest/demo" in caught.value.hint
    assert [p.name for p in read_plan(only=["care"]).in_pool("here").pools] == ["here"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"job": {"store": "s", "keep_days": -1}}}, "keep_days: Input should be"),
        ({"parameters": {"job": {"store": "s", "keepdays": 1}}}, "keepdays: Extra inputs are not"),
        ({"parameters": {"store": "s"}}, "the parameters are store, expected `job`"),
        ({"entrypoint": "os.system"}, "'os.system' is none of vlpipe.pipelines.ingest_flow.ingest"),
        ({"concurrency_limit": 0}, "concurrency_limit: Input should be greater"),
        ({"name": "a/b"}, "name: String should match"),
        ({"description": "{{ $NOT_SET_ANYWHERE }}"}, "NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_wrong_values_are_refused_with_their_place(write, changes, message):
    with pytest.raises(UsageError) as caught:
        _ = [d.job for d in read_plan(write(**changes)).deployments]
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("flow", "job", "message"),
    [
        ("extract", {"features": ["resnet9000"]}, "resnet9000"),
        ("ingest", {"dataset": "tgiff"}, "there is no dataset 'tgiff'"),
        ("retrain", {"model": "mason"}, "mason"),
    ],
)
def test_unknown_names_do_not_wait_for_the_first_night(tmp_path, monkeypatch, flow, job, message):
    monkeypatch.setenv("PWD", str(tmp_path))
    content = yaml.safe_load(PACKAGED_PLAN.read_text())
    for deployment in content["deployments"]:
        if f".{flow}_flow." in deployment["entrypoint"]:
            deployment["parameters"]["job"] |= job
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        read_plan(tmp_path / "x.yaml", [flow])


def test_environment_variables_are_filled_in(write, monkeypatch):
    monkeypatch.setenv("FEATURES_URL", "s3://bucket/features")
    (plan,) = read_plan(write(parameters={"job": {"store": "{{ $FEATURES_URL }}"}})).deployments
    assert plan.job.store == "s3://bucket/features"


def test_the_command_prints_the_file_and_refuses_what_does_not_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert run(["deploy", "--print-file"]) == 0
    assert capsys.readouterr().out == PACKAGED_PLAN.read_text()
    assert run(["deploy"]) == 3
    assert "PREFECT_API_URL is not set" in capsys.readouterr().err
    assert run(["deploy", "--file", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml cannot be read" in capsys.readouterr().err
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert run(["deploy", "--file", str(tmp_path / "list.yaml")]) == 2
    assert run(["deploy", str(tmp_path), "--features", "resnet18", "--file", "x.yaml"]) == 2
    assert "one of them is enough" in capsys.readouterr().err
