"""A simulated extraction in which some videos kill the process that works on them."""

import os
import signal

from benchmarks._simulation import SimulatedJob, SleepingExtractor

from vlpipe.extractors import ExtractorSpec
from vlpipe.extractors.weights.source import WeightsSource

POISON = -1.0


class PoisonedExtractor(SleepingExtractor):
    def sampler(self, info):
        self_destruct = "poison" in info.path
        sampler = super().sampler(info)
        if self_destruct:
            os.kill(os.getpid(), signal.SIGKILL)
        return sampler


class PoisonedJob(SimulatedJob):
    def specs(self):
        (spec,) = super().specs()
        return [ExtractorSpec(PoisonedExtractor, spec.config, WeightsSource(is_untrained=True))]
