"""What is said of values that pydantic refuses."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vlpipe.stores.problems import problems_of


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fps: float = Field(default=1, gt=0)
    kind: Literal["a", "b"] = "a"
    share: str = "1/2"

    @field_validator("share")
    @classmethod
    def _check_share(cls, share):
        if share == "0/4":
            raise ValueError("share '0/4': expected k/n")
        return share

    @model_validator(mode="after")
    def _check(self):
        if self.fps == 7:
            raise ValueError("seven is too many")
        return self


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"fps": -1}, "fps: Input should be greater than 0 (found -1)"),
        ({"kind": "c"}, "kind: Input should be 'a' or 'b' (found 'c')"),
        ({"share": "0/4"}, "share: share '0/4': expected k/n"),
        ({"fps": 7}, "seven is too many"),
        ({"speed": 3}, "speed: Extra inputs are not permitted"),
        ({"fps": [0] * 100}, f"fps: Input should be a valid number (found [{'0, ' * 19}0,...)"),
    ],
)
def test_problems_name_the_field_and_what_was_found(values, text):
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate(values)
    assert problems_of(caught.value) == text


def test_several_problems_are_all_named():
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate({"kind": "c", "speed": 3})
    assert problems_of(caught.value).count("; ") == 1
