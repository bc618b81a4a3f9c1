"""Names in state dicts of `TVQANet`, hyounghk/VideoQADenseCapFrameGate-ACL2020 and amanchadha/
iPerceive, whose network is the same."""

import re

# Tables of positions, which this network computes: where they stand, of how many channels.
POSITIONS = re.compile(r"(input|cls)_encoder\.stacked_encoderBlocks\.0\.position_encoding\.pe")

# Names here -> names there, applied one after the other.
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^text_projection\.", "bert_word_encoding_fc."),
        (r"^region_projection\.", "vid_fc."),
        (r"^shared_projection\.", "input_embedding."),
        (r"^word_encoder\.", "input_encoder.stacked_encoderBlocks.0."),
        (r"^frame_encoder\.", "cls_encoder.stacked_encoderBlocks.0."),
        (r"(Blocks\.0)\.norms\.", r"\1.layer_norm."),
        (r"(Blocks\.0)\.last_norm\.", r"\1.final_layer_norm."),
        (r"(Blocks\.0)\.convolutions\.(\d)\.(\w+)\.", r"\1.conv.\2.\3_conv."),
        (r"^attended\.", "c2q_down_projection."),
        (r"^word_fusion\.", "concat_fusion."),
        (r"^frame_fusion\.", "concat_fc."),
        (r"^frame_attention\.query\.", "MultiHeadAtt.linears.0."),
        (r"^frame_attention\.key\.", "MultiHeadAtt.linears.1."),
        (r"^frame_attention\.value\.", "MultiHeadAtt.linears.2."),
        (r"^frame_attention\.output\.", "MultiHeadAtt.linears.3."),
        (r"^local_gate\.", "QuestionAtt.conv."),
        (r"^global_gate\.", "QuestionAtt_global.conv."),
        (r"^score\.", "classifier.conv."),
    )
)


def published_key(key: str) -> str:
    """What the published checkpoint calls the entry `key` of our network, without `module.`."""
    for ours, theirs in _RENAMED:
        key = ours.sub(theirs, key)
    return key
