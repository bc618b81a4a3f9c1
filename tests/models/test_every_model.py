"""What holds for every registered model."""

import json

import pytest

from vlpipe.models import create_model, find_model, list_models
from vlpipe.models.model import Model
from vlpipe.models.registry import parse_config, register
from vlpipe.models.tasks import find_task, list_tasks
from vlpipe.stores.errors import UsageError


@pytest.mark.parametrize("name", list_models())
def test_configuration_round_trips_and_facts_are_there(name):
    model = find_model(name)
    config = model.Config()
    assert model.Config(**json.loads(config.model_dump_json())) == config
    assert model.description
    assert model.tasks
    assert all(p.task in model.tasks for p in model.published_results)
    assert set(model.training_defaults) <= {"learning_rate", "batch_size", "epochs"}


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"nearest: masn") as caught:
        create_model("mazn", task="count")
    assert caught.value.hint == "`vlpipe models ls` lists all"
    with pytest.raises(UsageError, match="does not solve the task 'captioning'"):
        create_model("masn", task="captioning")
    with pytest.raises(UsageError, match="there is no task 'cuont'; nearest: count"):
        find_task("cuont")


def test_a_wrong_setting_is_named():
    with pytest.raises(UsageError, match=r"'masn': hiden: Extra inputs") as caught:
        create_model("masn", task="count", hiden=3)
    assert "hidden" in caught.value.hint
    with pytest.raises(UsageError, match="dropout"):
        parse_config(find_model("masn"), {"dropout": 2})


def test_a_name_is_given_only_once():
    with pytest.raises(ValueError, match="registered twice"):
        register("masn")(type("Other", (Model,), {}))


def test_every_task_describes_itself():
    for name in list_tasks():
        task = find_task(name)
        assert task.description
        assert task.figure
