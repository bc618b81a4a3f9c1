"""iPerceive DVC: MDVC with common sense beside the picture, and proposals learnt with the captions.

Paper: iPerceive: Applying Common-Sense Reasoning to Multi-Modal Dense Video Captioning and Video
Question Answering (Chadha et al., WACV 2021, arXiv 2011.07735). Code: amanchadha/iPerceive, whose
captioner cannot run as published (sizes that do not fit, settings that do not exist) and differs
from the paper, so there is no layout to load but MDVC's, which fills all that is MDVC.

Decisions where paper and code leave it open:
  fusion     a row of common sense beside each row of rgb + flow, the newest at its time (rows
             between changes repeat), joined and mapped back: Linear(1024 + C -> 1024). The map
             starts as "the picture alone", so that training starts from MDVC.
  proposals  Bi-SST (see `layers/bi_sst.py`) on the fused rows
  training   both at once: the loss is that of the captions plus `proposal_weight` times the
             proposals'

Sound and speech are MDVC's, untouched.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.layers.bi_sst import BiSst
from vlpipe.models.layers.event_anchors import anchors_of
from vlpipe.models.layers.streams import real_rows, row_stride_s
from vlpipe.models.mdvc import AUDIO, CAPTIONING, VIDEO, Mdvc, MdvcConfig
from vlpipe.models.model import ModelConfig, PublishedResult
from vlpipe.models.published_files import without_parallel_prefix
from vlpipe.models.published_layouts.bmt_anchors import AUDIO_ANCHORS_S
from vlpipe.models.registry import register
from vlpipe.stores import Features

DENSE_CAPTIONING = "dense_captioning"


class IperceiveDvcConfig(MdvcConfig):
    """MDVC's sizes, and:

    has_commonsense: False is MDVC with proposals. commonsense_width: given by the features.
    video_anchors_s: lengths that proposals can have; as many are taken from event_lengths_s, those
        of the training events, where the task gives that.
    proposal_hidden: channels of each reading. proposal_weight: of their loss.
    video_stride_s: seconds from row to row, where the features do not say so.
    """

    has_commonsense: bool = True
    commonsense_width: PositiveInt = 1024
    video_anchors_s: tuple[PositiveFloat, ...] = AUDIO_ANCHORS_S
    event_lengths_s: tuple[PositiveFloat, ...] = ()
    proposal_hidden: PositiveInt = 512
    proposal_weight: float = Field(default=1.0, ge=0)
    video_stride_s: PositiveFloat = 0.96


@register("iperceive_dvc")
class IperceiveDvc(Mdvc):
    """iPerceive DVC; see the top of the file."""

    description: ClassVar[str] = "iPerceive DVC (WACV 2021): MDVC with common sense and proposals"
    code: ClassVar[str] = "https://github.com/amanchadha/iPerceive"
    tasks: ClassVar[tuple[str, ...]] = (CAPTIONING, DENSE_CAPTIONING)
    Config: ClassVar[type[ModelConfig]] = IperceiveDvcConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            **Mdvc.slots,
            "commonsense": FeatureSlot(
                "commonsense",
                "vectors of the objects in a frame",
                is_optional=True,
                row_shapes=("channels",),
            ),
        }
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = tuple(
        PublishedResult(task, "activitynet", metric, value, "iPerceive DVC, missing videos count 0")
        for task, metric, value in (
            (CAPTIONING, "bleu_3", 5.23), (CAPTIONING, "bleu_4", 2.34),
            (CAPTIONING, "meteor", 11.77), (DENSE_CAPTIONING, "bleu_3", 2.59),
            (DENSE_CAPTIONING, "bleu_4", 1.07), (DENSE_CAPTIONING, "meteor", 7.29),
        )
    )  # fmt: skip

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        settings = cast(IperceiveDvcConfig, config)
        self.settings = settings
        if settings.has_commonsense:
            width = settings.video_width
            self.fuse = nn.Linear(width + settings.commonsense_width, width)
            with torch.no_grad():
                self.fuse.weight[:, :width] = torch.eye(width)
                self.fuse.weight[:, width:] = 0
                self.fuse.bias.zero_()
        if task == DENSE_CAPTIONING:
            lengths, anchors_s = settings.event_lengths_s, settings.video_anchors_s
            if lengths:
                anchors_s = anchors_of(lengths, len(anchors_s))
            self.proposals = BiSst(settings.video_width, settings.proposal_hidden, anchors_s)

    @classmethod
    def slots_in_use(cls, config: ModelConfig) -> Mapping[str, FeatureSlot]:
        found = super().slots_in_use(config)
        without = set() if cast(IperceiveDvcConfig, config).has_commonsense else {"commonsense"}
        return {name: slot for name, slot in found.items() if name not in without}

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        found = super().settings_for(config, row_shapes)
        if "commonsense" in row_shapes:
            found["commonsense_width"] = row_shapes["commonsense"][-1]
        return found

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """MDVC's, with commonsense (T, C) of the same rows, zeros before the first; and
        video_step_s ()."""
        settings = cast(IperceiveDvcConfig, config)
        mine = {slot: values for slot, values in features.items() if slot != "commonsense"}
        prepared = super().prepare(config, mine, window_s)
        step_s = row_stride_s(features["rgb"]) or settings.video_stride_s
        prepared["video_step_s"] = torch.tensor(step_s)
        if settings.has_commonsense:
            starts_s, ends_s = features["rgb"].spans.T
            if window_s is not None:
                inside = (ends_s > window_s[0]) & (starts_s < window_s[1])
                starts_s, ends_s = starts_s[inside], ends_s[inside]
            count = len(prepared["rgb"])
            prepared["commonsense"] = _newest_rows(
                features.get("commonsense"), ends_s[:count], count, settings.commonsense_width
            )
        return prepared

    def forward(
        self,
        *,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        subs: Tensor | None = None,
        caption: Tensor | None = None,
        events: Tensor | None = None,
        duration_s: Tensor | None = None,
        rgb_length: Tensor | None = None,
        flow_length: Tensor | None = None,
        audio_length: Tensor | None = None,
        speech: Tensor | None = None,
        speech_spans: Tensor | None = None,
        **others: Tensor,
    ) -> dict[str, Tensor]:
        """MDVC's, with commonsense, float (B, S, C), unless the network has none, and
        video_step_s (B,).

        Of the task `dense_captioning` also `predictions`, float32 (B, P, 3), centre and length in
        seconds and confidence, if events or no caption are given; with events `proposal_loss`,
        which `loss` then holds too. Without caption there are no `ids`: see write_captions.
        """
        video_step_s = others.pop("video_step_s", None)
        outputs: dict[str, Tensor] = {}
        if caption is not None or self.task == CAPTIONING:
            outputs = super().forward(
                rgb=rgb, flow=flow, audio=audio, subs=subs, caption=caption, events=events,
                duration_s=duration_s, rgb_length=rgb_length, speech=speech,
                speech_spans=speech_spans, **others,
            )  # fmt: skip
        if self.task == DENSE_CAPTIONING and (caption is None or events is not None):
            rows, mask = self._fused(rgb, flow, rgb_length, others.get("commonsense"))
            usual = rows.new_full((len(rows),), self.settings.video_stride_s)
            step_s = usual if video_step_s is None else video_step_s
            outputs |= self.proposals(rows, mask, step_s, events)
            if "proposal_loss" in outputs:
                weighted = self.settings.proposal_weight * outputs["proposal_loss"]
                outputs["loss"] = outputs["loss"] + weighted if "loss" in outputs else weighted
        return outputs

    def _streams(
        self,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        subs: Tensor | None,
        rgb_length: Tensor | None,
        events: Tensor | None,
        duration_s: Tensor | None,
        **others: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        others.pop("video_step_s", None)
        commonsense = others.pop("commonsense", None)
        others.pop("commonsense_length", None)
        if others:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(others)}")
        video, mask = self._fused(rgb, flow, rgb_length, commonsense)
        found = {AUDIO: (audio.float(), mask), VIDEO: (video, mask)}
        return self._of_events(found, subs, events, duration_s)

    def _fused(
        self, rgb: Tensor, flow: Tensor, rgb_length: Tensor | None, commonsense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Rows (B, S, 1024) and mask bool (B, S)."""
        video = rgb.float() + flow.float()
        mask = real_rows(video, rgb_length)
        if not self.settings.has_commonsense:
            return video, mask
        if commonsense is None:
            raise TypeError("give commonsense, or set has_commonsense=false")
        joined = torch.cat([video, commonsense.float()], dim=-1)
        return cast(Tensor, self.fuse(joined)), mask

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """A checkpoint of MDVC; what is beyond it keeps its values."""
        own = self.state_dict()
        beyond = {key: own[key] for key in own if key.startswith(("fuse.", "proposals."))}
        super().load_published(without_parallel_prefix(state) | beyond)

    def published_state(self) -> dict[str, Tensor] | None:
        return None  # the authors' network cannot hold these weights


def _newest_rows(
    features: Features | None, ends_s: np.ndarray[Any, Any], count: int, width: int
) -> Tensor:
    """float32 (count, width): for each row of picture the mean of the newest frame's objects that
    begins before its end."""
    if features is None or not len(features.rows):
        return torch.zeros(count, width)
    rows = np.asarray(features.rows, np.float32)
    rows = rows.reshape(len(rows), -1, rows.shape[-1]).mean(axis=1)  # (T, C)
    starts_s, first = np.unique(features.spans[:, 0], return_index=True)  # every object is a row
    sums = np.add.reduceat(rows, first, axis=0)  # (frames, C)
    frames = sums / np.diff(np.append(first, len(rows)))[:, None]
    place = np.searchsorted(starts_s, ends_s, side="left") - 1
    found = np.where(place[:, None] >= 0, frames[place.clip(0)], 0.0).astype(np.float32)
    padded = np.zeros((count, width), np.float32)
    padded[: len(found)] = found[:count]
    return torch.from_numpy(padded)
