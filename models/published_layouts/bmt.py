"""Names in checkpoints of v-iashin/BMT: its captioner and its proposal generator."""

import re

_ATTENTION = (
    (r"\.query\.", ".linear_Q2d."),
    (r"\.key\.", ".linear_K2d."),
    (r"\.value\.", ".linear_V2d."),
    (r"\.output\.", ".linear_d2Q."),
)

# Names here -> names there, applied one after the other.
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^words\.", "emb_C.embedder."),
        (r"^input_audio\.map\.", "emb_A.embedder."),
        (r"^input_video\.map\.", "emb_V.embedder."),
        (r"^generator\.", "generator.linear."),
        *_ATTENTION,
        (r"\.rise\.", ".fc1."),
        (r"\.fall\.", ".fc2."),
        (r"^encoder\.layers\.", "encoder.encoder_AV.layers."),
        (r"\.self_audio\.", ".self_att_M1."),
        (r"\.self_video\.", ".self_att_M2."),
        (r"\.cross_audio\.", ".bi_modal_att_M1."),
        (r"\.cross_video\.", ".bi_modal_att_M2."),
        (r"\.feed_audio\.", ".feed_forward_M1."),
        (r"\.feed_video\.", ".feed_forward_M2."),
        (r"\.norms_audio\.(\d)\.", r".res_layers_M1.\1.norm."),
        (r"\.norms_video\.(\d)\.", r".res_layers_M2.\1.norm."),
        (r"^decoder\.layers\.", "decoder.decoder.layers."),
        (r"\.self_attention\.", ".self_att."),
        (r"\.attend_audio\.", ".enc_att_A."),
        (r"\.attend_video\.", ".enc_att_V."),
        (r"\.norm_self\.", ".res_layer_self_att.norm."),
        (r"\.norm_audio\.", ".res_layer_enc_att_A.norm."),
        (r"\.norm_video\.", ".res_layer_enc_att_V.norm."),
        (r"\.norm_feed\.", ".res_layer_ff.norm."),
        (r"\.bridge_norm\.", ".bridge.norm."),
        (r"\.bridge\.(weight|bias)$", r".bridge.linear.\1"),
        (r"\.feed\.", ".feed_forward."),
        (r"^events_audio\.heads\.", "detection_layers_A."),
        (r"^events_video\.heads\.", "detection_layers_V."),
    )
)  # fmt: skip

# In a head dropout and ReLU stand between the convolutions; without dropout the ReLU alone.
_CONVOLUTION = re.compile(r"\.convolutions\.(\d)\.")


def published_key(key: str, *, has_dropout: bool) -> str:
    """What the published checkpoint calls the entry `key` of our network, without `module.`."""
    for ours, theirs in _RENAMED:
        key = ours.sub(theirs, key)
    apart = 3 if has_dropout else 2
    return _CONVOLUTION.sub(lambda found: f".conv_layers.{int(found[1]) * apart}.", key)
