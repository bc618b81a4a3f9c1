"""From the features of one video to one sentence about the whole of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from vlpipe.models import Model, ModelConfig
from vlpipe.models.tasks.description import DescriptionTask
from vlpipe.models.tasks.sentence_task import SentenceExample
from vlpipe.pipelines.captioning.events import ConfidentEvent
from vlpipe.pipelines.captioning.telling import EventChoice
from vlpipe.stores import FeatureReader, Features


@dataclass(frozen=True)
class Describer:
    """A trained network and its task; model: on `device`, in evaluation."""

    model: Model
    config: ModelConfig
    task: DescriptionTask
    device: torch.device

    @torch.inference_mode()
    def tell(
        self,
        readers: Mapping[str, FeatureReader],
        video_id: str,
        duration_s: float,
        choice: EventChoice,
    ) -> list[ConfidentEvent]:
        """One event, the video, of which the network is told that there is one.

        readers: by slot of the model. Raises VlpipeError if rows are missing or damaged.
        """
        del choice
        features = {
            slot: Features(*reader.read(video_id, with_spans=True))
            for slot, reader in readers.items()
        }
        prepared = self.model.prepare(self.config, features)
        example = SentenceExample(video_id, video_id, "")
        batch = self.task.collate([(example, [prepared])]).to(self.device)
        (record,) = self.task.predict(self.model, [batch])
        return [ConfidentEvent(0.0, round(duration_s, 2), record["prediction"], 1.0)]
